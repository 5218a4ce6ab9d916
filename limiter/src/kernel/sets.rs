// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ports, services and rules: two sets of them, one of which is in force.
//!
//! A change is made in the other set, which is then put in force in one step. So every verdict of the
//! kernel comes from one policy, the old or the new, and a change that fails half-way changes nothing.

use std::{
    collections,
    hash::{BuildHasher as _, RandomState},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData, lpm_trie};
use limiter_common::{
    Addr, Key, Ladder, MAX_SERVICES, PORT_WORDS, Rule, RuleMatch, SCOPES, SETS, ServiceId, ServicePolicy,
    coverage,
    rule::{Action, Limit, Network, RuleLimits, RuleService, SourcePrefix},
};

use super::{
    bulk,
    grace::Grace,
    map::{found, open},
    walk::{walk, walk_by_key},
};

/// Index in the `LAYOUT` map: the fingerprint of each set, put in force with it.
const FINGERPRINTS: [u32; SETS as usize] = [1, 4];

const UNREADABLE: &str = "cannot read the rules";

/// The most rules.
pub const MAX_RULES: u32 = 1 << 20;
/// The most limits that rules have beside one number of connections: for single services, or of other kinds.
pub const MAX_RULE_LIMITS: u32 = 1 << 17;

/// A rule and its limits for single services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleEntry {
    /// Whom it is for.
    pub network: Network,
    /// What becomes of them.
    pub action: Action,
    /// Whether it is not the admin's rule.
    pub built_in: bool,
    /// Whether its network is one of the host's local addresses.
    pub is_local: bool,
    /// The limits at every service for which there is nothing else below.
    pub all: RuleLimits,
    /// Limits at single services, by service.
    pub limits: Vec<(ServiceId, RuleLimits)>,
    /// What makes a source in the network; none: what the services say.
    pub source_prefix: SourcePrefix,
}

impl RuleEntry {
    /// A rule of the admin's that says nothing but this.
    pub const fn new(network: Network, action: Action) -> Self {
        Self {
            network,
            action,
            built_in: false,
            is_local: false,
            all: RuleLimits::UNSET,
            limits: Vec::new(),
            source_prefix: SourcePrefix::NONE,
        }
    }

    /// Whether it says where sources are counted, or what networks may hold: those that are allowed are not counted in theirs.
    fn has_scope(&self) -> bool {
        let mut limits = self.limits.iter().map(|(_, limits)| limits);
        self.action == Action::Allow
            || self.source_prefix != SourcePrefix::NONE
            || self.all.network.is_number()
            || limits.any(|limits| limits.network.is_number())
    }

    /// What is written of it beside the rule itself: for each service, and as 0 for all others what does not fit into
    /// the rule.
    fn limits_beside(&self) -> Vec<(u32, RuleLimits)> {
        let all = RuleLimits { max_connections: Limit::UNSET, ..self.all };
        let all = all.is_set().then_some((0, all));
        let single = self.limits.iter().map(|&(service, limits)| (u32::from(service.0), limits));
        all.into_iter().chain(single).collect()
    }
}

/// A whole policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// The service of each port, indexed by port; 0 for none.
    pub ports: Vec<u8>,
    /// The services.
    pub services: Vec<(ServiceId, ServicePolicy)>,
    /// The rules, by network, no two for one.
    pub rules: Vec<RuleEntry>,
    /// What every source may make of refusals.
    pub ladder: Ladder,
    /// Of the configuration that was put in force last; 0 for none.
    pub fingerprint: u64,
}

type Rules = lpm_trie::LpmTrie<MapData, Addr, Rule>;
type Limits = HashMap<MapData, RuleService, RuleLimits>;

/// The maps of both sets.
pub struct Sets {
    layout: Array<MapData, u64>,
    active: Array<MapData, u64>,
    change: Array<MapData, u64>,
    ports: Array<MapData, u64>,
    services: Array<MapData, ServicePolicy>,
    ladders: Array<MapData, Ladder>,
    /// Ports and services, to be read and written as a whole.
    whole_ports: MapData,
    whole_services: MapData,
    /// Where there are rules, to be written as a whole.
    coverage: MapData,
    rules: [Rules; SETS as usize],
    limits: [Limits; SETS as usize],
    /// The same maps, to be read and written as a whole.
    whole: [Whole; SETS as usize],
    /// How to wait for the verdicts under way; none before the first change.
    grace: Option<Grace>,
}

/// The maps of the rules of one set.
struct Whole {
    rules: MapData,
    limits: MapData,
}

impl Sets {
    /// Opens the maps pinned in `dir`.
    pub fn open(dir: &Path) -> Result<Self> {
        let rules = |name| -> Result<Rules> { Ok(Map::LpmTrie(open(dir, name)?).try_into()?) };
        let limits = |name| -> Result<Limits> { Ok(Map::HashMap(open(dir, name)?).try_into()?) };
        let whole = |rules, limits| -> Result<Whole> {
            Ok(Whole { rules: open(dir, rules)?, limits: open(dir, limits)? })
        };
        Ok(Self {
            layout: Map::Array(open(dir, "LAYOUT")?).try_into()?,
            active: Map::Array(open(dir, "ACTIVE")?).try_into()?,
            change: Map::Array(open(dir, "CHANGE")?).try_into()?,
            ports: Map::Array(open(dir, "PORTS")?).try_into()?,
            services: Map::Array(open(dir, "SERVICES")?).try_into()?,
            ladders: Map::Array(open(dir, "LADDERS")?).try_into()?,
            whole_ports: open(dir, "PORTS")?,
            whole_services: open(dir, "SERVICES")?,
            coverage: open(dir, "COVERAGE")?,
            rules: [rules("RULES_0")?, rules("RULES_1")?],
            limits: [limits("LIMITS_0")?, limits("LIMITS_1")?],
            whole: [whole("RULES_0", "LIMITS_0")?, whole("RULES_1", "LIMITS_1")?],
            grace: None,
        })
    }

    /// The set in force, 0 or 1.
    pub fn active(&self) -> Result<u32> {
        Ok((self.active.get(&0, 0)? % u64::from(SETS)) as u32)
    }

    /// The services in force.
    pub fn services(&self) -> Result<Vec<(ServiceId, ServicePolicy)>> {
        let set = self.active()?;
        let mut services = Vec::new();
        walk_by_key(&self.whole_services, |index: u32, policy: ServicePolicy| {
            let (of, id) = (index / MAX_SERVICES, index % MAX_SERVICES);
            if of == set && id != 0 && policy != ServicePolicy::default() {
                services.push((ServiceId(id as u8), policy));
            }
        })
        .context("cannot read the services")?;
        Ok(services)
    }

    /// What every source may make of refusals.
    pub fn ladder(&self) -> Result<Ladder> {
        Ok(self.ladders.get(&self.active()?, 0)?)
    }

    /// The service of each port, as in force, indexed by port; 0 for none.
    pub fn ports(&self) -> Result<Vec<u8>> {
        let set = self.active()?;
        let mut ports = Vec::with_capacity(65536);
        walk_by_key(&self.whole_ports, |index: u32, word: u64| {
            if index / PORT_WORDS == set {
                ports.extend((0..8).map(|port| (word >> (port * 8)) as u8));
            }
        })
        .context("cannot read the ports")?;
        Ok(ports)
    }

    /// The service of one port and its policy, in a set.
    pub fn service_of(&self, set: u32, port: u16) -> Result<Option<(ServiceId, ServicePolicy)>> {
        let word = self.ports.get(&(set * PORT_WORDS + (u32::from(port) >> 3)), 0)?;
        match (word >> ((port & 7) * 8)) as u8 {
            0 => Ok(None),
            id => {
                let policy = self.services.get(&(set * MAX_SERVICES + u32::from(id)), 0)?;
                Ok(Some((ServiceId(id), policy)))
            }
        }
    }

    /// What the rules say of a source at a service. The host's local addresses are only known as far as
    /// the daemon has told the kernel.
    pub fn rule_match(&self, source: &Addr, service: ServiceId) -> Result<RuleMatch> {
        let set = (self.active()? % SETS) as usize;
        let Some(rule) = self.rule(set, &Network::of(*source))? else {
            return Ok(if source.is_loopback() { RuleMatch::ALLOW } else { RuleMatch::NONE });
        };
        let limits = |service: ServiceId| -> Result<RuleLimits> {
            if !rule.limits(service) {
                return Ok(RuleLimits::UNSET);
            }
            let key = RuleService { rule: rule.id, service: u32::from(service.0) };
            Ok(found(self.limits[set].get(&key, 0)).context(UNREADABLE)?.unwrap_or_default())
        };
        let all = RuleLimits { max_connections: rule.max_connections, ..limits(ServiceId(0))? };
        let limits = limits(service)?.or(&all);
        Ok(RuleMatch {
            action: Action::from_u8(rule.action),
            source_prefix: rule.source_prefix(source),
            limits,
        })
    }

    /// What an address counts as at a service: the key of its source.
    pub fn source(&self, service: ServiceId, policy: &ServicePolicy, address: &Addr) -> Result<Key> {
        Ok(Key::source(service, policy, self.rule_match(address, service)?.source_prefix, address))
    }

    /// Whether any address counts as the source of `key` at its service. Rules for less than all of that are left out
    /// of account. The source of a translated address is one of IPv4, for which rules for IPv4 say nothing.
    pub fn is_source(&self, policy: &ServicePolicy, key: &Key) -> Result<bool> {
        let services = policy.source.of(&key.addr);
        let network = Network { prefix: key.prefix.into(), addr: key.addr };
        let rule = self.rule(self.active()? as usize, &network)?;
        let own = rule.map_or(0, |rule| rule.source_prefix(&key.addr));
        let by_rule = if own == 0 { services } else { own };
        Ok(key.prefix == by_rule || (key.addr.is_v4() && key.prefix == services))
    }

    /// The rule that counts for all of a network: with a shorter key the trie looks no further.
    fn rule(&self, set: usize, network: &Network) -> Result<Option<Rule>> {
        found(self.rules[set].get(&lpm_trie::Key::new(network.prefix, network.addr), 0)).context(UNREADABLE)
    }

    /// Whether all of a network is allowed, by a rule for it or for one around it.
    pub fn is_allowed(&self, network: &Network) -> Result<bool> {
        let rule = self.rule(self.active()? as usize, network)?;
        Ok(rule.is_some_and(|rule| Action::from_u8(rule.action) == Action::Allow))
    }

    /// The rules in force, by network.
    pub fn rules(&self) -> Result<Vec<RuleEntry>> {
        let set = self.active()? as usize;
        let mut limits: collections::HashMap<u32, Vec<(ServiceId, RuleLimits)>> = collections::HashMap::new();
        walk(&self.whole[set].limits, |key: RuleService, said: RuleLimits| {
            limits.entry(key.rule).or_default().push((ServiceId(key.service as u8), said));
        })
        .context(UNREADABLE)?;
        for limits in limits.values_mut() {
            limits.sort_by_key(|(service, _)| *service);
        }
        let mut rules = Vec::new();
        walk_by_key(&self.whole[set].rules, |network: Network, rule: Rule| {
            let limits = if rule.limited == 0 { None } else { limits.remove(&rule.id) };
            let mut limits = limits.unwrap_or_default();
            let mut all = RuleLimits::connections(rule.max_connections);
            if let Some((ServiceId(0), beside)) = limits.first() {
                all = all.or(beside);
                limits.remove(0);
            }
            rules.push(RuleEntry {
                network,
                action: Action::from_u8(rule.action),
                built_in: rule.origin & Rule::BUILT_IN != 0,
                is_local: rule.is_local(),
                all,
                limits,
                source_prefix: rule.source_prefix,
            });
        })
        .context(UNREADABLE)?;
        rules.sort_by_key(|rule| rule.network);
        Ok(rules)
    }

    /// The policy in force.
    pub fn policy(&self) -> Result<PolicySet> {
        let (ports, services, rules) = (self.ports()?, self.services()?, self.rules()?);
        Ok(PolicySet { ports, services, rules, ladder: self.ladder()?, fingerprint: self.fingerprint()? })
    }

    /// Fingerprint of the configuration that was put in force last; 0 for none.
    pub fn fingerprint(&self) -> Result<u64> {
        Ok(self.layout.get(&FINGERPRINTS[self.active()? as usize], 0)?)
    }

    /// Remembers that another configuration means what is in force.
    pub fn set_fingerprint(&mut self, fingerprint: u64) -> Result<()> {
        let index = FINGERPRINTS[self.active()? as usize];
        self.layout.set(index, fingerprint, 0).context("cannot record which configuration is in force")
    }

    /// Puts `policy` in force, in one step, in the place of the one that is.
    ///
    /// # Errors
    /// When there are more rules than there is room for, or the kernel is short of memory; then the
    /// policy in force stays.
    pub fn replace(&mut self, policy: &PolicySet) -> Result<()> {
        let limits = policy.rules.iter().map(|rule| rule.limits_beside().len()).sum::<usize>();
        ensure!(
            policy.rules.len() <= MAX_RULES as usize && limits <= MAX_RULE_LIMITS as usize,
            "too many rules: {} rules have {limits} limits for single services, or other limits than \
             max_connections, but at most {MAX_RULES} rules and {MAX_RULE_LIMITS} such limits fit; remove \
             some, or set max_connections for all services at once",
            policy.rules.len()
        );
        // Before anything is changed: it shows that waiting works, and nobody looks any more at a set that was in
        // force for a moment only, because what came after it has failed.
        self.grace = Some(Grace::prepare()?);
        let present = self.active.get(&0, 0)?;
        let next = (present as u32 + 1) % SETS;
        self.write(next, policy)?;
        let flag = if policy.rules.iter().any(RuleEntry::has_scope) { SCOPES } else { 0 };
        self.active.set(0, u64::from(next) | flag, 0).context("cannot apply the policy")?;
        self.tell_of_change().or_else(|problem| {
            self.active.set(0, present, 0).with_context(|| {
                format!("the new policy is in force, and cannot be undone ({problem:#}): repeat the command")
            })?;
            // What the shield has seen meanwhile is worth nothing, as far as that can be said.
            let _ = self.tell_of_change();
            Err(problem)
        })
    }

    /// Writes `policy` into a set that is not in force.
    fn write(&mut self, set: u32, policy: &PolicySet) -> Result<()> {
        self.write_rules(set as usize, &policy.rules)?;
        self.ladders.set(set, policy.ladder, 0).context("cannot write the ladder")?;
        let first = set * MAX_SERVICES;
        let mut services = vec![ServicePolicy::default(); MAX_SERVICES as usize];
        for (id, service) in &policy.services {
            services[usize::from(id.0) % MAX_SERVICES as usize] = *service;
        }
        let indices: Vec<u32> = (first..first + MAX_SERVICES).collect();
        bulk::insert(&self.whole_services, &indices, &services).context("cannot write the services")?;
        let first = set * PORT_WORDS;
        let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, &service| word << 8 | u64::from(service));
        let words: Vec<u64> = policy.ports.chunks(8).map(word).collect();
        let indices: Vec<u32> = (first..first + PORT_WORDS).collect();
        bulk::insert(&self.whole_ports, &indices, &words).context("cannot write the ports")?;
        let fingerprint = FINGERPRINTS[set as usize];
        self.layout.set(fingerprint, policy.fingerprint, 0).context("cannot record which configuration it is")
    }

    /// Which change made by hand was the last: the same number as long as there was none.
    pub fn change(&self) -> Result<u64> {
        self.change.get(&0, 0).context("cannot tell whether the policy has changed")
    }

    /// Finds out that [`Self::tell_of_change`] works, before a change is made.
    pub(super) fn prepare_to_tell(&mut self) -> Result<()> {
        if self.grace.is_none() {
            self.grace = Some(Grace::prepare()?);
        }
        Ok(())
    }

    /// Waits until nobody looks at what was in force before a change that was just made, and makes worthless what
    /// the shield remembers of it.
    pub(super) fn tell_of_change(&mut self) -> Result<()> {
        // In this order: who sees the new number has begun after the change was made.
        let waited = match &self.grace {
            Some(grace) => grace.wait(),
            None => Grace::prepare().map(|grace| self.grace = Some(grace)),
        };
        // Others may change something else at the same time, so the number is not the next one but one that nobody
        // had before.
        let number = RandomState::new().hash_one(std::process::id());
        // Also where it could not be waited: who then remembers a verdict of before is one that was under way.
        let told = self.change.set(0, number, 0).context("cannot invalidate the drop cache");
        waited.and(told)
    }

    /// Makes `rules` those of `set`, which is in force for nobody; what is there and right already stays.
    fn write_rules(&mut self, set: usize, rules: &[RuleEntry]) -> Result<()> {
        let whole = &self.whole[set];
        let (mut wanted, mut limits) = (collections::HashMap::new(), collections::HashMap::new());
        // Only rules with limits beside them have to be told apart.
        let mut last_id = 0;
        for entry in rules {
            let beside = entry.limits_beside();
            let id = if beside.is_empty() { 0 } else { last_id + 1 };
            last_id = last_id.max(id);
            let mut limited = 0;
            for (service, said) in beside {
                limited |= 1 << (service & 63);
                limits.insert(RuleService { rule: id, service }, said);
            }
            let rule = Rule {
                limited,
                id,
                max_connections: entry.all.max_connections,
                action: entry.action as u8,
                origin: if entry.built_in { Rule::BUILT_IN } else { 0 }
                    | if entry.is_local { Rule::LOCAL } else { 0 },
                source_prefix: entry.source_prefix,
                zero: [0; 4],
            };
            wanted.insert(entry.network, rule);
        }
        let mut gone = Vec::new();
        walk_by_key(&whole.rules, |network: Network, rule: Rule| {
            keep(&mut wanted, &mut gone, network, &rule);
        })
        .context(UNREADABLE)?;
        bulk::remove(&whole.rules, &gone).context("cannot remove a rule")?;
        let mut words = vec![0; coverage::WORDS as usize];
        for region in rules.iter().flat_map(|rule| coverage::regions(&rule.network)) {
            let (word, bit) = coverage::bit(region);
            words[word as usize] |= bit;
        }
        let first = set as u32 * coverage::WORDS;
        let indices: Vec<u32> = (first..first + coverage::WORDS).collect();
        bulk::insert(&self.coverage, &indices, &words).context("cannot write the regions that have rules")?;
        let (networks, entries) = sorted(wanted);
        bulk::insert(&whole.rules, &networks, &entries).context("cannot add a rule")?;
        let mut gone = Vec::new();
        walk(&whole.limits, |key: RuleService, said: RuleLimits| keep(&mut limits, &mut gone, key, &said))
            .context(UNREADABLE)?;
        bulk::remove(&whole.limits, &gone).context("cannot remove the limit of a rule")?;
        let (keys, limits) = sorted(limits);
        bulk::insert(&whole.limits, &keys, &limits).context("cannot add the limit of a rule")
    }
}

/// Takes what is there from what is to be written, or notes that it has to go.
fn keep<K: std::hash::Hash + Eq, V: PartialEq>(
    wanted: &mut collections::HashMap<K, V>,
    gone: &mut Vec<K>,
    key: K,
    value: &V,
) {
    match wanted.get(&key) {
        Some(same) if same == value => drop(wanted.remove(&key)),
        // It is written over.
        Some(_) => {}
        None => gone.push(key),
    }
}

/// In the order of the keys, so that neighbours are written after each other.
fn sorted<K: Ord + Copy, V: Copy>(entries: collections::HashMap<K, V>) -> (Vec<K>, Vec<V>) {
    let mut entries: Vec<(K, V)> = entries.into_iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries.into_iter().unzip()
}
