// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the kernel's maps say has become of each source since the last look.

use std::{collections::HashMap, path::PathBuf};

use anyhow::Result;
use ipnet::IpNet;
use limiter_common::{Addr, Count, Entry, Key, Penalty, ServiceId, ServicePolicy, census::kind};

use super::{
    baselines::{self, Baselines},
    clock,
    durations::{Connections, Ended},
    row::{Quarter, REASONS},
    users::Users,
};
use crate::{
    instance::Instance,
    kernel::{census, maintenance::Maintenance, sets::RuleEntry},
    ledger,
    policy::Lookup,
};

/// So many looks after the last time, what the ledger has forgotten is forgotten.
const SWEEP_EVERY: u32 = 30;

/// Looks at the maps.
pub struct Sampler {
    pins: PathBuf,
    maintenance: Maintenance,
    baselines: Baselines,
    /// How often each source had been refused at the last look, by reason.
    refused: HashMap<Key, [u32; REASONS]>,
    /// When that was, in seconds since 1970.
    looked_s: i64,
    connections: Connections,
    /// The rules, and the change since which they are as they are.
    rules: Option<(u64, Vec<RuleEntry>)>,
    users: Option<Users>,
    looks: u32,
}

/// Whether an entry is one source's own.
fn is_of_one_source(key: &Key, entry: &Entry) -> bool {
    !key.is_network() && !key.is_shared() && entry.count != Count::COLLECTED
}

impl Sampler {
    /// Begins with what there is now: what happened before is not known.
    pub fn new(instance: &Instance, users: Option<Users>) -> Result<Self> {
        let pins = instance.pins();
        let mut sampler = Self {
            maintenance: Maintenance::open(instance, &pins)?,
            pins,
            baselines: Baselines::default(),
            refused: HashMap::new(),
            looked_s: clock::now_s(),
            connections: Connections::default(),
            rules: None,
            users,
            looks: 0,
        };
        let mut over = Vec::new();
        let Self { maintenance, baselines, .. } = &mut sampler;
        maintenance.tables.each_source(|key, entry| {
            if is_of_one_source(&key, &entry) {
                baselines.learn(&key, &entry);
                if baselines::is_over(&entry) {
                    over.push((key, entry.recent_peak));
                }
            }
        })?;
        maintenance.begin_peaks(over.into_iter())?;
        sampler.refused = sampler.penalties()?.map(|(key, refused, _)| (key, refused)).collect();
        let _before = sampler.ended(&HashMap::new())?;
        if let Some(users) = &sampler.users {
            users.take();
        }
        Ok(sampler)
    }

    /// What has become of each source since the last look.
    pub fn look(&mut self, remember_s: u32) -> Result<Vec<Quarter>> {
        let (now_s, boot_ns) = (clock::now_s(), ledger::now_ns()?);
        let services: HashMap<ServiceId, ServicePolicy> =
            self.maintenance.tables.policy.services()?.into_iter().collect();
        let mut parts: HashMap<Key, Quarter> = HashMap::new();
        let part = |key: &Key| -> Option<Quarter> {
            let policy = services.get(&ServiceId(key.service))?;
            let source = IpNet::new(key.addr.to_ip(), key.prefix_len()).ok()?;
            Some(Quarter::new(0, 1, policy.name(), source))
        };
        let mut accepted: HashMap<Key, u64> = HashMap::new();
        for (key, entry) in self.active()? {
            let change = self.baselines.change(&key, &entry, remember_s);
            if change.accepted > 0 {
                accepted.insert(key, change.accepted.into());
            }
            if let Some(mut quarter) = part(&key) {
                change.add_to(&mut quarter);
                // Some time since the last look.
                quarter.last_refused = (change.refused > 0).then_some(now_s);
                parts.insert(key, quarter);
            }
        }
        self.baselines.end_look();
        let refused: Vec<_> = self.penalties()?.collect();
        for (key, now, refused_ns) in &refused {
            let before = self.refused.get(key).copied().unwrap_or_default();
            let mut since = [0; REASONS];
            for (since, (now, before)) in since.iter_mut().zip(now.iter().zip(before)) {
                // It was forgotten meanwhile, and began at 0 again.
                let more = now.wrapping_sub(before);
                *since = u64::from(if more > u32::MAX / 2 { *now } else { more });
            }
            if since.iter().any(|times| *times > 0)
                && let Some(quarter) = entry(&mut parts, key, part)
            {
                quarter.refused = quarter.refused.max(since.iter().sum());
                quarter.refused_for = since;
                quarter.last_refused = Some(at(*refused_ns, (now_s, boot_ns), self.looked_s));
            }
        }
        self.refused = refused.into_iter().map(|(key, refused, _)| (key, refused)).collect();
        self.looked_s = now_s;
        let ended = self.ended(&accepted)?;
        for (key, durations) in ended.iter().flat_map(Ended::by_key) {
            if let Some(quarter) = entry(&mut parts, key, part) {
                quarter.durations = Some(*durations);
            }
        }
        for (service, address, user) in self.users.as_ref().map(Users::take).unwrap_or_default() {
            let Some((id, policy)) = services.iter().find(|(_, policy)| policy.name() == service) else {
                continue;
            };
            let key = self.maintenance.tables.policy.source(*id, policy, &Addr::from(address))?;
            if let Some(quarter) = entry(&mut parts, &key, part) {
                quarter.names.push(user);
            }
        }
        self.add_limits(&mut parts, &services)?;
        if ended.is_some() {
            for quarter in parts.values_mut() {
                quarter.durations.get_or_insert_default();
            }
        }
        self.looks += 1;
        if self.looks.is_multiple_of(SWEEP_EVERY) {
            let Self { maintenance, baselines, .. } = self;
            baselines.keep(|see| maintenance.tables.each_source(|key, _| see(&key)))?;
        }
        Ok(parts.into_values().collect())
    }

    /// The sources that are not idle. Their recent peaks begin anew; what comes between look and beginning, and is no higher,
    /// counts for the time before.
    fn active(&mut self) -> Result<Vec<(Key, Entry)>> {
        let mut active = Vec::new();
        self.maintenance.tables.each_source(|key, entry| {
            if is_of_one_source(&key, &entry) && baselines::is_active(&entry) {
                active.push((key, entry));
            }
        })?;
        let over = active.iter().filter(|(_, entry)| baselines::is_over(entry));
        self.maintenance.begin_peaks(over.map(|(key, entry)| (*key, entry.recent_peak)))?;
        Ok(active)
    }

    /// How often each source was refused, by reason, and when last.
    fn penalties(&self) -> Result<impl Iterator<Item = (Key, [u32; REASONS], u64)> + use<>> {
        let by_reason = |(key, penalty): (Key, Penalty)| {
            let mut refused = [0; REASONS];
            for (one, times) in refused.iter_mut().zip(penalty.refused) {
                *one = times;
            }
            (key, refused, penalty.refused_ns)
        };
        let penalties = self.maintenance.tables.penalties()?.into_iter();
        Ok(penalties.map(by_reason).filter(|(_, refused, _)| *refused != [0; REASONS]))
    }

    /// The connections that ended, where so many began. None where that is not known.
    fn ended(&mut self, accepted: &HashMap<Key, u64>) -> Result<Option<Ended>> {
        let now_s = ledger::now_s()?;
        let Some(sockets) = census::take(&self.pins, &self.maintenance.tables)? else { return Ok(None) };
        // After the census: who has come since has a record, and is seen the next time.
        let records = self.maintenance.tables.records()?;
        let counted = sockets.iter().filter(|socket| socket.kind == kind::COUNTED).map(|socket| {
            let since_s = records.get(&socket.cookie).map(|record| record.since_s);
            (socket.cookie, socket.count_keys.source, since_s)
        });
        let kept = self.maintenance.tables.kept()?;
        let kept = kept.iter().map(|(cookie, kept)| (*cookie, kept.count_keys().source, Some(kept.since_s)));
        Ok(Some(self.connections.look(now_s, counted.chain(kept), accepted)))
    }

    /// Adds the limit that is in force for each.
    fn add_limits(
        &mut self,
        parts: &mut HashMap<Key, Quarter>,
        services: &HashMap<ServiceId, ServicePolicy>,
    ) -> Result<()> {
        let change = self.maintenance.tables.policy.change()?;
        let rules = match self.rules.take() {
            Some((known, rules)) if known == change => rules,
            _ => self.maintenance.tables.policy.rules()?,
        };
        let lookup = Lookup::new(&rules);
        for (key, quarter) in parts {
            if let Some(policy) = policy_of(services, key) {
                quarter.limit = ledger::limit_of(key, policy, &lookup);
            }
        }
        self.rules = Some((change, rules));
        Ok(())
    }
}

/// When a source was refused, on the clock on the wall, that was refused at `refused_ns` at last and again since a look at
/// `looked_s`. The drops of the shield have no time: then it was since that look.
fn at(refused_ns: u64, (now_s, boot_ns): (i64, u64), looked_s: i64) -> i64 {
    let ago_s = i64::try_from(boot_ns.saturating_sub(refused_ns) / 1_000_000_000).unwrap_or(i64::MAX);
    let at_s = now_s.saturating_sub(ago_s);
    if at_s < looked_s { now_s } else { at_s }
}

fn policy_of<'a>(services: &'a HashMap<ServiceId, ServicePolicy>, key: &Key) -> Option<&'a ServicePolicy> {
    services.get(&ServiceId(key.service))
}

/// What is known of a source so far.
fn entry<'a>(
    parts: &'a mut HashMap<Key, Quarter>,
    key: &Key,
    part: impl Fn(&Key) -> Option<Quarter>,
) -> Option<&'a mut Quarter> {
    if !parts.contains_key(key) {
        parts.insert(*key, part(key)?);
    }
    parts.get_mut(key)
}

#[cfg(test)]
mod tests {
    use super::at;

    #[test]
    fn a_refusal_has_its_time_or_that_of_the_look_after_it() {
        let now = (10_000, 500_000_000_000);
        assert_eq!(at(480_500_000_000, now, 9_940), 9_981);
        assert_eq!(at(500_000_000_000, now, 9_940), 10_000);
        // It is older than the last look: what came since was dropped by the shield.
        assert_eq!(at(100_000_000_000, now, 9_940), 10_000);
        assert_eq!(at(0, now, 9_940), 10_000);
    }
}
