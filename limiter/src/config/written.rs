//! The file as it was written: which keys are there, with which values, and where.
//!
//! The TOML crate reads the grammar and keeps the spans; the tables are walked by hand rather than
//! through serde, because an administrator is owed a better sentence than "invalid type". Tables are
//! walked in the order of the file, so that the first mistake is the one reported.

use limiter_common::{Mode, Protocol, Response};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    check::{self, Number, Value},
    error::{Complaint, shown},
    interfaces::{self, Interfaces},
    ladder::{self, LadderConfig},
    load::Located,
    rate_spec::RateSpec,
    rules::{self, WrittenRule},
};

/// What the file says.
#[derive(Debug, Default)]
pub struct Written {
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
    /// `[defaults]`.
    pub defaults: Limits,
    /// `[service.*]`.
    pub services: Vec<WrittenService>,
    /// `[[rule]]`.
    pub rules: Vec<WrittenRule>,
}

/// The keys that `[defaults]` and every service take; with its place what may not fit to another key.
#[derive(Debug, Default)]
pub struct Limits {
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
    pub network: Option<Spanned<OrNone<WrittenNetwork>>>,
    /// `keepalive`, in seconds.
    pub keepalive: Option<OrNone<u32>>,
    /// `wait`, in seconds.
    pub wait: Option<u8>,
}

/// What may be said to be "none", which is something else than not to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrNone<T>(pub Option<T>);

/// A `network` table.
#[derive(Clone, Copy, Debug, Default)]
pub struct WrittenNetwork {
    /// `ipv4_prefix`.
    pub ipv4_prefix: Option<u8>,
    /// `ipv6_prefix`.
    pub ipv6_prefix: Option<u8>,
    /// `max_connections`.
    pub max_connections: u32,
}

/// One `[service.NAME]`.
#[derive(Debug)]
pub struct WrittenService {
    /// NAME.
    pub name: Spanned<String>,
    /// `ports`.
    pub ports: Option<Vec<Spanned<u16>>>,
    /// `protocol`.
    pub protocol: Option<Protocol>,
    /// `max_total`.
    pub max_total: Option<Spanned<OrNone<u32>>>,
    /// `reserve`.
    pub reserve: Option<Spanned<u32>>,
    /// `mode`.
    pub mode: Option<Mode>,
    /// What `[defaults]` takes too.
    pub limits: Limits,
}

/// Reads the file's text.
pub fn read(text: &str) -> Result<Written, Located> {
    if let Some(at) = text.find('\0') {
        return Err(Complaint::Nul.at(at));
    }
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(text.len(), |span| span.start);
        Complaint::Syntax(error.message().to_owned()).at(at)
    })?;
    let mut written = Written::default();
    for (key, value) in in_order(document.get_ref()) {
        let said = Value::from(value.get_ref());
        match name(key) {
            "hostname" => written.hostname = Some(check::hostname(&said).map_err(|c| c.at(start(value)))?),
            "max_sources" => written.max_sources = Some(number(&check::MAX_SOURCES, value)?),
            "remember_seconds" => written.remember_seconds = Some(number(&check::REMEMBER_SECONDS, value)?),
            "reconcile_seconds" => {
                written.reconcile_seconds = Some(number(&check::RECONCILE_SECONDS, value)?);
            }
            "mode" => written.mode = Some(check::mode(&said).map_err(|c| c.at(start(value)))?),
            "interfaces" => written.interfaces = Some(interfaces::read(value)?),
            "ladder" => written.ladder = Some(ladder::read(value)?),
            "defaults" => {
                for (key, value) in in_order(table("defaults", value, Complaint::NotATable)?) {
                    if !written.defaults.read(key, value, Section::Defaults)? {
                        return Err(unknown(key, Section::Defaults));
                    }
                }
            }
            "service" => {
                for (key, value) in in_order(table("service", value, Complaint::NotATable)?) {
                    written.services.push(service(key, value)?);
                }
            }
            "rule" => written.rules = rules::read(value)?,
            _ => return Err(unknown(key, Section::Top)),
        }
    }
    Ok(written)
}

/// A key, and where it stands.
pub type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;
/// A value, and where it stands.
pub type Said<'i> = Spanned<DeValue<'i>>;

fn service(key: &Key<'_>, value: &Said<'_>) -> Result<WrittenService, Located> {
    let service = name(key);
    check::service_name(service).map_err(|complaint| complaint.at(start(key)))?;
    let mut written = WrittenService {
        name: Spanned::new(key.span(), service.to_owned()),
        ports: None,
        protocol: None,
        max_total: None,
        reserve: None,
        mode: None,
        limits: Limits::default(),
    };
    let section = Section::Service(service);
    for (key, value) in in_order(table(service, value, Complaint::NotAService)?) {
        match name(key) {
            "ports" => written.ports = Some(ports(value)?),
            "protocol" => {
                let protocol = check::protocol(&Value::from(value.get_ref()));
                written.protocol = Some(protocol.map_err(|complaint| complaint.at(start(value)))?);
            }
            "max_total" => {
                let max_total = check::MAX_TOTAL.check_or_none(&Value::from(value.get_ref()));
                let max_total = max_total.map_err(|complaint| complaint.at(start(value)))?;
                written.max_total = Some(Spanned::new(value.span(), OrNone(max_total)));
            }
            "reserve" => written.reserve = Some(placed(&check::RESERVE, value)?),
            "mode" => {
                let mode = check::mode(&Value::from(value.get_ref()));
                written.mode = Some(mode.map_err(|complaint| complaint.at(start(value)))?);
            }
            _ if written.limits.read(key, value, section)? => {}
            _ => return Err(unknown(key, section)),
        }
    }
    Ok(written)
}

impl Limits {
    /// Takes the key, which stands in `place`, if it is one of these; says whether it was.
    fn read(&mut self, key: &Key<'_>, value: &Said<'_>, section: Section<'_>) -> Result<bool, Located> {
        match name(key) {
            "max_connections" => self.max_connections = Some(placed(&check::MAX_CONNECTIONS, value)?),
            "ipv4_prefix" => self.ipv4_prefix = Some(placed(&check::IPV4_PREFIX, value)?),
            "ipv6_prefix" => self.ipv6_prefix = Some(placed(&check::IPV6_PREFIX, value)?),
            "response" => {
                let response = check::response(&Value::from(value.get_ref()));
                self.response = Some(response.map_err(|complaint| complaint.at(start(value)))?);
            }
            "rate" => {
                let rate = check::rate(&Value::from(value.get_ref()));
                self.rate = Some(OrNone(rate.map_err(|complaint| complaint.at(start(value)))?));
            }
            "burst" => self.burst = Some(Spanned::new(key.span(), number(&check::BURST, value)?)),
            "network" => self.network = Some(Spanned::new(key.span(), OrNone(network(value, section)?))),
            "keepalive" => {
                let keepalive = check::keepalive(&Value::from(value.get_ref()));
                self.keepalive = Some(OrNone(keepalive.map_err(|complaint| complaint.at(start(value)))?));
            }
            "wait" => {
                let wait = check::wait(&Value::from(value.get_ref()));
                self.wait = Some(wait.map_err(|complaint| complaint.at(start(value)))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The `network` of `place`.
fn network(value: &Said<'_>, section: Section<'_>) -> Result<Option<WrittenNetwork>, Located> {
    let said = Value::from(value.get_ref());
    if check::is_none(&said) {
        return Ok(None);
    }
    let DeValue::Table(table) = value.get_ref() else {
        return Err(Complaint::NotANetwork(said.shown()).at(start(value)));
    };
    let mut network = WrittenNetwork::default();
    for (key, value) in in_order(table) {
        match name(key) {
            "ipv4_prefix" => network.ipv4_prefix = Some(small(&check::NETWORK_IPV4_PREFIX, value)?),
            "ipv6_prefix" => network.ipv6_prefix = Some(small(&check::NETWORK_IPV6_PREFIX, value)?),
            "max_connections" => network.max_connections = number(&check::NETWORK_MAX_CONNECTIONS, value)?,
            _ => return Err(unknown(key, Section::Network(&section))),
        }
    }
    if network.max_connections == 0 {
        return Err(Complaint::NetworkWithoutLimit.at(start(value)));
    }
    Ok(Some(network))
}

/// The table's keys and values in the order of the file.
pub fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Key<'i>, &'t Said<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// A key's name.
pub fn name<'t>(key: &'t Key<'_>) -> &'t str {
    key.get_ref()
}

/// Where `thing` begins.
pub fn start<T>(thing: &Spanned<T>) -> usize {
    thing.span().start
}

fn table<'t, 'i>(
    key: &str,
    value: &'t Said<'i>,
    complaint: fn(String, String) -> Complaint,
) -> Result<&'t DeTable<'i>, Located> {
    match value.get_ref() {
        DeValue::Table(table) => Ok(table),
        other => Err(complaint(key.to_owned(), Value::from(other).shown()).at(start(value))),
    }
}

pub fn number(of: &'static Number, value: &Said<'_>) -> Result<u32, Located> {
    of.check(&Value::from(value.get_ref())).map_err(|complaint| complaint.at(start(value)))
}

/// A number whose range fits a narrower type.
fn small<T: TryFrom<u32>>(of: &'static Number, value: &Said<'_>) -> Result<T, Located> {
    let number = number(of, value)?;
    T::try_from(number).map_err(|_| Complaint::OutOfRange { of, given: number.to_string() }.at(start(value)))
}

/// A number with its place.
pub fn placed<T: TryFrom<u32>>(of: &'static Number, value: &Said<'_>) -> Result<Spanned<T>, Located> {
    Ok(Spanned::new(value.span(), small(of, value)?))
}

fn ports(value: &Said<'_>) -> Result<Vec<Spanned<u16>>, Located> {
    let DeValue::Array(ports) = value.get_ref() else {
        return Err(Complaint::NotAList(Value::from(value.get_ref()).shown()).at(start(value)));
    };
    ports.iter().map(|port| placed(&check::PORT, port)).collect()
}

/// A table of the file, by the keys it knows.
#[derive(Clone, Copy)]
pub enum Section<'a> {
    /// Above the first table.
    Top,
    /// `[defaults]`.
    Defaults,
    /// `[service.NAME]`.
    Service(&'a str),
    /// The network of one of these.
    Network(&'a Section<'a>),
    /// A `[[rule]]`.
    Rule,
    /// `[ladder]`.
    Ladder,
}

const LIMITS: [&str; 9] = [
    "max_connections",
    "ipv4_prefix",
    "ipv6_prefix",
    "response",
    "rate",
    "burst",
    "network",
    "keepalive",
    "wait",
];

impl Section<'_> {
    fn known(self) -> Vec<&'static str> {
        match self {
            Self::Top => vec![
                "hostname",
                "max_sources",
                "remember_seconds",
                "reconcile_seconds",
                "mode",
                "interfaces",
                "defaults",
                "service",
                "ladder",
                "rule",
            ],
            Self::Defaults => LIMITS.to_vec(),
            Self::Service(_) => {
                [["ports", "protocol", "mode", "max_total", "reserve"].as_slice(), &LIMITS].concat()
            }
            Self::Network(_) => vec!["ipv4_prefix", "ipv6_prefix", "max_connections"],
            Self::Ladder => vec!["replies", "ban_after", "ban", "ban_max", "max_bans"],
            Self::Rule => vec![
                "network",
                "allow",
                "deny",
                "max_connections",
                "rate",
                "burst",
                "network_max_connections",
                "source_prefix",
                "comment",
            ],
        }
    }

    fn shown(self) -> String {
        match self {
            Self::Top => "at the top level".to_owned(),
            Self::Defaults => "in [defaults]".to_owned(),
            Self::Service(name) => format!("in [service.{name}]"),
            Self::Rule => "in [[rule]]".to_owned(),
            Self::Ladder => "in [ladder]".to_owned(),
            Self::Network(owner) => format!("in the network of {}", owner.shown().trim_start_matches("in ")),
        }
    }
}

pub fn unknown(key: &Key<'_>, section: Section<'_>) -> Located {
    let name = name(key);
    let known = section.known();
    // A key before any table, or one typed below a table it does not belong to, is TOML's classic.
    let elsewhere = [
        (Section::Top, "above the first table"),
        (Section::Defaults, "to [defaults]"),
        (Section::Ladder, "to [ladder]"),
        (Section::Service(""), "to a [service.NAME]"),
    ];
    let home = elsewhere.iter().find(|(section, _)| section.known().contains(&name));
    let advice = match (section, home, similar(name, &known)) {
        // What stands below the header [service.NAME.network] is of the network, whatever was meant.
        (Section::Network(owner), ..) if owner.known().contains(&name) => {
            format!("move it above network, {}", owner.shown())
        }
        (_, Some((_, home)), _) => format!("move it {home}"),
        (_, None, Some(meant)) => format!("did you mean {meant}?"),
        (_, None, None) => "remove it".to_owned(),
    };
    let section = section.shown();
    Complaint::UnknownKey { key: shown(name), section, known: known.join(", "), advice }.at(start(key))
}

/// The known key that `key` is a slip of, if there is one.
pub fn similar<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    // Comparing is quadratic, and nobody means a key of the length of a page.
    if key.len() > 40 {
        return None;
    }
    let distance = |known: &str| strsim::damerau_levenshtein(key, known);
    known
        .iter()
        .copied()
        .filter(|known| distance(known) <= 1 + known.len() / 5)
        .min_by_key(|known| distance(known))
}
