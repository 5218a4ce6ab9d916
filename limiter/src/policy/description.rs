// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a policy says, in words: for a verb that replaces another's, and for what has changed from one policy to another.

use std::collections::HashMap;

use limiter_common::{
    Action, ServiceId, ServicePolicy,
    rule::{Network, RuleLimits},
};
use serde::Serialize;

use super::{
    rules::admins_rules,
    services::{self, Services},
};
use crate::{
    config::{self, Config, RateSpec, Setting},
    kernel::sets::{PolicySet, RuleEntry},
};

/// What a rule says: `allow`, `deny`, or `limit` with its numbers.
pub fn describe(rule: &RuleEntry, services: &Services) -> String {
    match rule.action {
        Action::Allow => "allow".to_owned(),
        Action::Deny => "deny".to_owned(),
        Action::Limit => {
            let prefix = config::prefix_len(&rule.network, rule.source_prefix);
            let source = prefix.map(|prefix| format!("each /{prefix} is a source"));
            let limits = describe_limits(rule, services).join(", ");
            let limits = (!limits.is_empty()).then(|| format!("limit {limits}"));
            let words: Vec<String> = limits.into_iter().chain(source).collect();
            if words.is_empty() { "limit".to_owned() } else { words.join(", ") }
        }
    }
}

/// What a rule says of limits: those of single services, then those of every service, or of every other one. Each limit is
/// said for itself, so of one it may be every service, and every other one of the next.
pub fn describe_limits(rule: &RuleEntry, services: &Services) -> Vec<String> {
    let single =
        rule.limits.iter().flat_map(|(id, limits)| describe_limit(limits, |_| services::name(services, *id)));
    let every = |is_set: fn(&RuleLimits) -> bool| {
        let has_others = rule.limits.iter().any(|(_, limits)| is_set(limits));
        if has_others { "each other service" } else { "each service" }.to_owned()
    };
    single.chain(describe_limit(&rule.all, every)).collect()
}

/// What is said of limits; `whose` has the name of what they are of, by which limit is said.
fn describe_limit(limits: &RuleLimits, whose: impl Fn(fn(&RuleLimits) -> bool) -> String) -> Vec<String> {
    let RuleLimits { rate, max_connections, network } = limits;
    let connections = max_connections.is_set().then(|| {
        format!("{} to {}", max_connections.connections(), whose(|other| other.max_connections.is_set()))
    });
    let rate = rate.get().map(|rate| {
        let (spec, service) = (Setting::Rate(RateSpec::of(&rate)), whose(|other| other.rate.get().is_some()));
        if rate.is_limited() {
            format!("rate {spec} ({} at once) to {service}", rate.burst())
        } else {
            format!("rate {spec} to {service}")
        }
    });
    let network = network.is_set().then(|| {
        let limit = Some(network.connections()).filter(|&limit| limit != u32::MAX);
        let service = whose(|other| other.network.is_set());
        format!("{} from the network to {service}", Setting::NetworkMaxConnections(limit))
    });
    connections.into_iter().chain(rate).chain(network).collect()
}

/// What a policy says of a service, by key, as the configuration writes it without quotes.
pub fn describe_service(policy: &ServicePolicy) -> Vec<(&'static str, String)> {
    let settings = config::settings(policy).into_iter().map(|setting| (setting.key(), setting.to_string()));
    settings.chain(KEYS.map(|(key, get)| (key, get(policy)))).collect()
}

/// What is another in one policy than in another.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Difference {
    /// Of what: a service, `rule NETWORK`, or the configuration as a whole.
    pub what: String,
    /// Which key of it; none for a rule.
    pub key: Option<&'static str>,
    /// As it was.
    pub was: String,
    /// As it is.
    pub is: String,
}

/// Of what a difference is that is of neither a service nor a rule.
pub const OF_NO_SERVICE: &str = "the configuration";

/// How many characters are shown of what refused clients are told.
const CUT: usize = 100;

/// What is not there.
const NONE: &str = "none";

/// What is another in `after` than in `before`: services by their names, then rules of the admin's by their networks.
pub fn differences(before: &PolicySet, after: &PolicySet) -> Vec<Difference> {
    let mut all = of_services(before, after);
    all.extend(of_rules(before, after));
    all
}

/// The same of what the kernel knows nothing of, and nobody changes live.
pub fn differences_of_the_rest(before: &Config, after: &Config) -> Vec<Difference> {
    let pairs = before.rest().into_iter().zip(after.rest());
    let difference = |((key, was), (_, is)): ((&'static str, String), (&'static str, String))| Difference {
        what: OF_NO_SERVICE.to_owned(),
        key: Some(key),
        was,
        is,
    };
    let mut found: Vec<Difference> = pairs.filter(|(was, is)| was != is).map(difference).collect();
    found.extend(of_words(before, after));
    found
}

/// What refused clients are told at each service that both have.
fn of_words(before: &Config, after: &Config) -> Vec<Difference> {
    let mut found = Vec::new();
    for is in &after.services {
        let Some(was) = before.services.iter().find(|was| was.name == is.name) else { continue };
        let keys = was.wording.keys().into_iter().zip(is.wording.keys()).filter(|(was, is)| was != is);
        found.extend(keys.map(|((key, was), (_, new))| {
            let (was, new) = cut(was, new);
            Difference { what: is.name.clone(), key: Some(key), was, is: new }
        }));
    }
    found
}

/// Both, cut to the length of a line, unless they would look the same then.
fn cut(was: String, is: String) -> (String, String) {
    let [short_was, short_is] = [&was, &is].map(|text| match text.char_indices().nth(CUT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.clone(),
    });
    if short_was == short_is { (was, is) } else { (short_was, short_is) }
}

fn of_services(before: &PolicySet, after: &PolicySet) -> Vec<Difference> {
    let [was, is] = [before, after].map(|policy| -> HashMap<&str, (ServiceId, &ServicePolicy)> {
        policy.services.iter().map(|(id, service)| (service.name(), (*id, service))).collect()
    });
    let mut names: Vec<&str> = was.keys().chain(is.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let mut found = Vec::new();
    for name in names {
        let difference = |key: &'static str, was: String, is: String| Difference {
            what: name.to_owned(),
            key: Some(key),
            was,
            is,
        };
        let (was, is) = (was.get(name), is.get(name));
        let [old, new] = [(before, was), (after, is)].map(|(policy, service)| {
            service.map_or_else(|| NONE.to_owned(), |(id, _)| ports(&policy.ports, *id))
        });
        if old != new {
            found.push(difference("ports", old, new));
        }
        let (Some((_, was)), Some((_, is))) = (was, is) else { continue };
        let changed = config::changes(&[], was, is).into_iter();
        found.extend(changed.map(|(was, is)| difference(is.key(), was.to_string(), is.to_string())));
        for (key, get) in KEYS {
            let (was, is) = (get(was), get(is));
            if was != is {
                found.push(difference(key, was, is));
            }
        }
    }
    found
}

type Get = fn(&ServicePolicy) -> String;

/// What `limiter set` has no key for.
const KEYS: [(&str, Get); 4] = [
    ("protocol", |policy| config::protocol_name(policy.protocol).to_owned()),
    ("ipv4_prefix", |policy| policy.source.ipv4.to_string()),
    ("ipv6_prefix", |policy| policy.source.ipv6.to_string()),
    ("network prefixes", |policy| {
        if policy.has_network() {
            format!("/{} and /{}", policy.network.ipv4, policy.network.ipv6)
        } else {
            NONE.to_owned()
        }
    }),
];

fn ports(ports: &[u8], id: ServiceId) -> String {
    let ports: Vec<String> = ports_of(ports, id).iter().map(u16::to_string).collect();
    if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }
}

/// The ports of a service, sorted.
pub fn ports_of(ports: &[u8], id: ServiceId) -> Vec<u16> {
    let of_service = (0_u16..=u16::MAX).zip(ports).filter(|(_, service)| **service == id.0);
    of_service.map(|(port, _)| port).collect()
}

fn of_rules(before: &PolicySet, after: &PolicySet) -> Vec<Difference> {
    let [was, is] = [before, after].map(|policy| -> HashMap<Network, RuleEntry> {
        admins_rules(policy.rules.clone()).into_iter().map(|rule| (rule.network, rule)).collect()
    });
    let mut networks: Vec<Network> = was.keys().chain(is.keys()).copied().collect();
    // Most rules of a long list are as they were, and need no words.
    let says = |rule: Option<&RuleEntry>| {
        rule.map(|rule| (rule.action as u8, rule.all, rule.source_prefix, rule.limits.clone()))
    };
    networks.retain(|network| says(was.get(network)) != says(is.get(network)));
    networks.sort_by_key(|network| (network.addr.to_ip(), network.prefix));
    networks.dedup();
    let shown = |rule: Option<&RuleEntry>, policy: &PolicySet| {
        rule.map_or_else(|| NONE.to_owned(), |rule| describe(rule, &policy.services))
    };
    let difference = |network: Network| Difference {
        what: format!("rule {network}"),
        key: None,
        was: shown(was.get(&network), before),
        is: shown(is.get(&network), after),
    };
    networks.into_iter().map(difference).filter(|difference| difference.was != difference.is).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::of_config;

    fn given(before: &str, after: &str) -> Vec<String> {
        let [before, after] = [before, after].map(|text| config::parse(text, "a file").unwrap());
        let [was, is] = [&before, &after].map(|config| of_config(config, &HashMap::new(), Vec::new()));
        let mut all = differences(&was, &is);
        all.extend(differences_of_the_rest(&before, &after));
        all.iter()
            .map(|found| format!("{} {} {} -> {}", found.what, found.key.unwrap_or(""), found.was, found.is))
            .collect()
    }

    #[test]
    fn every_kind_of_difference_between_two_files_is_said() {
        let before = "[service.smtp]\nmax_connections = 4\n[[rule]]\nnetwork = \"10.0.0.0/8\"\ndeny = true\n\
                      [[rule]]\nnetwork = \"9.0.0.0/8\"\nmax_connections = 3\n";
        assert_eq!(given(before, before), [""; 0]);
        let after = "interfaces = [\"eth0\"]\nhostname = \"mx.example.net\"\n[ladder]\nban = \"5m\"\n\
                     [service.smtp]\nmax_connections = 5\nports = [25, 2525]\nipv4_prefix = 24\nrate = \"60/min\"\n\
                     [service.lmtp]\nports = [24]\nprotocol = \"smtp\"\n\
                     [[rule]]\nnetwork = \"9.0.0.0/8\"\nmax_connections = { smtp = 7, \"*\" = 3 }\n";
        assert_eq!(
            given(before, after),
            [
                "lmtp ports none -> 24",
                "smtp ports 25 -> 25,2525",
                "smtp max_connections 4 -> 5",
                "smtp rate none -> 60/min",
                "smtp burst none -> 60",
                "smtp ipv4_prefix 32 -> 24",
                "rule 9.0.0.0/8  limit 3 to each service -> limit 7 to smtp, 3 to each other service",
                "rule 10.0.0.0/8  deny -> none",
                "the configuration hostname the system's -> mx.example.net",
                "the configuration interfaces \"auto\" -> [\"eth0\"]",
                "the configuration ban 10m -> 5m",
            ]
        );
        let rule = |bits| format!("[[rule]]\nnetwork = \"2001:db8::/48\"\nsource_prefix = {bits}\n");
        assert_eq!(
            given(&rule(128), &rule(56)),
            ["rule 2001:db8::/48  each /128 is a source -> each /56 is a source"]
        );
        assert_eq!(given("", "[service.sieve]\nports = []\n"), ["sieve ports 4190 -> none"]);
        assert_eq!(
            given("", "[service.sieve]\nmessage = { rate = 'slow {retry}' }\nurl = 'https://a'\n"),
            ["sieve message none -> { rate = \"slow {retry}\" }", "sieve url none -> https://a"]
        );
        // What all clients are told is said once, and a long text is cut where the difference still shows.
        let message = |text: &str| format!("[service.sieve]\nmessage = '{text}'\n");
        let all = |text: &str| given("", &message(text));
        assert_eq!(all("busy"), ["sieve message none -> \"busy\""]);
        assert_eq!(all("{count} of {limit}"), ["sieve message none -> \"{count} of {limit}\""]);
        let long = "ü".repeat(101);
        assert_eq!(all(&long), [format!("sieve message none -> \"{}…", "ü".repeat(99))]);
        assert_eq!(
            given(&message(&long), &message(&format!("{long}x"))),
            [format!("sieve message \"{long}\" -> \"{long}x\"")]
        );
        // Another reason that is told nothing of its own is another message.
        assert_eq!(
            given("", "[service.sieve]\nmessage = { total = 'a', network = 'a', concurrency = 'a' }\n"),
            ["sieve message none -> { total = \"a\", network = \"a\", concurrency = \"a\" }"]
        );
    }
}
