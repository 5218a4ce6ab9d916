// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The schema of the file: what each table holds, as its author wrote it.

use limiter_common::{Mode, Protocol, Response};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    certificate_files::CertificateFiles,
    check::{self, Value},
    error::{Complaint, Located},
    fields::Section,
    history::{self, HistoryConfig},
    interfaces::{self, Interfaces},
    keys,
    ladder::{self, LadderConfig},
    rate_spec::RateSpec,
    reader::{Key, Node, in_order, name, number, placed, ports, small, start, table, unknown},
    rules::{self, RuleSchema},
    tls,
    wording::WordingSchema,
};

/// What the file says.
#[derive(Debug, Default)]
pub struct FileSchema {
    /// `hostname`.
    pub hostname: Option<String>,
    /// `max_sources`.
    pub max_sources: Option<u32>,
    /// `remember_seconds`.
    pub remember_seconds: Option<u32>,
    /// `reconcile_seconds`.
    pub reconcile_seconds: Option<u32>,
    /// `mode`.
    pub mode: Option<Mode>,
    /// `[ladder]`.
    pub ladder: Option<LadderConfig>,
    /// `interfaces`.
    pub interfaces: Option<Interfaces>,
    /// `[history]`; none in it where it is switched off.
    #[expect(clippy::option_option, reason = "not said, said to be none, or said")]
    pub history: Option<Option<HistoryConfig>>,
    /// `[defaults]`.
    pub defaults: LimitsSchema,
    /// `[service.*]`.
    pub services: Vec<ServiceSchema>,
    /// `[[rule]]`.
    pub rules: Vec<RuleSchema>,
}

/// The keys that `[defaults]` and every service take; with its place what may not fit to another key.
#[derive(Debug, Default)]
pub struct LimitsSchema {
    /// `max_connections`.
    pub max_connections: Option<Spanned<u32>>,
    /// `ipv4_prefix`.
    pub ipv4_prefix: Option<Spanned<u8>>,
    /// `ipv6_prefix`.
    pub ipv6_prefix: Option<Spanned<u8>>,
    /// `response`.
    pub response: Option<Response>,
    /// `rate`.
    pub rate: Option<OrNone<RateSpec>>,
    /// `burst`.
    pub burst: Option<Spanned<u32>>,
    /// `network`.
    pub network: Option<Spanned<OrNone<NetworkSchema>>>,
    /// `keepalive`, in seconds.
    pub keepalive: Option<OrNone<u32>>,
    /// `wait`, in seconds.
    pub wait: Option<u8>,
    /// `tls`; of none, "none".
    pub tls: Option<Vec<CertificateFiles>>,
    /// `message` and `url`.
    pub wording: WordingSchema,
}

/// What may be said to be "none", which is something else than not to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrNone<T>(pub Option<T>);

/// A `network` table.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkSchema {
    /// `ipv4_prefix`.
    pub ipv4_prefix: Option<u8>,
    /// `ipv6_prefix`.
    pub ipv6_prefix: Option<u8>,
    /// `max_connections`.
    pub max_connections: u32,
}

/// One `[service.NAME]`.
#[derive(Debug)]
pub struct ServiceSchema {
    /// NAME.
    pub name: Spanned<String>,
    /// `ports`.
    pub ports: Option<Vec<Spanned<u16>>>,
    /// `tls_ports`.
    pub tls_ports: Option<Vec<Spanned<u16>>>,
    /// `protocol`.
    pub protocol: Option<Protocol>,
    /// `max_total`.
    pub max_total: Option<Spanned<OrNone<u32>>>,
    /// `reserve`.
    pub reserve: Option<Spanned<u32>>,
    /// `mode`.
    pub mode: Option<Mode>,
    /// What `[defaults]` takes too.
    pub limits: LimitsSchema,
}

/// Reads the file's text.
pub fn read(text: &str) -> Result<FileSchema, Located> {
    if let Some(at) = text.find('\0') {
        return Err(Complaint::Nul.at(at));
    }
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(text.len(), |span| span.start);
        Complaint::Syntax(error.message().to_owned()).at(at)
    })?;
    let mut schema = FileSchema::default();
    for (key, value) in in_order(document.get_ref()) {
        let given = Value::from(value.get_ref());
        match name(key) {
            "hostname" => schema.hostname = Some(check::hostname(&given).map_err(|c| c.at(start(value)))?),
            "max_sources" => schema.max_sources = Some(number(&keys::MAX_SOURCES, value)?),
            "remember_seconds" => schema.remember_seconds = Some(number(&keys::REMEMBER_SECONDS, value)?),
            "reconcile_seconds" => {
                schema.reconcile_seconds = Some(number(&keys::RECONCILE_SECONDS, value)?);
            }
            "mode" => schema.mode = Some(check::mode(&given).map_err(|c| c.at(start(value)))?),
            "interfaces" => schema.interfaces = Some(interfaces::read(value)?),
            "history" => schema.history = Some(history::read(value)?),
            "ladder" => schema.ladder = Some(ladder::read(value)?),
            "defaults" => {
                for (key, value) in in_order(table("defaults", value, Complaint::NotATable)?) {
                    if !schema.defaults.read(key, value, Section::Defaults)? {
                        return Err(unknown(key, Section::Defaults));
                    }
                }
            }
            "service" => {
                for (key, value) in in_order(table("service", value, Complaint::NotATable)?) {
                    schema.services.push(service(key, value)?);
                }
            }
            "rule" => schema.rules = rules::read(value)?,
            _ => return Err(unknown(key, Section::Top)),
        }
    }
    Ok(schema)
}

fn service(key: &Key<'_>, value: &Node<'_>) -> Result<ServiceSchema, Located> {
    let service = name(key);
    check::service_name(service).map_err(|complaint| complaint.at(start(key)))?;
    let mut schema = ServiceSchema {
        name: Spanned::new(key.span(), service.to_owned()),
        ports: None,
        tls_ports: None,
        protocol: None,
        max_total: None,
        reserve: None,
        mode: None,
        limits: LimitsSchema::default(),
    };
    let section = Section::Service(service);
    for (key, value) in in_order(table(service, value, Complaint::NotAService)?) {
        match name(key) {
            "ports" => schema.ports = Some(ports("ports", value)?),
            "tls_ports" => schema.tls_ports = Some(ports("tls_ports", value)?),
            "protocol" => {
                let protocol = check::protocol(&Value::from(value.get_ref()));
                schema.protocol = Some(protocol.map_err(|complaint| complaint.at(start(value)))?);
            }
            "max_total" => {
                let max_total = keys::MAX_TOTAL.check_or_none(&Value::from(value.get_ref()));
                let max_total = max_total.map_err(|complaint| complaint.at(start(value)))?;
                schema.max_total = Some(Spanned::new(value.span(), OrNone(max_total)));
            }
            "reserve" => schema.reserve = Some(placed(&keys::RESERVE, value)?),
            "mode" => {
                let mode = check::mode(&Value::from(value.get_ref()));
                schema.mode = Some(mode.map_err(|complaint| complaint.at(start(value)))?);
            }
            _ if schema.limits.read(key, value, section)? => {}
            _ => return Err(unknown(key, section)),
        }
    }
    Ok(schema)
}

impl LimitsSchema {
    /// Takes the key, which stands in `section`, if it is one of these; says whether it was.
    fn read(&mut self, key: &Key<'_>, value: &Node<'_>, section: Section<'_>) -> Result<bool, Located> {
        match name(key) {
            "max_connections" => self.max_connections = Some(placed(&keys::MAX_CONNECTIONS, value)?),
            "ipv4_prefix" => self.ipv4_prefix = Some(placed(&keys::IPV4_PREFIX, value)?),
            "ipv6_prefix" => self.ipv6_prefix = Some(placed(&keys::IPV6_PREFIX, value)?),
            "response" => {
                let response = check::response(&Value::from(value.get_ref()));
                self.response = Some(response.map_err(|complaint| complaint.at(start(value)))?);
            }
            "rate" => {
                let rate = check::rate(&Value::from(value.get_ref()));
                self.rate = Some(OrNone(rate.map_err(|complaint| complaint.at(start(value)))?));
            }
            "burst" => self.burst = Some(Spanned::new(key.span(), number(&keys::BURST, value)?)),
            "network" => self.network = Some(Spanned::new(key.span(), OrNone(network(value, section)?))),
            "keepalive" => {
                let keepalive = check::keepalive(&Value::from(value.get_ref()));
                self.keepalive = Some(OrNone(keepalive.map_err(|complaint| complaint.at(start(value)))?));
            }
            "wait" => {
                let wait = check::wait(&Value::from(value.get_ref()));
                self.wait = Some(wait.map_err(|complaint| complaint.at(start(value)))?);
            }
            "tls" => self.tls = Some(tls::read(value, section)?),
            "message" => self.wording.read_message(value, section)?,
            "url" => self.wording.read_url(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The `network` of `section`.
fn network(value: &Node<'_>, section: Section<'_>) -> Result<Option<NetworkSchema>, Located> {
    let given = Value::from(value.get_ref());
    if check::is_none(&given) {
        return Ok(None);
    }
    let DeValue::Table(table) = value.get_ref() else {
        return Err(Complaint::NotANetwork(given.shown()).at(start(value)));
    };
    let mut network = NetworkSchema::default();
    for (key, value) in in_order(table) {
        match name(key) {
            "ipv4_prefix" => network.ipv4_prefix = Some(small(&keys::NETWORK_IPV4_PREFIX, value)?),
            "ipv6_prefix" => network.ipv6_prefix = Some(small(&keys::NETWORK_IPV6_PREFIX, value)?),
            "max_connections" => network.max_connections = number(&keys::NETWORK_MAX_CONNECTIONS, value)?,
            _ => return Err(unknown(key, Section::Network(&section))),
        }
    }
    if network.max_connections == 0 {
        return Err(Complaint::NetworkWithoutLimit.at(start(value)));
    }
    Ok(Some(network))
}
