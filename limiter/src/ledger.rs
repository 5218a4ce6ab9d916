// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ledger as people see it, and its upkeep.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context as _, Result};
use limiter_common::{
    Action, Count, CountKeys, Entry, Key, Limits, Penalty, Reason, RuleMatch, ServiceId, ServicePolicy,
    Usage, key::Level, rule::Network, verdict::Beyond, waiting,
};
use serde::Serialize;

use crate::{
    kernel::{Tables, maintenance::Maintenance, sets::RuleEntry},
    policy::{self, Lookup},
};

/// One source, or one network, at one service.
#[derive(Debug, Serialize)]
pub struct Source {
    /// The service's name.
    pub service: String,
    /// `source`, `network`, or `shared` for sources without an entry of their own.
    pub tier: &'static str,
    /// The source, as people write networks.
    pub source: String,
    /// Established connections.
    pub connections: u32,
    /// Handshakes that hold a place this very moment.
    pub reserved: u32,
    /// Handshakes that are complete but for a place, and wait for one.
    pub waiting: u32,
    /// Seconds that the first of them has waited; 0 where none does.
    pub waiting_seconds: f64,
    /// The limit in force for it, 0 where it is denied; none where it is allowed.
    pub limit: Option<u32>,
    /// The network whose rule says so; none where it is the service's own limit.
    pub rule: Option<String>,
    /// Whether a part of it has a rule of its own.
    pub divided: bool,
    /// The most connections at one time.
    pub peak: u32,
    /// Connections counted since the source is known; after 4,294,967,295 it begins at 0 again.
    pub accepted: u64,
    /// How often it was refused since it is known, or as far back as it is remembered: whichever is more.
    pub refused: u64,
    /// How often for which reason, and when last.
    #[serde(flatten)]
    pub refusals: Refusals,
    /// Connections let through that would have been refused, if the service did not only observe.
    pub would_refuse: u32,
    /// Completing ACKs held back since the source is known.
    pub held: u32,
    /// Seconds since a connection came or went.
    pub idle_seconds: u32,
}

impl Source {
    /// What is known of a source, in words. Its limit is what `rules` and `policy` make of it.
    pub fn new(
        key: &Key,
        entry: &Entry,
        refusals: Refusals,
        policy: Option<&ServicePolicy>,
        rules: &Lookup<'_>,
        now: u32,
    ) -> Self {
        let network = Network { prefix: key.prefix.into(), addr: key.addr };
        let rule = rule_for(key, rules);
        let rule_match = rule_match(key, rule);
        let limit = policy.and_then(|policy| limit(key, policy, &rule_match));
        // What is built in is no rule that anybody has made; what a rule does not say, the service does.
        let is_by_rule = rule_match.action != Action::Limit
            || key.is_network()
            || rule_match.limits.max_connections.is_set();
        let rule = rule.filter(|rule| !rule.built_in && is_by_rule);
        Self {
            tier: match key {
                key if key.is_network() => "network",
                key if key.is_shared() => "shared",
                _ => "source",
            },
            service: policy
                .map_or_else(|| format!("(removed {})", key.service), |policy| policy.name().to_owned()),
            source: key.addresses().to_string(),
            connections: entry.count.connections(),
            reserved: entry.count.reserved(),
            waiting: 0,
            waiting_seconds: 0.0,
            limit,
            rule: rule.map(|rule| rule.network.to_string()),
            divided: !key.is_network() && !key.is_shared() && rules.is_divided(&network),
            peak: entry.peak,
            accepted: entry.accepted.into(),
            refused: refusals.at_least(entry),
            refusals,
            would_refuse: entry.would_refuse,
            held: entry.held,
            idle_seconds: now.saturating_sub(entry.last_seen_s),
        }
    }
}

/// The limit in force for what is counted under `key`, 0 where it is denied; none where it is allowed.
pub fn limit_of(key: &Key, policy: &ServicePolicy, rules: &Lookup<'_>) -> Option<u32> {
    limit(key, policy, &rule_match(key, rule_for(key, rules)))
}

/// The rule for all that is counted under `key`.
fn rule_for<'a>(key: &Key, rules: &Lookup<'a>) -> Option<&'a RuleEntry> {
    let network = Network { prefix: key.prefix.into(), addr: key.addr };
    let rule = rules.covering(&network).filter(|_| !key.is_shared());
    // Of a network it is what a rule for all of it says of networks.
    rule.filter(|rule| {
        let limits = policy::rule_match(rule, ServiceId(key.service)).limits;
        !key.is_network() || (rule.action == Action::Limit && limits.network.is_set())
    })
}

fn rule_match(key: &Key, rule: Option<&RuleEntry>) -> RuleMatch {
    match rule {
        Some(rule) => policy::rule_match(rule, ServiceId(key.service)),
        None if key.addr.is_loopback() => RuleMatch::ALLOW,
        None => RuleMatch::NONE,
    }
}

fn limit(key: &Key, policy: &ServicePolicy, rule_match: &RuleMatch) -> Option<u32> {
    let limits = Limits::of(policy, rule_match);
    let of_source = limits.within(&CountKeys { source: *key, network: Key::NONE });
    let limit = if key.is_network() { limits.network } else { of_source.source };
    if of_source.denied { Some(0) } else { Some(limit).filter(|&limit| limit != u32::MAX) }
}

/// How a source was refused, as far as it is remembered: for `remember_seconds`, of sources that were told why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Refusals {
    /// How often, by [`Reason`].
    pub refused_for: BTreeMap<&'static str, u32>,
    /// The reason of the last one; none if none is remembered.
    #[cfg_attr(test, schemars(schema_with = "crate::schema::reason_or_null"))]
    pub last_refused_for: Option<Reason>,
    /// Seconds since the last one.
    pub last_refused_seconds: Option<u64>,
}

impl Refusals {
    /// What `penalty` says at `now_ns`.
    pub fn of(penalty: &Penalty, now_ns: u64) -> Self {
        let times = Reason::ALL.into_iter().map(|reason| (reason.name(), penalty.refused[reason as usize]));
        let last = (penalty.refused_ns != 0).then_some(penalty);
        Self {
            refused_for: times.filter(|(_, times)| *times > 0).collect(),
            last_refused_for: last.map(|penalty| Reason::from_u8(penalty.refused_for as u8)),
            last_refused_seconds: last
                .map(|penalty| now_ns.saturating_sub(penalty.refused_ns) / 1_000_000_000),
        }
    }

    /// How often in all.
    pub fn times(&self) -> u64 {
        self.refused_for.values().map(|times| u64::from(*times)).sum()
    }

    /// How often at least, where `entry` counts as well: there, those that were told nothing; here, those without a
    /// connection.
    pub fn at_least(&self, entry: &Entry) -> u64 {
        self.times().max(entry.refused.into())
    }
}

/// Whose count a key is of, in words.
pub fn counted(key: &Key) -> String {
    if key.is_total() {
        format!("service {} as a whole", key.service)
    } else {
        format!("{} at service {}", key.addresses(), key.service)
    }
}

/// Those that wait under one count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub count: u32,
    /// Since when the first does, in nanoseconds of `CLOCK_MONOTONIC`; 0 where none does.
    since_ns: u64,
}

impl Waiting {
    /// So many, the first since then.
    #[cfg(test)]
    pub const fn new(count: u32, since_ns: u64) -> Self {
        Self { count, since_ns }
    }

    /// How long the first has waited, at `now_ns` of `CLOCK_MONOTONIC`, in seconds with one decimal.
    #[must_use]
    pub fn seconds(&self, now_ns: u64) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let tenths = u32::try_from(now_ns.saturating_sub(self.since_ns) / 100_000_000).unwrap_or(u32::MAX);
        f64::from(tenths) / 10.0
    }
}

/// Nobody waits for longer while a daemon is there: the longest `wait`, and some seconds for one that is slow. The kernel
/// gives a handshake up earlier (`net.ipv4.tcp_synack_retries`); without a daemon the record of one stays.
pub const LONGEST_WAIT_NS: u64 = 90_000_000_000;

/// Who waits: those of each source, each network, and each service.
pub fn waiting(tables: &Tables) -> Result<HashMap<Key, Waiting>> {
    let mut waiting: HashMap<Key, Waiting> = HashMap::new();
    let now_ns = monotonic_ns()?;
    for (flow, waiter) in tables.waiters()? {
        if !waiting::is_marked(waiter.word) || now_ns.saturating_sub(waiter.since_ns) > LONGEST_WAIT_NS {
            continue;
        }
        let count_keys = waiter.record.count_keys(&flow.remote);
        let of_network = count_keys.has_network().then_some(count_keys.network);
        for key in [Some(count_keys.source), of_network, Some(Key::total(count_keys.service()))]
            .into_iter()
            .flatten()
        {
            let those = waiting.entry(key).or_insert(Waiting { count: 0, since_ns: u64::MAX });
            those.count += 1;
            those.since_ns = those.since_ns.min(waiter.since_ns);
        }
    }
    Ok(waiting)
}

/// Every source in the ledger or that was refused lately, by its address.
pub fn sources(tables: &Tables) -> Result<Vec<Source>> {
    let waiting = waiting(tables)?;
    let services: HashMap<ServiceId, ServicePolicy> = tables.policy.services()?.into_iter().collect();
    let rules = tables.policy.rules()?;
    let rules = Lookup::new(&rules);
    let (now, now_ns, boot_ns) = (now_s()?, monotonic_ns()?, self::now_ns()?);
    let mut known: BTreeMap<_, (Key, Entry, Penalty)> = BTreeMap::new();
    // As people count: 9 comes before 10.
    let order = |key: &Key| (key.addr.to_ip(), key.prefix, key.tier, key.level, key.service);
    for (key, penalty) in tables.penalties()?.into_iter().filter(|(_, penalty)| penalty.refused_ns != 0) {
        // Who was refused for others' connections may have had none.
        let idle_s = boot_ns.saturating_sub(penalty.refused_ns) / 1_000_000_000;
        let last_seen_s = now.saturating_sub(u32::try_from(idle_s).unwrap_or(u32::MAX));
        known.insert(order(&key), (key, Entry { last_seen_s, ..Entry::default() }, penalty));
    }
    for (key, entry) in tables.sources()?.into_iter().filter(|(_, entry)| entry.count != Count::COLLECTED) {
        known.entry(order(&key)).or_insert((key, entry, Penalty::default())).1 = entry;
    }
    let source = |(key, entry, penalty): (Key, Entry, Penalty)| {
        let waiting = waiting.get(&key).copied().unwrap_or_default();
        let (policy, refusals) = (services.get(&ServiceId(key.service)), Refusals::of(&penalty, boot_ns));
        Source {
            waiting: waiting.count,
            waiting_seconds: waiting.seconds(now_ns),
            ..Source::new(&key, &entry, refusals, policy, &rules, now)
        }
    };
    Ok(known.into_values().map(source).collect())
}

/// What the source of `count_keys` is counted in at this moment, as the kernel looks at it: its own entry, or, while there is
/// no room for one, the one that it would share with others.
pub fn present(tables: &Tables, count_keys: CountKeys) -> Result<CountKeys> {
    if tables.source(&count_keys.source)?.is_some() || !tables.is_full(now_s()?)? {
        return Ok(count_keys);
    }
    for shared in Level::ALL.into_iter().filter_map(|level| count_keys.shared(level)) {
        if tables.source(&shared.source)?.is_some() {
            return Ok(shared);
        }
    }
    Ok(count_keys)
}

/// Where the `source` stands that is counted in `count_keys`; zeros for what is not known.
pub fn usage(tables: &Tables, source: &Key, count_keys: &CountKeys) -> Result<Usage> {
    let penalty = tables.penalty(source)?.unwrap_or_default();
    Ok(Usage {
        banned_until_ns: penalty.banned_until_ns,
        replies_due_ns: penalty.replies_due_ns,
        total: tables.total(count_keys.service())?,
        ..counts(tables, count_keys)?
    })
}

/// The same, without the ladder and the whole service.
pub fn counts(tables: &Tables, count_keys: &CountKeys) -> Result<Usage> {
    let entry = |key: &Key| -> Result<Entry> {
        let entry = tables.source(key)?.unwrap_or_default();
        Ok(if entry.count == Count::COLLECTED { Entry::default() } else { entry })
    };
    let of_source = entry(&count_keys.source)?;
    let of_network = if count_keys.has_network() { entry(&count_keys.network)? } else { Entry::default() };
    Ok(Usage {
        source: of_source.count,
        network: of_network.count,
        due_ns: of_source.due_ns,
        ..Usage::default()
    })
}

/// Connections in the counts of `count_keys` that were let through beyond limits, where refusals are only counted.
pub fn beyond(tables: &Tables, count_keys: &CountKeys) -> Result<Beyond> {
    let of = |key: &Key| Ok::<_, anyhow::Error>(tables.source(key)?.unwrap_or_default().beyond);
    Ok(Beyond {
        source: of(&count_keys.source)?,
        network: if count_keys.has_network() { of(&count_keys.network)? } else { 0 },
        total: tables.total_beyond(count_keys.service())?,
    })
}

/// Nanoseconds of `CLOCK_BOOTTIME`, the clock of [`Entry::due_ns`].
pub fn now_ns() -> Result<u64> {
    let now =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).context("cannot read the clock")?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of [`limiter_common::Waiter::since_ns`].
pub fn monotonic_ns() -> Result<u64> {
    let now =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Seconds of `CLOCK_MONOTONIC`, the clock of [`Entry::last_seen_s`].
pub fn now_s() -> Result<u32> {
    Ok(u32::try_from(monotonic_ns()? / 1_000_000_000).unwrap_or(u32::MAX))
}

/// Deletes sources that hold no connection and were last seen longer than `idle` ago; returns how
/// many. The kernel side makes sure that no count is lost.
pub fn collect(maintenance: &mut Maintenance, idle: Duration) -> Result<u32> {
    let (now, now_ns) = (now_s()?, now_ns()?);
    let idle = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
    let long_gone = |entry: &Entry| {
        if entry.count == Count::COLLECTED {
            return true;
        }
        // What is not due yet has handshakes to pay for: forgotten, they would be free.
        entry.count == Count(0) && entry.due_ns <= now_ns && now.saturating_sub(entry.last_seen_s) >= idle
    };
    let (mut keys, mut has_networks) = (Vec::new(), false);
    maintenance.tables.each_source(|key, entry| {
        if long_gone(&entry) {
            has_networks |= key.is_network();
            keys.push(key);
        }
    })?;
    if has_networks {
        // Who waits for a place of its source is marked there, and takes its mark back only where all of its counts are
        // there: its network's may be 0.
        let waiters = maintenance.tables.waiters()?;
        let networks: HashSet<Key> =
            waiters.iter().map(|(flow, waiter)| waiter.record.count_keys(&flow.remote).network).collect();
        keys.retain(|key| !networks.contains(key));
    }
    maintenance.collect(&keys)
}
