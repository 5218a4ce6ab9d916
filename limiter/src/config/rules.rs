//! `[[rule]]`: what the file says of a network.

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use limiter_common::{Addr, rule};
use toml::de::DeValue;

use super::{
    check::{self, Value},
    error::{Complaint, shown},
    load::Located,
    written::{Key, Place, Said, in_order, name, number, placed, start, unknown},
};

/// In the limits of a rule: every service that is not among them. No service can be called that.
pub const EVERY_OTHER: &str = "*";

/// Networks in which every address is its IPv4 host ([`Addr::host`]).
const TRANSLATED: [&str; 2] = ["64:ff9b::/96", "2002::/16"];

/// What becomes of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is for, without bits behind the prefix.
    pub network: IpNet,
    /// What becomes of them.
    pub action: rule::Action,
    /// Connections each source in it may hold to any service that has no limit below.
    pub max_connections: Option<u32>,
    /// The same for single services, by name.
    pub services: BTreeMap<String, u32>,
    /// How much of an address makes a source in it, 1 to 32 or 128, and no less than its network has; none: what each
    /// service says.
    pub source_prefix: Option<u8>,
    /// The admin's words.
    pub comment: Option<String>,
}

/// The network as the kernel knows it.
pub fn network(network: &IpNet) -> rule::Network {
    let prefix = bits(network, network.prefix_len()).into();
    rule::Network { prefix, addr: Addr::from(network.network()) }
}

/// A prefix length of the family of `network`, as the kernel knows it.
pub fn bits(network: &IpNet, prefix: u8) -> u8 {
    if network.addr().is_ipv4() { 96 + prefix } else { prefix }
}

/// What makes a source in a network, as people write it.
pub fn prefix_len(network: &rule::Network, prefix: rule::SourcePrefix) -> Option<u8> {
    let is_v4 = network.prefix >= 96 && network.addr.is_v4();
    Some(prefix.bits())
        .filter(|&bits| bits != 0)
        .map(|bits| if is_v4 { bits.saturating_sub(96) } else { bits })
}

/// A network, or a single address, as written.
pub fn parse_network(text: &str) -> Result<IpNet, Complaint> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => match text.parse::<std::net::IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => return Err(Complaint::Network(shown(text))),
        },
    };
    let is_mapped = matches!(network, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some());
    if is_mapped {
        return Err(Complaint::MappedNetwork(network.to_string()));
    }
    if network.trunc() != network {
        return Err(Complaint::HostBits { given: network.to_string(), meant: network.trunc().to_string() });
    }
    Ok(network)
}

/// A rule, and where its parts stand.
#[derive(Debug)]
pub struct WrittenRule {
    /// What it says.
    pub rule: Rule,
    /// Where its network stands.
    pub network_at: usize,
    /// Where each service of it stands.
    pub services_at: Vec<(String, usize)>,
}

/// Reads the list of rules.
pub fn read(value: &Said<'_>) -> Result<Vec<WrittenRule>, Located> {
    let not_rules =
        |value: &Said<'_>| Complaint::NotRules(Value::from(value.get_ref()).shown()).at(start(value));
    let DeValue::Array(rules) = value.get_ref() else { return Err(not_rules(value)) };
    rules.iter().map(|rule| one(rule).and_then(|found| found.ok_or_else(|| not_rules(rule)))).collect()
}

/// One rule; `None` if it is no table.
fn one(value: &Said<'_>) -> Result<Option<WrittenRule>, Located> {
    let DeValue::Table(table) = value.get_ref() else { return Ok(None) };
    let mut network = None;
    let (mut allow, mut deny) = (false, false);
    let (mut max_connections, mut services, mut services_at) = (None, BTreeMap::new(), Vec::new());
    let (mut source_prefix, mut comment) = (None, None);
    for (key, value) in in_order(table) {
        match name(key) {
            "network" => network = Some((written_network(value)?, start(value))),
            "allow" => allow = is_true(key, value)?,
            "deny" => deny = is_true(key, value)?,
            "comment" => comment = Some(text(value)?),
            "source_prefix" => source_prefix = Some(placed::<u8>(&check::SOURCE_PREFIX, value)?),
            "max_connections" => match value.get_ref() {
                DeValue::Table(table) => {
                    for (service, value) in in_order(table) {
                        if name(service) == EVERY_OTHER {
                            max_connections = Some(number(&check::MAX_CONNECTIONS, value)?);
                            continue;
                        }
                        services_at.push((name(service).to_owned(), start(service)));
                        services.insert(name(service).to_owned(), number(&check::MAX_CONNECTIONS, value)?);
                    }
                }
                _ => max_connections = Some(number(&check::MAX_CONNECTIONS, value)?),
            },
            _ => return Err(unknown(key, Place::Rule)),
        }
    }
    let at = start(value);
    let (network, network_at) = network.ok_or_else(|| Complaint::RuleWithoutNetwork.at(at))?;
    let limits = max_connections.is_some() || !services.is_empty();
    let limits = limits || (source_prefix.is_some() && !allow && !deny);
    let action = match (allow, deny, limits) {
        (true, false, false) => rule::Action::Allow,
        (false, true, false) => rule::Action::Deny,
        (false, false, true) => rule::Action::Limit,
        (false, false, false) => return Err(Complaint::RuleWithoutSay(network.to_string()).at(network_at)),
        _ => return Err(Complaint::RuleSaysTwo(network.to_string()).at(network_at)),
    };
    let source_prefix = source_prefix
        .map(|prefix| {
            let checked = check_source_prefix(&network, action, *prefix.get_ref());
            checked.map_err(|complaint| complaint.at(start(&prefix)))
        })
        .transpose()?;
    let rule = Rule { network, action, max_connections, services, source_prefix, comment };
    Ok(Some(WrittenRule { rule, network_at, services_at }))
}

/// What makes a source in `network` lies within it, and is looked for where there are limits.
fn check_source_prefix(network: &IpNet, action: rule::Action, prefix: u8) -> Result<u8, Complaint> {
    let is_translated =
        |text: &str| text.parse::<IpNet>().is_ok_and(|translated| translated.contains(network));
    if action != rule::Action::Limit {
        return Err(Complaint::SourcePrefixWithoutLimit(network.to_string()));
    }
    if prefix > network.max_prefix_len() {
        return Err(Complaint::SourcePrefixTooLong { network: network.to_string(), prefix });
    }
    if prefix < network.prefix_len() {
        return Err(Complaint::SourceBeyondNetwork { network: network.to_string(), prefix });
    }
    if TRANSLATED.into_iter().any(is_translated) {
        return Err(Complaint::SourcePrefixOfTranslated(network.to_string()));
    }
    Ok(prefix)
}

fn written_network(value: &Said<'_>) -> Result<IpNet, Located> {
    let said = Value::from(value.get_ref());
    let Value::Text(text) = said else { return Err(Complaint::Network(said.shown()).at(start(value))) };
    parse_network(text).map_err(|complaint| complaint.at(start(value)))
}

/// `allow` and `deny` are said, or left out: "not allowed" would mean nothing.
fn is_true(key: &Key<'_>, value: &Said<'_>) -> Result<bool, Located> {
    match value.get_ref() {
        DeValue::Boolean(true) => Ok(true),
        _ => Err(Complaint::NotTrue(name(key).to_owned()).at(start(value))),
    }
}

fn text(value: &Said<'_>) -> Result<String, Located> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.as_ref().to_owned()),
        other => Err(Complaint::Comment(Value::from(other).shown()).at(start(value))),
    }
}

/// Refuses two rules for one network, and services there are not; hands over the rules, by network.
pub fn resolve(
    written: Vec<WrittenRule>,
    services: &[super::Service],
    line: &dyn Fn(usize) -> usize,
) -> Result<Vec<Rule>, Located> {
    let mut first: BTreeMap<IpNet, usize> = BTreeMap::new();
    let mut rules = Vec::with_capacity(written.len());
    for WrittenRule { rule, network_at, services_at } in written {
        if let Some((service, at)) =
            services_at.into_iter().find(|(name, _)| !services.iter().any(|service| service.name == *name))
        {
            let known = services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Complaint::NoSuchService { service: shown(&service), known }.at(at));
        }
        if let Some(first) = first.insert(rule.network, network_at) {
            let complaint = Complaint::RuleTwice { network: rule.network.to_string(), line: line(first) };
            return Err(complaint.at(network_at));
        }
        rules.push(rule);
    }
    rules.sort_by_key(|rule| rule.network);
    Ok(rules)
}

/// Text as a basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if char.is_control() => quoted.extend(format!("\\u{:04x}", u32::from(char)).chars()),
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, action, max_connections, services, source_prefix, comment } = self;
        writeln!(out, "[[rule]]")?;
        writeln!(out, "network = \"{network}\"")?;
        if let Some(comment) = comment {
            writeln!(out, "comment = {}", quoted(comment))?;
        }
        if let Some(prefix) = source_prefix {
            writeln!(out, "source_prefix = {prefix}")?;
        }
        match action {
            rule::Action::Allow => writeln!(out, "allow = true"),
            rule::Action::Deny => writeln!(out, "deny = true"),
            rule::Action::Limit => match max_connections {
                Some(limit) if services.is_empty() => writeln!(out, "max_connections = {limit}"),
                None if services.is_empty() => Ok(()),
                others => {
                    let single = services.iter().map(|(name, limit)| format!("{name} = {limit}"));
                    let others = others.map(|limit| format!("\"{EVERY_OTHER}\" = {limit}"));
                    let limits: Vec<String> = single.chain(others).collect();
                    writeln!(out, "max_connections = {{ {} }}", limits.join(", "))
                }
            },
        }
    }
}
