// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `[[rule]]`: what the file says of a network.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ipnet::IpNet;
use limiter_common::{Addr, rule};
use toml::de::DeValue;

use super::{
    RateWithBurst,
    check::{self, NONE, Value},
    error::{Complaint, Located, shown},
    fields::Section,
    keys,
    rate_spec::RateSpec,
    reader::{Key, Node, in_order, name, number, placed, start, unknown},
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
    /// Connections each source in it may hold.
    pub max_connections: PerService<u32>,
    /// How fast each source in it may connect; `None`: as fast as it can.
    pub rate: PerService<Option<RateWithBurst>>,
    /// Connections the network around a source may hold for it to get in; `None`: any number.
    pub network_max_connections: PerService<Option<u32>>,
    /// How much of an address makes a source in it, 1 to 32 or 128, and no less than its network has; none: what each
    /// service says.
    pub source_prefix: Option<u8>,
    /// The admin's words.
    pub comment: Option<String>,
}

/// What a rule says of one key, for single services and for all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerService<T> {
    /// For every service that is not below.
    pub all: Option<T>,
    /// For single services, by name.
    pub services: BTreeMap<String, T>,
}

impl<T> Default for PerService<T> {
    fn default() -> Self {
        Self { all: None, services: BTreeMap::new() }
    }
}

impl<T> PerService<T> {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_none() && self.services.is_empty()
    }

    /// What holds at a service; `None` as name: at every other.
    #[must_use]
    pub fn at(&self, service: Option<&str>) -> Option<&T> {
        service.and_then(|service| self.services.get(service)).or(self.all.as_ref())
    }

    /// Reads the value of a key: one for all, or a table by service. Notes where the services stand.
    fn read(
        value: &Node<'_>,
        services_at: &mut Vec<(String, usize)>,
        one: impl Fn(&Node<'_>) -> Result<T, Located>,
    ) -> Result<Self, Located> {
        let DeValue::Table(table) = value.get_ref() else {
            return Ok(Self { all: Some(one(value)?), services: BTreeMap::new() });
        };
        let mut given = Self::default();
        for (service, value) in in_order(table) {
            if name(service) == EVERY_OTHER {
                given.all = Some(one(value)?);
                continue;
            }
            services_at.push((name(service).to_owned(), start(service)));
            given.services.insert(name(service).to_owned(), one(value)?);
        }
        Ok(given)
    }

    /// The value as the file writes it, if anything is said.
    fn text(&self, one: impl Fn(&T) -> Option<String>) -> Option<String> {
        let single = self.services.iter().filter_map(|(name, given)| Some((name.as_str(), one(given)?)));
        let all = self.all.as_ref().and_then(&one);
        let single: Vec<String> = single.map(|(name, given)| format!("{name} = {given}")).collect();
        match all {
            None if single.is_empty() => None,
            Some(all) if self.services.is_empty() => Some(all),
            all => {
                let all = all.map(|given| format!("\"{EVERY_OTHER}\" = {given}"));
                let given: Vec<String> = single.into_iter().chain(all).collect();
                Some(format!("{{ {} }}", given.join(", ")))
            }
        }
    }
}

impl PerService<Option<RateWithBurst>> {
    /// The values of `rate` and of `burst`.
    pub fn texts(&self) -> (Option<String>, Option<String>) {
        let spec = |rate: &RateWithBurst| format!("\"{}\"", rate.spec);
        let rate = self.text(|rate| Some(rate.as_ref().map_or_else(|| format!("\"{NONE}\""), spec)));
        (rate, self.text(|rate| rate.map(|rate| rate.burst.to_string())))
    }
}

impl Rule {
    /// A rule that says nothing but what becomes of the network.
    #[must_use]
    pub fn new(network: IpNet, action: rule::Action) -> Self {
        Self {
            network,
            action,
            max_connections: PerService::default(),
            rate: PerService::default(),
            network_max_connections: PerService::default(),
            source_prefix: None,
            comment: None,
        }
    }

    /// Whether it says nothing of limits, nor of what makes a source.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { max_connections, rate, network_max_connections, source_prefix, .. } = self;
        max_connections.is_empty()
            && rate.is_empty()
            && network_max_connections.is_empty()
            && source_prefix.is_none()
    }

    /// The services of which it says anything apart from others.
    #[must_use]
    pub fn services(&self) -> BTreeSet<&str> {
        let Self { max_connections, rate, network_max_connections, .. } = self;
        let names = max_connections.services.keys().chain(rate.services.keys());
        names.chain(network_max_connections.services.keys()).map(String::as_str).collect()
    }
}

/// The network as the kernel knows it.
pub fn network(network: &IpNet) -> rule::Network {
    let prefix = bits(network, network.prefix_len()).into();
    rule::Network { prefix, addr: Addr::from(network.network()) }
}

/// The same network as people write it.
pub fn ip_net(network: &rule::Network) -> IpNet {
    let address = network.addr.to_ip();
    // IPv4 is within ::/0 for the kernel, and not for people.
    let length = if address.is_ipv4() { network.prefix.saturating_sub(96) } else { network.prefix };
    // No longer than an address, as every prefix of the kernel's is.
    IpNet::new(address, length as u8).unwrap_or_else(|_| address.into())
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
pub struct RuleSchema {
    /// What it says.
    pub rule: Rule,
    /// Where its network stands.
    pub network_at: usize,
    /// Where each service of it stands.
    pub services_at: Vec<(String, usize)>,
}

/// Reads the list of rules.
pub fn read(value: &Node<'_>) -> Result<Vec<RuleSchema>, Located> {
    let not_rules =
        |value: &Node<'_>| Complaint::NotRules(Value::from(value.get_ref()).shown()).at(start(value));
    let DeValue::Array(rules) = value.get_ref() else { return Err(not_rules(value)) };
    rules.iter().map(|rule| one(rule).and_then(|found| found.ok_or_else(|| not_rules(rule)))).collect()
}

/// One rule; `None` if it is no table.
fn one(value: &Node<'_>) -> Result<Option<RuleSchema>, Located> {
    let DeValue::Table(table) = value.get_ref() else { return Ok(None) };
    let mut network = None;
    let (mut allow, mut deny) = (false, false);
    let (mut max_connections, mut specs) = (PerService::default(), PerService::default());
    let (mut bursts, mut burst_at) = (PerService::default(), 0);
    let (mut network_max_connections, mut network_limit_at) = (PerService::default(), 0);
    let (mut services_at, mut source_prefix, mut comment) = (Vec::new(), None, None);
    for (key, value) in in_order(table) {
        match name(key) {
            "network" => network = Some((written_network(value)?, start(value))),
            "allow" => allow = is_true(key, value)?,
            "deny" => deny = is_true(key, value)?,
            "comment" => comment = Some(text(value)?),
            "source_prefix" => source_prefix = Some(placed::<u8>(&keys::SOURCE_PREFIX, value)?),
            "max_connections" => {
                let one = |value: &Node<'_>| number(&keys::MAX_CONNECTIONS, value);
                max_connections = PerService::read(value, &mut services_at, one)?;
            }
            "rate" => {
                let one = |value: &Node<'_>| {
                    check::rate(&Value::from(value.get_ref())).map_err(|complaint| complaint.at(start(value)))
                };
                specs = PerService::read(value, &mut services_at, one)?;
            }
            "burst" => {
                let one = |value: &Node<'_>| number(&keys::BURST, value);
                (bursts, burst_at) = (PerService::read(value, &mut services_at, one)?, start(key));
            }
            "network_max_connections" => {
                let one = |value: &Node<'_>| {
                    let limit = keys::RULE_NETWORK.check_or_none(&Value::from(value.get_ref()));
                    limit.map_err(|complaint| complaint.at(start(value)))
                };
                network_max_connections = PerService::read(value, &mut services_at, one)?;
                network_limit_at = start(key);
            }
            _ => return Err(unknown(key, Section::Rule)),
        }
    }
    let at = start(value);
    let (network, network_at) = network.ok_or_else(|| Complaint::RuleWithoutNetwork.at(at))?;
    let rate = bursting(&specs, &bursts).map_err(|complaint| complaint.at(burst_at))?;
    let limits = !max_connections.is_empty() || !rate.is_empty() || !network_max_connections.is_empty();
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
    let rule =
        Rule { network, action, max_connections, rate, network_max_connections, source_prefix, comment };
    check_network_limit(&rule).map_err(|complaint| complaint.at(network_limit_at))?;
    Ok(Some(RuleSchema { rule, network_at, services_at }))
}

/// Rates with their bursts: of a service the burst that is said of it, or else of all, or else the rate's number.
fn bursting(
    specs: &PerService<Option<RateSpec>>,
    bursts: &PerService<u32>,
) -> Result<PerService<Option<RateWithBurst>>, Complaint> {
    let one = |service: Option<&str>| {
        let spec = specs.at(service)?;
        Some(spec.map(|spec| {
            let burst = bursts.at(service).copied().unwrap_or(spec.count);
            RateWithBurst { spec, burst }
        }))
    };
    let names = specs.services.keys().chain(bursts.services.keys());
    let services = names.filter_map(|name| Some((name.clone(), one(Some(name))?))).collect();
    let rate = PerService { all: one(None), services };
    let is_limited = |service: Option<&str>| matches!(rate.at(service), Some(Some(_)));
    let some_are = || is_limited(None) || rate.services.keys().any(|name| is_limited(Some(name)));
    if bursts.services.keys().any(|name| !is_limited(Some(name))) || (bursts.all.is_some() && !some_are()) {
        return Err(Complaint::RuleBurstWithoutRate);
    }
    Ok(rate)
}

/// A source could not hold what the rule says of it, if the rule let its network hold less.
pub fn check_network_limit(rule: &Rule) -> Result<(), Complaint> {
    for service in rule.services().into_iter().map(Some).chain([None]) {
        let (limit, most) = (rule.network_max_connections.at(service), rule.max_connections.at(service));
        if let (Some(&Some(limit)), Some(&max_connections)) = (limit, most)
            && limit < max_connections
        {
            let network = rule.network.to_string();
            return Err(Complaint::RuleNetworkBelowSource { network, limit, max_connections });
        }
    }
    Ok(())
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

fn written_network(value: &Node<'_>) -> Result<IpNet, Located> {
    let given = Value::from(value.get_ref());
    let Value::Text(text) = given else { return Err(Complaint::Network(given.shown()).at(start(value))) };
    parse_network(text).map_err(|complaint| complaint.at(start(value)))
}

/// `allow` and `deny` are said, or left out: "not allowed" would mean nothing.
fn is_true(key: &Key<'_>, value: &Node<'_>) -> Result<bool, Located> {
    match value.get_ref() {
        DeValue::Boolean(true) => Ok(true),
        _ => Err(Complaint::NotTrue(name(key).to_owned()).at(start(value))),
    }
}

fn text(value: &Node<'_>) -> Result<String, Located> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.as_ref().to_owned()),
        other => Err(Complaint::Comment(Value::from(other).shown()).at(start(value))),
    }
}

/// Refuses two rules for one network, and services there are not; hands over the rules, by network.
pub fn resolve(
    schema: Vec<RuleSchema>,
    services: &[super::Service],
    line: &dyn Fn(usize) -> usize,
) -> Result<Vec<Rule>, Located> {
    let mut first: BTreeMap<IpNet, usize> = BTreeMap::new();
    let mut rules = Vec::with_capacity(schema.len());
    for RuleSchema { rule, network_at, services_at } in schema {
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
        let Self { network, action, max_connections, rate, network_max_connections, source_prefix, comment } =
            self;
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
            rule::Action::Limit => {
                let none = || format!("\"{NONE}\"");
                let network = network_max_connections
                    .text(|limit| Some(limit.map_or_else(none, |limit| limit.to_string())));
                let (rate, burst) = rate.texts();
                let keys = [
                    ("max_connections", max_connections.text(|limit| Some(limit.to_string()))),
                    ("rate", rate),
                    ("burst", burst),
                    ("network_max_connections", network),
                ];
                let given = keys.into_iter().filter_map(|(key, value)| Some((key, value?)));
                given.into_iter().try_for_each(|(key, value)| writeln!(out, "{key} = {value}"))
            }
        }
    }
}
