// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the greeter has to say, of the configuration: its name, and the words of each port's service.

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use limiter_common::Protocol;

use crate::{
    config::{self, Config, is_hostname},
    wording::Wording,
};

/// What a service is called whose name is not known.
pub const NAMELESS: &str = "mail";

/// The greeter's name, and what is told at which port.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// A name that [`is_hostname`] accepts.
    pub hostname: String,
    services: HashMap<u16, Arc<Service>>,
}

/// What is told at the ports of a service.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: Arc<str>,
    /// What its clients speak. The words are checked for that.
    pub protocol: Protocol,
    /// The administrator's words.
    pub wording: Wording,
}

impl Words {
    /// Those of a configuration, under the name that the host has; `localhost` if no client can be told that name. No
    /// other character reaches a line, so none can end it.
    #[must_use]
    pub fn of(config: &Config, hostname: String) -> Self {
        let words = |service: &config::Service| Service {
            name: service.name.as_str().into(),
            protocol: service.protocol,
            wording: service.wording.clone(),
        };
        let services = config.services.iter().map(|service| (service.ports.clone(), words(service)));
        let hostname = if is_hostname(&hostname) { hostname } else { "localhost".to_owned() };
        Self::new(hostname, services)
    }

    /// Under this name, these words at these ports.
    pub fn new(hostname: String, services: impl IntoIterator<Item = (Vec<u16>, Service)>) -> Self {
        let mut by_port = HashMap::new();
        for (ports, service) in services {
            let service = Arc::new(service);
            by_port.extend(ports.into_iter().map(|port| (port, Arc::clone(&service))));
        }
        Self { hostname, services: by_port }
    }

    /// Each service, with its ports.
    pub fn services(&self) -> impl Iterator<Item = (Vec<u16>, &Service)> {
        let mut ports: HashMap<*const Service, (Vec<u16>, &Service)> = HashMap::new();
        for (&port, service) in &self.services {
            ports.entry(Arc::as_ptr(service)).or_insert_with(|| (Vec::new(), service)).0.push(port);
        }
        ports.into_values()
    }

    /// Whether there is a service of that name.
    pub fn has(&self, name: &str) -> bool {
        self.services.values().any(|service| service.name.as_ref() == name)
    }

    /// What is told at `port`, if clients speak `protocol` there: the kernel's policy may be one change ahead.
    #[must_use]
    pub fn at(&self, port: u16, protocol: Protocol) -> Option<&Service> {
        self.services.get(&port).map(Arc::as_ref).filter(|service| service.protocol == protocol)
    }

    /// The name of the service at `port`, likewise.
    #[must_use]
    pub fn name(&self, port: u16, protocol: Protocol) -> Arc<str> {
        self.at(port, protocol).map_or_else(|| NAMELESS.into(), |service| Arc::clone(&service.name))
    }
}

/// Knows when the rate of a client allows its next connection.
pub trait Dues: fmt::Debug + Send {
    /// In which time that is, of `remote` at `local_port`; `None` if it is not known.
    ///
    /// Asked by the greeter's process, only for who is refused for its rate and told so with `{retry}`.
    fn due(&self, local_port: u16, remote: IpAddr) -> Option<Duration>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_say_something_else_is_not_given() {
        let given = |name: &str| Words::of(&Config::default(), name.to_owned()).hostname;
        let long = "a".repeat(254);
        for bad in ["", "a b", "a\r\n250 ok", "ä.example", "a\"b", "(none)", long.as_str()] {
            assert_eq!(given(bad), "localhost", "{bad:?}");
        }
        assert_eq!(given("mx-1.example.org"), "mx-1.example.org");
    }

    #[test]
    fn each_port_has_the_words_of_its_service_for_its_protocol() {
        let config = crate::config::parse("[service.imap]\nmessage = \"full\"\n", "a file").unwrap();
        let words = Words::of(&config, "mx".to_owned());
        let message = |port, protocol| {
            let service = words.at(port, protocol)?;
            Some((service.name.as_ref(), service.wording.message(limiter_common::Reason::Rate).is_some()))
        };
        assert_eq!(message(143, Protocol::Imap), Some(("imap", true)));
        assert_eq!(message(993, Protocol::Imap), Some(("imap", true)));
        assert_eq!(message(25, Protocol::Smtp), Some(("smtp", false)));
        assert_eq!(message(143, Protocol::Pop3), None);
        assert_eq!(message(80, Protocol::Smtp), None);
    }
}
