//! From what the file says to what the limiter does: built-in services and defaults filled in, and
//! what only shows when all of it is seen together, such as a port in two services, refused.

use std::collections::{BTreeMap, btree_map::Entry};

use limiter_common::{MAX_SERVICES, Protocol, Response};
use toml::Spanned;

use super::{
    Config, Service,
    error::Complaint,
    load::Located,
    written::{Limits, Written, WrittenService},
};

/// `max_sources` without a file: a quarter of a million, 32 MiB of kernel memory when full.
pub const MAX_SOURCES: u32 = 262_144;

/// `remember_seconds` without a file: long enough to see in `limiter list` who was here lately.
pub const REMEMBER_SECONDS: u32 = 600;

/// The services there are without a file, sorted by name. IMAP and POP3 have one budget for both
/// ports: it is the same mailboxes and the same people.
const BUILT_IN: [(&str, &[u16], Protocol); 6] = [
    ("imap", &[143, 993], Protocol::Imap),
    ("pop3", &[110, 995], Protocol::Pop3),
    ("sieve", &[4190], Protocol::Sieve),
    ("smtp", &[25], Protocol::Smtp),
    ("submission", &[587], Protocol::Smtp),
    ("submissions", &[465], Protocol::Smtp),
];

/// `[defaults]`, complete.
#[derive(Debug)]
pub struct Defaults {
    max_connections: u32,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    response: Response,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { max_connections: 20, ipv4_prefix: 32, ipv6_prefix: 64, response: Response::Reply }
    }
}

impl Defaults {
    fn service(&self, name: &str, ports: Vec<u16>, protocol: Protocol) -> Service {
        let &Self { max_connections, ipv4_prefix, ipv6_prefix, response } = self;
        Service {
            name: name.to_owned(),
            ports,
            protocol,
            max_connections,
            ipv4_prefix,
            ipv6_prefix,
            response,
        }
    }
}

/// The built-in services under `defaults`.
pub fn built_in(defaults: &Defaults) -> Vec<Service> {
    BUILT_IN.iter().map(|&(name, ports, protocol)| defaults.service(name, ports.to_vec(), protocol)).collect()
}

/// Completes what the file says; `line` tells the line of a byte of it.
pub fn resolve(written: Written, line: &dyn Fn(usize) -> usize) -> Result<Config, Located> {
    let Limits { max_connections, ipv4_prefix, ipv6_prefix, response } = written.defaults;
    let base = Defaults::default();
    let defaults = Defaults {
        max_connections: max_connections.unwrap_or(base.max_connections),
        ipv4_prefix: ipv4_prefix.unwrap_or(base.ipv4_prefix),
        ipv6_prefix: ipv6_prefix.unwrap_or(base.ipv6_prefix),
        response: response.unwrap_or(base.response),
    };
    let mut services: BTreeMap<String, Service> =
        built_in(&defaults).into_iter().map(|service| (service.name.clone(), service)).collect();
    refuse_shared_ports(&services, &written.services, line)?;
    for said in &written.services {
        let service = overlay(services.remove(said.name.get_ref()), said, &defaults)?;
        services.insert(service.name.clone(), service);
        if services.len() >= MAX_SERVICES as usize {
            return Err(Complaint::TooManyServices(MAX_SERVICES - 1).at(said.name.span().start));
        }
    }
    Ok(Config {
        hostname: written.hostname,
        max_sources: written.max_sources.unwrap_or(MAX_SOURCES),
        remember_seconds: written.remember_seconds.unwrap_or(REMEMBER_SECONDS),
        services: services.into_values().collect(),
    })
}

/// One service of the file, laid over the built-in one of the same name if there is one.
fn overlay(known: Option<Service>, said: &WrittenService, defaults: &Defaults) -> Result<Service, Located> {
    let name = said.name.get_ref();
    let lacking = |complaint: fn(String) -> Complaint| complaint(name.clone()).at(said.name.span().start);
    let ports = said.ports.as_ref().map(|ports| ports.iter().map(|port| *port.get_ref()).collect());
    let mut service = if let Some(mut service) = known {
        service.ports = ports.unwrap_or(service.ports);
        service.protocol = said.protocol.unwrap_or(service.protocol);
        service
    } else {
        let ports = ports.ok_or_else(|| lacking(Complaint::NoPorts))?;
        let protocol = said.protocol.ok_or_else(|| lacking(Complaint::NoProtocol))?;
        defaults.service(name, ports, protocol)
    };
    service.ports.sort_unstable();
    let limits = &said.limits;
    service.max_connections = limits.max_connections.unwrap_or(service.max_connections);
    service.ipv4_prefix = limits.ipv4_prefix.unwrap_or(service.ipv4_prefix);
    service.ipv6_prefix = limits.ipv6_prefix.unwrap_or(service.ipv6_prefix);
    service.response = limits.response.unwrap_or(service.response);
    Ok(service)
}

/// Refuses a port that is in two services or twice in one. What the file says is judged against the
/// built-in services whose ports it leaves alone, wherever it mentions them.
fn refuse_shared_ports(
    built_in: &BTreeMap<String, Service>,
    said: &[WrittenService],
    line: &dyn Fn(usize) -> usize,
) -> Result<(), Located> {
    let moved =
        |name: &str| said.iter().any(|service| service.name.get_ref() == name && service.ports.is_some());
    let mut owners: BTreeMap<u16, (&str, Option<&Spanned<u16>>)> = BTreeMap::new();
    for service in built_in.values().filter(|service| !moved(&service.name)) {
        owners.extend(service.ports.iter().map(|&port| (port, (service.name.as_str(), None))));
    }
    for service in said {
        let name = service.name.get_ref();
        for spanned in service.ports.iter().flatten() {
            let port = *spanned.get_ref();
            let (other, first) = match owners.entry(port) {
                Entry::Vacant(free) => {
                    free.insert((name, Some(spanned)));
                    continue;
                }
                Entry::Occupied(taken) => *taken.get(),
            };
            let (service, other) = (name.clone(), other.to_owned());
            let complaint = match first {
                Some(_) if service == other => Complaint::PortTwice(port, service),
                Some(first) => Complaint::PortTaken { port, service, other, line: line(first.span().start) },
                None => {
                    let ports = built_in.get(&other).map_or(&[][..], |service| &service.ports);
                    let left = ports.iter().copied().filter(|&other| other != port).collect();
                    Complaint::PortBuiltIn { port, service, other, left }
                }
            };
            return Err(complaint.at(spanned.span().start));
        }
    }
    Ok(())
}
