// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The settings as they go to the greeter's process: in a file without a name, as there is no bound to what an
//! administrator may write into a configuration.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use limiter_common::{Protocol, Reason};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{
    bounds::Bounds,
    refusal::{self, Services},
    settings::Said,
    tls,
    words::{self, Words},
};
use crate::wording::{Template, Wording};

/// All that the process has to know.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    pub bounds: Bounds,
    /// Whether the daemon's log has each refusal.
    pub tells_each: bool,
    hostname: String,
    /// What is served at which port, by the protocol's number.
    ports: Vec<(u16, u8)>,
    services: Vec<Service>,
    certificates: Vec<tls::Public>,
    /// Where TLS starts at once, and with which of the certificates.
    tls: Vec<(Vec<u16>, Vec<u32>)>,
}

/// The words of a service, and its ports.
#[derive(Debug, Serialize, Deserialize)]
struct Service {
    ports: Vec<u16>,
    name: String,
    protocol: u8,
    messages: Vec<Option<String>>,
    url: Option<String>,
}

impl Setup {
    /// Of settings and bounds.
    pub fn of(said: &Said, bounds: Bounds, tells_each: bool) -> Self {
        let mut used: Vec<&Arc<tls::Usable>> = Vec::new();
        let mut index = |certificate| {
            let known = used.iter().position(|known| Arc::ptr_eq(known, certificate));
            known.unwrap_or_else(|| {
                used.push(certificate);
                used.len() - 1
            }) as u32
        };
        let tls = said.tls.iter();
        let tls =
            tls.map(|(ports, certificates)| (ports.clone(), certificates.iter().map(&mut index).collect()));
        let tls = tls.collect();
        Self {
            bounds,
            tells_each,
            hostname: said.words.hostname.clone(),
            ports: said.services.iter().map(|(port, service)| (port, service.protocol as u8)).collect(),
            services: said.words.services().map(|(ports, service)| Service::of(ports, service)).collect(),
            certificates: used.into_iter().map(|certificate| certificate.public()).collect(),
            tls,
        }
    }

    /// A file that has it.
    ///
    /// # Errors
    /// For want of memory.
    pub fn write(&self) -> io::Result<OwnedFd> {
        let bytes = postcard::to_allocvec(self).map_err(io::Error::other)?;
        let file = memfd_create("limiter-greeter-setup", MemfdFlags::CLOEXEC)?;
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            written += rustix::io::pwrite(&file, rest, written as u64)?;
        }
        Ok(file)
    }

    /// What is in such a file.
    ///
    /// # Errors
    /// `InvalidData` if that is something else.
    pub fn read(file: impl AsFd) -> io::Result<Self> {
        let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
        loop {
            match rustix::io::pread(&file, &mut part, bytes.len() as u64)? {
                0 => break,
                read => bytes.extend(part.get(..read).unwrap_or_default()),
            }
        }
        postcard::from_bytes(&bytes).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// What is served at which port.
    pub fn services(&self) -> Services {
        let known = |&(port, protocol): &(u16, u8)| {
            Protocol::from_u8(protocol).map(|protocol| (port, refusal::Service { protocol }))
        };
        self.ports.iter().filter_map(known).collect()
    }

    /// With which words.
    pub fn words(&self) -> Words {
        let known = |service: &Service| Some((service.ports.clone(), service.words()?));
        Words::new(self.hostname.clone(), self.services.iter().filter_map(known))
    }

    /// What is said at the ports where TLS starts at once.
    pub fn speaks(&self, common: &tls::Common, signer: &tls::Asker) -> tls::Ports {
        let offered: Vec<_> = self.certificates.iter().map(|public| tls::offered(public, signer)).collect();
        let mut speaks = HashMap::new();
        for (ports, certificates) in &self.tls {
            let certificates = certificates.iter().filter_map(|&at| offered.get(at as usize).cloned());
            let certificates: Vec<_> = certificates.collect();
            let says = if certificates.is_empty() {
                tls::Speaks::Alert
            } else {
                common.server(certificates).map_or(tls::Speaks::Alert, tls::Speaks::Tls)
            };
            speaks.extend(ports.iter().map(|&port| (port, says.clone())));
        }
        tls::Ports::new(speaks)
    }
}

impl Service {
    fn of(ports: Vec<u16>, service: &words::Service) -> Self {
        let text = |template: &Template| template.to_string();
        let message = |reason: Reason| service.wording.message(reason).map(text);
        Self {
            ports,
            name: service.name.as_ref().to_owned(),
            protocol: service.protocol as u8,
            messages: Reason::ALL.into_iter().map(message).collect(),
            url: service.wording.url.as_ref().map(text),
        }
    }

    fn words(&self) -> Option<words::Service> {
        let template = |text: &Option<String>| Template::parse(text.as_deref()?).ok();
        let mut wording = Wording::NONE;
        wording.url = template(&self.url);
        for (reason, message) in Reason::ALL.into_iter().zip(&self.messages) {
            wording.set(reason, template(message));
        }
        let protocol = Protocol::from_u8(self.protocol)?;
        Some(words::Service { name: self.name.as_str().into(), protocol, wording })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::settings::Settings, *};
    use crate::config;

    #[test]
    fn what_the_process_says_is_what_the_configuration_says() {
        let text = "hostname = \"mx.example.org\"\n[defaults]\nurl = \"https://example.org/{reason}\"\n\
                    message = \"{{full}} {count}\"\n[service.pop3]\nmessage = { rate = \"{retry}\" }\n";
        let config = config::parse(text, "a file").unwrap();
        let settings = Settings::default();
        settings.set_words(Services::of(&config), Words::of(&config, "mx.example.org".to_owned()));
        let said = settings.get();
        let bounds = Bounds { connections: 7, ..Bounds::default() };
        let file = Setup::of(&said, bounds, true).write().unwrap();
        let setup = Setup::read(&file).unwrap();
        assert_eq!((setup.bounds, setup.tells_each), (bounds, true));
        assert_eq!(setup.services(), said.services);
        let words = setup.words();
        assert_eq!(words.hostname, "mx.example.org");
        for (port, service) in said.services.iter() {
            let [before, now] = [&said.words, &words].map(|words| {
                let service = words.at(port, service.protocol).unwrap();
                (service.name.clone(), service.wording.clone())
            });
            assert_eq!(before, now, "port {port}");
        }
    }
}
