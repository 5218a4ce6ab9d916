// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rules as the kernel looks them up: by the longest prefix, and nothing else. So what a shorter rule
//! says and a longer one does not is put into the longer one.

use std::collections::{BTreeSet, HashMap};

use limiter_common::{
    Action, Addr, Rate, RuleMatch, ServiceId,
    rule::{Limit, Network, RuleLimits, RuleRate, SourcePrefix},
};

use super::services::{self, Services};
use crate::{
    config::{self, PerService, RateSpec, RateWithBurst, Rule},
    kernel::sets::RuleEntry,
};

/// All of IPv4, as the kernel knows it: within `::/0`, and no part of it for an admin.
const IPV4: Network = Network { prefix: 96, addr: Addr([0, 0, 0xffff_u32.to_be(), 0]) };

/// The rules of a configuration, with the services' numbers.
pub fn of_config(rules: &[Rule], numbers: &HashMap<&str, ServiceId>) -> Vec<RuleEntry> {
    let entry = |rule: &Rule| {
        let named = rule.services().into_iter();
        let limits = named.filter_map(|name| Some((*numbers.get(name)?, limits_of(rule, Some(name)))));
        let mut limits: Vec<_> = limits.collect();
        limits.sort_by_key(|(service, _)| *service);
        RuleEntry {
            source_prefix: rule.source_prefix.map_or(SourcePrefix::NONE, |prefix| {
                SourcePrefix::of_rule(config::bits(&rule.network, prefix))
            }),
            all: limits_of(rule, None),
            limits,
            ..RuleEntry::new(config::network(&rule.network), rule.action)
        }
    };
    rules.iter().map(entry).collect()
}

/// An admin's rule as the configuration has it: what [`of_config`] made it of, without its comment. Limits of services
/// that do not exist are left out.
pub fn as_config(entry: &RuleEntry, services: &Services) -> Rule {
    let mut rule = Rule {
        source_prefix: config::prefix_len(&entry.network, entry.source_prefix),
        ..Rule::new(config::ip_net(&entry.network), entry.action)
    };
    give(&mut rule, None, &entry.all);
    for (id, limits) in &entry.limits {
        if let Some(service) = services::by_id(services, *id) {
            give(&mut rule, Some(service.name()), limits);
        }
    }
    rule
}

/// The reverse of [`limits_of`].
fn give(rule: &mut Rule, service: Option<&str>, limits: &RuleLimits) {
    fn put<T>(key: &mut PerService<T>, service: Option<&str>, value: Option<T>) {
        match (service, value) {
            (_, None) => {}
            (Some(service), Some(value)) => drop(key.services.insert(service.to_owned(), value)),
            (None, all) => key.all = all,
        }
    }
    let RuleLimits { rate, max_connections, network } = limits;
    let with_burst = |rate: &Rate| RateSpec::of(rate).map(|spec| RateWithBurst { spec, burst: rate.burst() });
    let number = |limit: &Limit| limit.is_set().then(|| limit.connections());
    put(&mut rule.rate, service, rate.get().as_ref().map(with_burst));
    put(&mut rule.max_connections, service, number(max_connections));
    let network = number(network).map(|limit| Some(limit).filter(|&limit| limit != u32::MAX));
    put(&mut rule.network_max_connections, service, network);
}

/// What a rule says of one service apart from others; without a name, of all others.
fn limits_of(rule: &Rule, service: Option<&str>) -> RuleLimits {
    RuleLimits {
        rate: given(&rule.rate, service).map_or(RuleRate::UNSET, |rate| {
            RuleRate::of_rule(rate.map_or_else(Rate::default, |rate| rate.spec.rate(rate.burst)))
        }),
        max_connections: given(&rule.max_connections, service).map_or(Limit::UNSET, Limit::of_rule),
        network: given(&rule.network_max_connections, service)
            .map_or(Limit::UNSET, |limit| limit.map_or(Limit::NONE, Limit::of_rule)),
    }
}

fn given<T: Copy>(key: &PerService<T>, service: Option<&str>) -> Option<T> {
    service.map_or(key.all, |service| key.services.get(service).copied())
}

/// The admin's rule for exactly this network, as it was given. The rules are those of a policy, sorted by network.
pub fn admins_rule(rules: &[RuleEntry], network: &Network) -> Option<RuleEntry> {
    let index = rules.binary_search_by_key(network, |rule| rule.network).ok()?;
    admins_rules(vec![rules[index].clone()]).pop()
}

/// The admin's rules as they were given: without what is built in, and without what is inherited. Which of them are
/// for local addresses stays known.
pub fn admins_rules(mut rules: Vec<RuleEntry>) -> Vec<RuleEntry> {
    rules.retain(|rule| !rule.built_in);
    for rule in &mut rules {
        rule.all = rule.all.without_inherited();
        for (_, limits) in &mut rule.limits {
            *limits = limits.without_inherited();
        }
        rule.limits.retain(|(_, limits)| limits.is_set());
        if rule.source_prefix.is_inherited() {
            rule.source_prefix = SourcePrefix::NONE;
        }
    }
    rules
}

/// The rules as they are put in force where there are these services: the admin's and those that are built in, with all
/// that longer ones inherit, and with the allowed counted apart.
pub fn in_force(admins: Vec<RuleEntry>, built_in: Vec<RuleEntry>, services: &Services) -> Vec<RuleEntry> {
    let mut rules = inherit(admins, built_in);
    for rule in &mut rules {
        count_apart(rule, services);
    }
    rules
}

/// Has allowed addresses counted apart from their neighbours where a service takes both for one source: they are held to no
/// limit, and take no place from others. Rules with limits are left as they are: their limits are of each source, and the
/// network around it is larger than that by as much as the service says.
fn count_apart(rule: &mut RuleEntry, services: &Services) {
    let mut prefixes = services.iter().map(|(_, policy)| policy.source.of(&rule.network.addr));
    if let Ok(prefix) = u8::try_from(rule.network.prefix)
        && rule.action == Action::Allow
        && rule.source_prefix == SourcePrefix::NONE
        && prefixes.any(|of_source| prefix > of_source)
    {
        rule.source_prefix = SourcePrefix::of_rule(prefix).inherited();
    }
}

/// The admin's rules and those that are built in, with all that longer ones inherit from shorter ones;
/// sorted by network. For one network the admin's counts, and it stays known that it is a local address.
pub fn inherit(admins: Vec<RuleEntry>, built_in: Vec<RuleEntry>) -> Vec<RuleEntry> {
    let mut rules: HashMap<Network, RuleEntry> = HashMap::new();
    let covers_ipv4 = |rule: &RuleEntry| !is_v4(&rule.network) && rule.network.covers(&IPV4);
    if admins.iter().any(covers_ipv4) {
        rules.insert(IPV4, nothing_about(IPV4));
    }
    rules.extend(built_in.into_iter().filter(|rule| rule.network != IPV4).map(|rule| (rule.network, rule)));
    for rule in admins {
        let is_local = rules.get(&rule.network).is_some_and(|present| present.is_local);
        rules.insert(rule.network, RuleEntry { is_local, ..rule });
    }
    let mut networks: Vec<Network> = rules.keys().copied().collect();
    networks.sort();
    let mut prefixes: Vec<u32> = networks.iter().map(|network| network.prefix).collect();
    prefixes.dedup();
    // Of what no rule says anything, nothing is inherited.
    let limits =
        || rules.values().flat_map(|rule| rule.limits.iter().map(|(_, limits)| limits).chain([&rule.all]));
    let no_rate = limits().all(|limits| !limits.rate.is_set());
    let no_network = limits().all(|limits| !limits.network.is_set());
    let no_source = rules.values().all(|rule| rule.source_prefix == SourcePrefix::NONE);
    // Shorter prefixes come first: what they inherit is in them when longer ones look.
    for network in &networks {
        // A rule that leaves nothing unsaid, as most of a long list do, inherits nothing.
        let leaves_nothing_unset = |rule: &RuleEntry| {
            let RuleLimits { rate, max_connections, network } = &rule.all;
            max_connections.is_set()
                && (no_rate || rate.is_set())
                && (no_network || network.is_set())
                && (no_source || rule.source_prefix != SourcePrefix::NONE)
        };
        if rules.get(network).is_none_or(|rule| rule.action != Action::Limit || leaves_nothing_unset(rule)) {
            continue;
        }
        let shorter = prefixes.iter().rev().filter(|prefix| **prefix < network.prefix);
        let around = shorter
            .map(|&prefix| Network { prefix, addr: network.addr.cut(prefix as u8) })
            .filter(|around| is_v4(around) == is_v4(network))
            .find_map(|around| {
                rules.get(&around).filter(|around| hands_on(around, network, &rules)).cloned()
            });
        if let (Some(around), Some(rule)) = (around, rules.get_mut(network)) {
            take(rule, &around);
        }
    }
    networks.iter().filter_map(|network| rules.remove(network)).collect()
}

/// Whether the rule for `network` takes what `around` says. What is allowed or denied hands no limits on; but the
/// built-in rule for a local address says nothing itself, where it does not allow it.
fn hands_on(around: &RuleEntry, network: &Network, rules: &HashMap<Network, RuleEntry>) -> bool {
    around.action == Action::Limit || rules.get(network).is_some_and(|rule| rule.built_in && rule.is_local)
}

/// What `around` says, where `rule` says nothing.
fn take(rule: &mut RuleEntry, around: &RuleEntry) {
    if rule.source_prefix == SourcePrefix::NONE {
        rule.source_prefix = around.source_prefix.inherited();
    }
    rule.action = around.action;
    for (service, limits) in &around.limits {
        // What the rule says of every service goes before what the other says of one.
        let left = limits.unset_by(&rule.all).inherited();
        match rule.limits.iter_mut().find(|(given, _)| given == service) {
            Some((_, given)) => *given = given.or(&left),
            None if left.is_set() => rule.limits.push((*service, left)),
            None => {}
        }
    }
    rule.limits.sort_by_key(|(service, _)| *service);
    rule.all = rule.all.or(&around.all.inherited());
}

/// Rules, to be looked up for many sources: as the kernel does it, by the longest prefix.
pub struct Lookup<'a> {
    rules: HashMap<Network, &'a RuleEntry>,
    /// The prefixes there are, the longest first.
    prefixes: Vec<u32>,
    /// The networks of the admin's rules, in the order of their addresses.
    networks: BTreeSet<(u128, u32)>,
}

impl<'a> Lookup<'a> {
    /// In all of a policy's rules.
    pub fn new(rules: &'a [RuleEntry]) -> Self {
        let mut prefixes: Vec<u32> = rules.iter().map(|rule| rule.network.prefix).collect();
        prefixes.sort_unstable_by(|a, b| b.cmp(a));
        prefixes.dedup();
        let admins = rules.iter().filter(|rule| !rule.built_in);
        Self {
            prefixes,
            networks: admins.map(|rule| (bits(&rule.network.addr), rule.network.prefix)).collect(),
            rules: rules.iter().map(|rule| (rule.network, rule)).collect(),
        }
    }

    /// The rule that counts for all of `network`, but for what is in it and has a rule of its own.
    pub fn covering(&self, network: &Network) -> Option<&'a RuleEntry> {
        let shorter = self.prefixes.iter().filter(|prefix| **prefix <= network.prefix);
        let mut around = shorter.map(|&prefix| Network { prefix, addr: network.addr.cut(prefix as u8) });
        around.find_map(|around| self.rules.get(&around).copied())
    }

    /// Whether the admin has made a rule for a part of `network` alone. Of IPv4 hosts a part comes by way of a translator,
    /// for which other rules hold.
    pub fn is_divided(&self, network: &Network) -> bool {
        let has_rule = |network: &Network| self.covering(network).is_some_and(|rule| !rule.built_in);
        self.has_rules_within(network)
            || translated(network).iter().flatten().any(|part| has_rule(part) || self.has_rules_within(part))
    }

    fn has_rules_within(&self, network: &Network) -> bool {
        let first = bits(&network.addr);
        let last = first | u128::MAX.checked_shr(network.prefix).unwrap_or(0);
        self.networks.range((first, 0)..=(last, u32::MAX)).any(|&(_, prefix)| prefix > network.prefix)
    }
}

/// A network of IPv4 as NAT64 (RFC 6052, 2.1) and 6to4 (RFC 3056, 2) write it: see [`Addr::host`].
fn translated(network: &Network) -> [Option<Network>; 2] {
    if !is_v4(network) {
        return [None; 2];
    }
    let (length, host) = (network.prefix - 96, bits(&network.addr) & u128::from(u32::MAX));
    let at = |prefix, bits: u128| {
        let addr = Addr::from(std::net::IpAddr::V6(bits.into()));
        Some(Network { prefix, addr: addr.cut(prefix as u8) })
    };
    [at(96 + length, 0x0064_ff9b << 96 | host), at(16 + length, 0x2002 << 112 | host << 80)]
}

/// What a rule says of one service.
pub fn rule_match(rule: &RuleEntry, service: ServiceId) -> RuleMatch {
    let one = rule.limits.iter().find(|(given, _)| *given == service);
    RuleMatch {
        action: rule.action,
        source_prefix: rule.source_prefix.bits(),
        limits: one.map_or(rule.all, |(_, one)| one.or(&rule.all)),
    }
}

/// An address as one number, an IPv4 one in its mapped form: what is a number's neighbour is an address's.
fn bits(address: &Addr) -> u128 {
    address.0.iter().fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(*word)))
}

/// The rule of `rules` that counts for `address`: the one with the longest prefix.
pub fn covering<'a>(rules: &'a [RuleEntry], address: &Addr) -> Option<&'a RuleEntry> {
    let around = rules.iter().filter(|rule| rule.network.covers(&Network::of(*address)));
    around.max_by_key(|rule| rule.network.prefix)
}

fn nothing_about(network: Network) -> RuleEntry {
    RuleEntry { built_in: true, ..RuleEntry::new(network, Action::Limit) }
}

fn is_v4(network: &Network) -> bool {
    network.prefix >= 96 && network.addr.is_v4()
}

#[cfg(test)]
mod tests {
    use limiter_common::{ServicePolicy, service::Prefixes};
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str, action: Action, max_connections: u32, limits: &[(u8, u32)]) -> RuleEntry {
        RuleEntry {
            all: RuleLimits::connections(Limit::of_rule(max_connections)),
            limits: limits
                .iter()
                .map(|&(service, limit)| (ServiceId(service), RuleLimits::connections(Limit::of_rule(limit))))
                .collect(),
            ..RuleEntry::new(config::network(&config::parse_network(text).unwrap()), action)
        }
    }

    /// What a rule says of the limits at a service.
    fn limits_at(rule: &RuleEntry, service: u8) -> RuleLimits {
        rule_match(rule, ServiceId(service)).limits
    }

    fn limit_of(rules: &[RuleEntry], address: &str, service: u8) -> u32 {
        let rule = covering(rules, &Addr::from(address.parse::<std::net::IpAddr>().unwrap())).unwrap();
        limits_at(rule, service).max_connections.connections()
    }

    #[test]
    fn a_longer_rule_says_what_a_shorter_one_says_unless_it_says_otherwise() {
        let rules = inherit(
            vec![
                rule("203.0.113.0/24", Action::Limit, 0, &[(1, 200), (2, 40)]),
                rule("203.0.113.7", Action::Limit, 0, &[(2, 5)]),
                rule("203.0.113.128/25", Action::Limit, 9, &[]),
                rule("203.0.0.0/16", Action::Limit, 3, &[]),
            ],
            Vec::new(),
        );
        assert_eq!(limit_of(&rules, "203.0.113.7", 1), 200);
        assert_eq!(limit_of(&rules, "203.0.113.7", 2), 5);
        assert_eq!(limit_of(&rules, "203.0.113.7", 3), 3, "from the /16, by way of the /24");
        assert_eq!(limit_of(&rules, "203.0.113.8", 2), 40);
        assert_eq!(limit_of(&rules, "203.0.113.200", 1), 9, "a limit for all leaves nothing unsaid");
    }

    #[test]
    fn a_look_up_finds_what_counts_for_a_whole_source_and_what_for_a_part_of_it() {
        let rules = inherit(
            vec![
                rule("2001:db8:7::/48", Action::Limit, 9, &[(1, 3)]),
                rule("2001:db8:7::5", Action::Allow, 0, &[]),
                rule("203.0.113.0/24", Action::Deny, 0, &[]),
                rule("203.0.113.7", Action::Limit, 4, &[]),
            ],
            Vec::new(),
        );
        let lookup = Lookup::new(&rules);
        let of = |text: &str| config::network(&config::parse_network(text).unwrap());
        let given = |text: &str| lookup.covering(&of(text)).map(|rule| rule_match(rule, ServiceId(1)));
        let limit = |connections| RuleMatch {
            limits: RuleLimits::connections(Limit::of_rule(connections)),
            ..RuleMatch::NONE
        };
        assert_eq!(given("2001:db8:7::/64"), Some(limit(3)), "the /128 in it counts for itself only");
        assert!(lookup.is_divided(&of("2001:db8:7::/64")) && !lookup.is_divided(&of("2001:db8:7:1::/64")));
        assert_eq!(given("203.0.113.7"), Some(limit(4)));
        assert_eq!(given("203.0.113.8").map(|rule_match| rule_match.action), Some(Action::Deny));
        assert!(lookup.is_divided(&of("203.0.113.0/24")) && !lookup.is_divided(&of("203.0.113.7")));
        assert_eq!(given("192.0.2.1"), None);
    }

    #[test]
    fn of_an_ipv4_host_what_comes_by_a_translator_may_have_a_rule_of_its_own() {
        let of = |text: &str| config::network(&config::parse_network(text).unwrap());
        for one in ["64:ff9b::203.0.113.9", "64:ff9b::/96", "2002:cb00:7109::/48", "2002:cb00:7109:1::1"] {
            let rules = inherit(vec![rule(one, Action::Limit, 9, &[])], Vec::new());
            let lookup = Lookup::new(&rules);
            assert!(lookup.is_divided(&of("203.0.113.9")), "{one}");
            let is_for_all = one.ends_with("/96");
            assert_eq!(lookup.is_divided(&of("203.0.113.8")), is_for_all, "{one}");
        }
        let rules = inherit(vec![rule("203.0.113.9", Action::Limit, 9, &[])], Vec::new());
        assert!(!Lookup::new(&rules).is_divided(&of("203.0.113.9")), "of the others nothing is said");
    }

    #[test]
    fn what_makes_a_source_in_a_network_makes_it_in_a_part_of_it_too() {
        let with = |entry, bits| RuleEntry { source_prefix: SourcePrefix::of_rule(bits), ..entry };
        let admins = vec![
            with(rule("2001:db8::/32", Action::Limit, 0, &[]), 48),
            rule("2001:db8:1::/64", Action::Limit, 7, &[]),
            with(rule("2001:db8:2::/64", Action::Limit, 0, &[(1, 3)]), 128),
            rule("2001:db8:3::/64", Action::Allow, 0, &[]),
            rule("2001:db9::/32", Action::Limit, 7, &[]),
        ];
        let rules = inherit(admins.clone(), Vec::new());
        let bits = |address: &str| {
            let address = Addr::from(address.parse::<std::net::IpAddr>().unwrap());
            covering(&rules, &address).unwrap().source_prefix.bits()
        };
        assert_eq!(bits("2001:db8::1"), 48);
        assert_eq!(bits("2001:db8:1::1"), 48, "though it has a limit for all services");
        assert_eq!(bits("2001:db8:2::1"), 128);
        assert_eq!(bits("2001:db8:3::1"), 0, "what is allowed inherits nothing");
        assert_eq!(bits("2001:db9::1"), 0);
        assert_eq!(limit_of(&rules, "2001:db8:1::1", 1), 7);
        let mut sorted = admins;
        sorted.sort_by_key(|rule| rule.network);
        assert_eq!(admins_rules(rules), sorted);
    }

    #[test]
    fn who_is_allowed_is_counted_apart_from_its_neighbours() {
        let bits = |text, action, services: &[u8]| {
            let service = |&ipv6: &u8| {
                let source = Prefixes { ipv4: 32, ipv6 };
                (ServiceId(ipv6), ServicePolicy { source, ..ServicePolicy::default() })
            };
            let services: Vec<_> = services.iter().map(service).collect();
            let rules = in_force(vec![rule(text, action, 9, &[])], Vec::new(), &services);
            let again = in_force(admins_rules(rules.clone()), Vec::new(), &services);
            assert_eq!(again, rules, "it is not taken for the admin's word");
            rules[0].source_prefix.bits()
        };
        assert_eq!(bits("2001:db8::7", Action::Allow, &[64]), 128);
        assert_eq!(bits("2001:db8::/80", Action::Allow, &[64, 56]), 80);
        assert_eq!(
            bits("2001:db8::/60", Action::Allow, &[64, 56]),
            60,
            "it is part of a source of one service"
        );
        assert_eq!(bits("2001:db8::/64", Action::Allow, &[64]), 0, "it is a source");
        assert_eq!(bits("2001:db8::/48", Action::Allow, &[64]), 0, "it has many sources");
        assert_eq!(bits("192.0.2.7", Action::Allow, &[64]), 0);
        assert_eq!(bits("2001:db8::7", Action::Limit, &[64]), 0, "its limits are of each source");
    }

    #[test]
    fn what_is_allowed_or_denied_hands_no_limits_on() {
        let rules = inherit(
            vec![
                rule("203.0.113.0/24", Action::Deny, 0, &[]),
                rule("203.0.113.7", Action::Limit, 0, &[(1, 5)]),
                rule("203.0.0.0/16", Action::Limit, 3, &[]),
            ],
            Vec::new(),
        );
        assert_eq!(limit_of(&rules, "203.0.113.7", 1), 5);
        let seven = "203.0.113.7".parse::<std::net::IpAddr>().unwrap();
        assert_eq!(covering(&rules, &Addr::from(seven)).unwrap().action, Action::Limit);
    }

    #[test]
    fn a_rule_for_all_of_ipv6_says_nothing_about_ipv4() {
        let rules = inherit(vec![rule("::/0", Action::Deny, 0, &[])], Vec::new());
        let action = |address: &str| {
            covering(&rules, &Addr::from(address.parse::<std::net::IpAddr>().unwrap()))
                .map(|rule| rule.action)
        };
        assert_eq!(action("2001:db8::1"), Some(Action::Deny));
        assert_eq!(action("192.0.2.1"), Some(Action::Limit));
        let both = [rule("::/0", Action::Deny, 0, &[]), rule("0.0.0.0/0", Action::Allow, 0, &[])];
        let rules = inherit(both.to_vec(), Vec::new());
        assert_eq!(
            covering(&rules, &Addr::from("192.0.2.1".parse::<std::net::IpAddr>().unwrap())).unwrap().action,
            Action::Allow
        );
    }

    #[test]
    fn the_admins_word_on_an_own_address_counts() {
        let own = RuleEntry { built_in: true, is_local: true, ..rule("192.0.2.1", Action::Allow, 0, &[]) };
        let rules = inherit(vec![rule("192.0.2.0/24", Action::Deny, 0, &[])], vec![own.clone()]);
        assert_eq!(rules.len(), 2);
        assert!(rules.contains(&own), "a shorter rule does not touch it");
        let denied = rule("192.0.2.1", Action::Deny, 0, &[]);
        let still_own = RuleEntry { is_local: true, ..denied.clone() };
        let rules = inherit(vec![denied], vec![own.clone()]);
        assert_eq!(rules, [still_own]);
        assert_eq!(super::super::built_in(&rules), [own], "and what is built in is not forgotten");
    }

    #[test]
    fn an_own_address_for_one_link_has_what_the_rule_around_it_says() {
        let own = RuleEntry { built_in: true, is_local: true, ..rule("fe80::1", Action::Limit, 0, &[]) };
        let says = |around: RuleEntry| {
            let rules = inherit(vec![around], vec![own.clone()]);
            rules.into_iter().find(|rule| rule.network == own.network).unwrap()
        };
        assert_eq!(says(rule("fe80::/10", Action::Deny, 0, &[])).action, Action::Deny);
        assert_eq!(says(rule("fe80::/10", Action::Allow, 0, &[])).action, Action::Allow);
        assert_eq!(says(rule("fe80::/10", Action::Limit, 7, &[])).all.max_connections.connections(), 7);
        assert_eq!(says(rule("::/0", Action::Deny, 0, &[])).action, Action::Deny);
        let other = says(rule("2001:db8::/32", Action::Deny, 0, &[]));
        assert_eq!(other, own);
        let denied = vec![says(rule("fe80::/10", Action::Deny, 0, &[]))];
        assert_eq!(super::super::built_in(&denied), vec![own]);
        assert_eq!(admins_rules(denied), []);
    }

    fn any_rules() -> impl Strategy<Value = Vec<RuleEntry>> {
        let one = (
            any::<[u8; 2]>(),
            0u8..=16,
            0u8..6,
            any_limits(),
            prop::collection::btree_map(1u8..5, any_limits(), 0..3),
            0u8..3,
        );
        prop::collection::vec(one, 0..20).prop_map(|rules| {
            let mut seen = std::collections::HashSet::new();
            let entries = rules.into_iter().map(|([a, b], prefix, action, all, limits, source)| {
                let network = ipnet::Ipv4Net::new([10, 0, a % 2, b].into(), 16 + prefix).unwrap().trunc();
                let action = Action::from_u8(action);
                let given = rule(&network.to_string(), action, 0, &[]);
                if action != Action::Limit {
                    return given;
                }
                let bits = if source == 0 { 96 + network.prefix_len() } else { 0 };
                let limits = limits.into_iter().filter(|(_, limits)| limits.is_set());
                let limits = limits.map(|(service, limits)| (ServiceId(service), limits)).collect();
                RuleEntry { source_prefix: SourcePrefix::of_rule(bits), all, limits, ..given }
            });
            entries.filter(|entry| seen.insert(entry.network)).collect()
        })
    }

    /// Limits of which each may be said, or not.
    fn any_limits() -> impl Strategy<Value = RuleLimits> {
        let number = || prop_oneof![2 => Just(Limit::UNSET), 2 => (1u32..9).prop_map(Limit::of_rule), 1 => Just(Limit::NONE)];
        let rate = prop_oneof![
            2 => Just(RuleRate::UNSET),
            2 => (1u32..9).prop_map(|count| RuleRate::of_rule(Rate::new(count, 60, 1))),
            1 => Just(RuleRate::of_rule(Rate::default())),
        ];
        let connections = prop_oneof![Just(Limit::UNSET), (1u32..9).prop_map(Limit::of_rule)];
        (rate, connections, number()).prop_map(|(rate, max_connections, network)| RuleLimits {
            rate,
            max_connections,
            network,
        })
    }

    proptest! {
        /// By the book, for each kind of limit alone: the longest rule that says anything of it counts, and of one rule
        /// what it says of the service before what it says of all.
        #[test]
        fn each_limit_is_that_of_the_longest_rule_that_says_one(
            rules in any_rules(), [a, b] in any::<[u8; 2]>(), service in 1u8..5,
        ) {
            let address = Addr::from(std::net::IpAddr::from([10, 0, a % 2, b]));
            let mut around: Vec<&RuleEntry> =
                rules.iter().filter(|rule| rule.network.covers(&Network::of(address))).collect();
            around.sort_by_key(|rule| std::cmp::Reverse(rule.network.prefix));
            // What is allowed or denied hands nothing on, and does not keep others from it.
            let given: Vec<RuleLimits> = around
                .iter()
                .enumerate()
                .filter(|(nth, rule)| *nth == 0 || rule.action == Action::Limit)
                .map(|(_, rule)| limits_at(rule, service))
                .take_while(|_| around[0].action == Action::Limit)
                .collect();
            let rate = given.iter().find_map(|limits| limits.rate.get());
            let first = |limit: fn(&RuleLimits) -> Limit| {
                given.iter().map(limit).find(|limit| limit.is_set()).map_or(0, Limit::connections)
            };
            let (connections, network) = (first(|limits| limits.max_connections), first(|limits| limits.network));
            let all = inherit(rules.clone(), Vec::new());
            let found = covering(&all, &address).map_or(RuleLimits::UNSET, |rule| limits_at(rule, service));
            prop_assert_eq!(
                (found.rate.get(), found.max_connections.connections(), found.network.connections()),
                (rate, connections, network)
            );
        }

        #[test]
        fn the_admins_words_survive(rules in any_rules()) {
            let mut rules = rules;
            rules.sort_by_key(|rule| rule.network);
            prop_assert_eq!(admins_rules(inherit(rules.clone(), Vec::new())), rules);
        }

        /// Whatever the order in which they were written.
        #[test]
        fn the_order_of_rules_never_matters(rules in any_rules(), turn in 0usize..20) {
            let mut turned = rules.clone();
            turned.rotate_left(turn % rules.len().max(1));
            prop_assert_eq!(inherit(rules, Vec::new()), inherit(turned, Vec::new()));
        }
    }
}
