// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! From what the file says to what the limiter does: built-in services and defaults filled in, and
//! what only shows when all of it is seen together, such as a port in two services, refused.

use std::collections::{BTreeMap, btree_map::Entry};

use limiter_common::{MAX_SERVICES, Mode, Protocol, Response, service::Prefixes};
use toml::Spanned;

use super::{
    Config, HistoryConfig, Interfaces, LadderConfig, Network, RateSpec, RateWithBurst, Service,
    certificate_files::{CertificateFiles, IMPLICIT_TLS},
    check,
    error::{Complaint, Located},
    reader::start,
    rules,
    schema::{FileSchema, LimitsSchema, NetworkSchema, OrNone, ServiceSchema},
    tls, wording,
};
use crate::wording::Wording;

/// `max_sources` without a file: a quarter of a million, 32 MiB of kernel memory when full.
pub const MAX_SOURCES: u32 = 262_144;

/// `remember_seconds` without a file: long enough to see in `limiter list` who was here lately.
pub const REMEMBER_SECONDS: u32 = 600;

/// `reconcile_seconds` without a file: drift is a bug, so this only bounds how long one could last.
pub const RECONCILE_SECONDS: u32 = 30;

/// `wait` without a file, in seconds: a client that closes one connection and opens the next gets in, and
/// who does not get in hears why before its patience ends.
pub const WAIT_SECONDS: u8 = 5;

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

/// What `[defaults]` and a service may both say, complete.
#[derive(Clone, Debug)]
pub struct Defaults {
    max_connections: u32,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    response: Response,
    mode: Mode,
    rate: Option<RateSpec>,
    burst: Option<u32>,
    network: Option<NetworkSchema>,
    keepalive: Option<u32>,
    wait: u8,
    tls: Vec<CertificateFiles>,
    wording: Wording,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            max_connections: 20,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            response: Response::Reply,
            mode: Mode::Enforce,
            rate: None,
            burst: None,
            network: None,
            keepalive: None,
            wait: WAIT_SECONDS,
            tls: Vec::new(),
            wording: Wording::default(),
        }
    }
}

impl Defaults {
    /// What holds where `limits` are said on top of these.
    fn overlaid(&self, limits: &LimitsSchema) -> Result<Self, Located> {
        let overlaid = Self {
            max_connections: value_of(limits.max_connections.as_ref()).unwrap_or(self.max_connections),
            ipv4_prefix: value_of(limits.ipv4_prefix.as_ref()).unwrap_or(self.ipv4_prefix),
            ipv6_prefix: value_of(limits.ipv6_prefix.as_ref()).unwrap_or(self.ipv6_prefix),
            response: limits.response.unwrap_or(self.response),
            mode: self.mode,
            rate: limits.rate.map_or(self.rate, |given| given.0),
            burst: value_of(limits.burst.as_ref()).or(self.burst),
            network: value_of(limits.network.as_ref()).map_or(self.network, |given| given.0),
            keepalive: limits.keepalive.map_or(self.keepalive, |given| given.0),
            wait: limits.wait.unwrap_or(self.wait),
            tls: limits.tls.as_ref().unwrap_or(&self.tls).clone(),
            wording: limits.wording.over(&self.wording),
        };
        match &limits.burst {
            Some(burst) if overlaid.rate.is_none() => Err(Complaint::BurstWithoutRate.at(start(burst))),
            _ => Ok(overlaid),
        }
    }

    fn service(&self, name: &str, ports: Vec<u16>, protocol: Protocol) -> Service {
        let &Self {
            max_connections,
            ipv4_prefix,
            ipv6_prefix,
            response,
            mode,
            rate,
            burst,
            network,
            keepalive,
            wait,
            ref tls,
            ref wording,
        } = self;
        let Prefixes { ipv4, ipv6 } = Network::prefixes(ipv4_prefix, ipv6_prefix);
        Service {
            name: name.to_owned(),
            tls_ports: ports.iter().copied().filter(|port| IMPLICIT_TLS.contains(port)).collect(),
            tls: tls.clone(),
            ports,
            protocol,
            max_connections,
            ipv4_prefix,
            ipv6_prefix,
            response,
            rate: rate.map(|spec| RateWithBurst { spec, burst: burst.unwrap_or(spec.count) }),
            network: network.map(|network| Network {
                ipv4_prefix: network.ipv4_prefix.unwrap_or(ipv4),
                ipv6_prefix: network.ipv6_prefix.unwrap_or(ipv6),
                max_connections: network.max_connections,
            }),
            max_total: None,
            reserve: 0,
            mode,
            keepalive,
            wait,
            wording: wording.clone(),
        }
    }
}

/// What is said, without its place.
fn value_of<T: Copy>(given: Option<&Spanned<T>>) -> Option<T> {
    given.map(|given| *given.get_ref())
}

/// The built-in services under `defaults`.
pub fn built_in(defaults: &Defaults) -> Vec<Service> {
    BUILT_IN.iter().map(|&(name, ports, protocol)| defaults.service(name, ports.to_vec(), protocol)).collect()
}

impl Default for Config {
    /// The design's services and limits, as they are without any file.
    fn default() -> Self {
        let services = built_in(&Defaults::default());
        Self {
            hostname: None,
            max_sources: MAX_SOURCES,
            remember_seconds: REMEMBER_SECONDS,
            reconcile_seconds: RECONCILE_SECONDS,
            interfaces: Interfaces::default(),
            history: Some(HistoryConfig::default()),
            ladder: LadderConfig::default(),
            services,
            rules: Vec::new(),
        }
    }
}

/// Completes what the file says; `line` tells the line of a byte of it.
pub fn resolve(schema: FileSchema, line: &dyn Fn(usize) -> usize) -> Result<Config, Located> {
    let mode = schema.mode.unwrap_or(Mode::Enforce);
    let defaults = Defaults { mode, ..Defaults::default().overlaid(&schema.defaults)? };
    let mut services: BTreeMap<String, Service> =
        built_in(&defaults).into_iter().map(|service| (service.name.clone(), service)).collect();
    refuse_shared_ports(&services, &schema.services, line)?;
    for given in &schema.services {
        let service = overlay(services.remove(given.name.get_ref()), given, &defaults)?;
        check::together(&service.policy()).map_err(|complaint| {
            let at = position(&complaint, given, &schema.defaults);
            complaint.at(at)
        })?;
        services.insert(service.name.clone(), service);
        if services.len() >= MAX_SERVICES as usize {
            return Err(Complaint::TooManyServices(MAX_SERVICES - 1).at(start(&given.name)));
        }
    }
    // Of what the file does not name only the network may not fit: [defaults] has no other such key.
    if let Some(network) = &schema.defaults.network {
        for service in services.values() {
            check::together(&service.policy()).map_err(|complaint| complaint.at(start(network)))?;
        }
    }
    for service in services.values() {
        wording::fits(service, schema.hostname.as_deref()).map_err(|(complaint, reason)| {
            let own = schema.services.iter().find(|given| *given.name.get_ref() == service.name);
            let own = own.and_then(|given| given.limits.wording.place(reason));
            // Without words of the administrator's every line fits.
            complaint.at(own.or_else(|| schema.defaults.wording.place(reason)).unwrap_or_default())
        })?;
    }
    let services: Vec<Service> = services.into_values().collect();
    let rules = rules::resolve(schema.rules, &services, line)?;
    Ok(Config {
        hostname: schema.hostname,
        max_sources: schema.max_sources.unwrap_or(MAX_SOURCES),
        remember_seconds: schema.remember_seconds.unwrap_or(REMEMBER_SECONDS),
        reconcile_seconds: schema.reconcile_seconds.unwrap_or(RECONCILE_SECONDS),
        interfaces: schema.interfaces.unwrap_or_default(),
        history: schema.history.unwrap_or_else(|| Some(HistoryConfig::default())),
        ladder: schema.ladder.unwrap_or_default(),
        services,
        rules,
    })
}

/// One service of the file, laid over the built-in one of the same name if there is one.
fn overlay(known: Option<Service>, given: &ServiceSchema, defaults: &Defaults) -> Result<Service, Located> {
    let name = given.name.get_ref();
    let lacking = |complaint: fn(String) -> Complaint| complaint(name.clone()).at(start(&given.name));
    let ports = given.ports.as_ref().map(|ports| ports.iter().map(|port| *port.get_ref()).collect());
    let (ports, protocol) = match known {
        Some(known) => (ports.unwrap_or(known.ports), given.protocol.unwrap_or(known.protocol)),
        None => (
            ports.ok_or_else(|| lacking(Complaint::NoPorts))?,
            given.protocol.ok_or_else(|| lacking(Complaint::NoProtocol))?,
        ),
    };
    let mut service = defaults.overlaid(&given.limits)?.service(name, ports, protocol);
    service.ports.sort_unstable();
    service.tls_ports = tls::ports(name, &service.ports, given.tls_ports.as_deref())?;
    service.mode = given.mode.unwrap_or(service.mode);
    service.max_total = value_of(given.max_total.as_ref()).and_then(|OrNone(max_total)| max_total);
    service.reserve = value_of(given.reserve.as_ref()).unwrap_or(0);
    Ok(service)
}

/// Where the file says what does not fit at the service `said`: what stands there of it, or else what
/// it has from `[defaults]`.
fn position(complaint: &Complaint, given: &ServiceSchema, defaults: &LimitsSchema) -> usize {
    let own = &given.limits;
    let network = |of_a_source: Option<usize>| {
        let network = own.network.as_ref().map(start).or(of_a_source);
        network.or_else(|| defaults.network.as_ref().map(start))
    };
    let position = match complaint {
        Complaint::ReserveOfNothing(_) => given.reserve.as_ref().map(start),
        Complaint::TotalBelowSource { .. } => given.max_total.as_ref().map(start),
        Complaint::NetworkWithinSource { family: "ipv4", .. } => network(own.ipv4_prefix.as_ref().map(start)),
        Complaint::NetworkWithinSource { .. } => network(own.ipv6_prefix.as_ref().map(start)),
        Complaint::NetworkBelowSource { .. } => network(own.max_connections.as_ref().map(start)),
        _ => None,
    };
    position.unwrap_or_else(|| start(&given.name))
}

/// Refuses a port that is in two services or twice in one. What the file says is judged against the
/// built-in services whose ports it leaves alone, wherever it mentions them.
fn refuse_shared_ports(
    built_in: &BTreeMap<String, Service>,
    given: &[ServiceSchema],
    line: &dyn Fn(usize) -> usize,
) -> Result<(), Located> {
    let moved =
        |name: &str| given.iter().any(|service| service.name.get_ref() == name && service.ports.is_some());
    let mut owners: BTreeMap<u16, (&str, Option<&Spanned<u16>>)> = BTreeMap::new();
    for service in built_in.values().filter(|service| !moved(&service.name)) {
        owners.extend(service.ports.iter().map(|&port| (port, (service.name.as_str(), None))));
    }
    for service in given {
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
                Some(first) => Complaint::PortTaken { port, service, other, line: line(start(first)) },
                None => {
                    let ports = built_in.get(&other).map_or(&[][..], |service| &service.ports);
                    let left = ports.iter().copied().filter(|&other| other != port).collect();
                    Complaint::PortBuiltIn { port, service, other, left }
                }
            };
            return Err(complaint.at(start(spanned)));
        }
    }
    Ok(())
}
