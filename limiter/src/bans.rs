// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bans: who is banned, by whom, and for how long. The kernel makes those of the ladder and lets all of
//! them end by themselves; here they are read, made and ended by hand, kept over a restart of the host, and
//! forgotten when nothing of them matters any more.

pub mod by_hand;
pub mod journal;
pub mod state;
mod upkeep;

use std::collections::HashSet;

use anyhow::{Result, ensure};
use limiter_common::{
    Addr, Cause, Key, Ladder, Mode, Penalty, ServiceId, ServicePolicy, rule::Network, service::Prefixes,
};
use serde::Serialize;

pub use upkeep::Upkeep;

use crate::{
    kernel::Tables,
    ledger,
    policy::{self, Services},
};

/// A ban in force.
#[derive(Clone, Debug, Serialize)]
pub struct Ban {
    /// The service it is banned from.
    pub service: String,
    /// The network it is counted as.
    pub source: String,
    /// Seconds until it ends, 1 at least.
    pub left_seconds: u64,
    /// Seconds since it began.
    pub since_seconds: u64,
    /// Who made it: `ladder` or `admin`.
    pub reason: Cause,
    /// How many bans in a row the ladder made of it, this one included.
    pub bans: u32,
    /// Packets dropped since it was banned first.
    pub dropped: u64,
}

/// A ban that does not hold at present, but may hold again before it ends.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// The ban.
    #[serde(flatten)]
    pub ban: Ban,
    /// Why it does not hold.
    pub because: String,
}

/// All bans that have not ended, the one that ends first first.
#[derive(Debug, Default, Serialize)]
pub struct Bans {
    /// Those in force.
    pub bans: Vec<Ban>,
    /// Those that do not hold at present.
    pub not_in_force: Vec<Idle>,
}

/// The bans that have not ended.
pub fn all(tables: &Tables) -> Result<Bans> {
    let now_ns = ledger::now_ns()?;
    let services = tables.policy.services()?;
    let mut penalties: Vec<_> = tables.penalties()?;
    // In this order what is noted meanwhile is missed, and nothing counted twice.
    let uncounted = tables.uncounted_drops()?;
    penalties.retain(|(_, penalty)| penalty.is_banned(now_ns));
    penalties.sort_by_key(|(key, penalty)| (penalty.banned_until_ns, key.addr.to_ip(), key.service));
    let mut all = Bans::default();
    for (key, penalty) in penalties {
        let Some(policy) = policy::by_id(&services, ServiceId(key.service)) else { continue };
        let ban = Ban {
            service: policy.name().to_owned(),
            source: key.addresses().to_string(),
            left_seconds: (penalty.banned_until_ns - now_ns).div_ceil(1_000_000_000),
            since_seconds: now_ns.saturating_sub(penalty.banned_at_ns) / 1_000_000_000,
            reason: Cause::from_u32(penalty.cause),
            bans: penalty.bans,
            dropped: penalty.dropped + uncounted.of(&key, &penalty),
        };
        match idle(tables, &services, &key)? {
            None => all.bans.push(ban),
            Some(because) => all.not_in_force.push(Idle { ban, because }),
        }
    }
    Ok(all)
}

/// Why a ban of `key` does not hold; none if it does.
fn idle(tables: &Tables, services: &Services, key: &Key) -> Result<Option<String>> {
    let service = ServiceId(key.service);
    let Some(policy) = policy::by_id(services, service) else {
        return Ok(Some("the service no longer exists".to_owned()));
    };
    // The kernel looks up no other.
    if !tables.policy.is_source(policy, key)? {
        let now = tables.policy.source(service, policy, &key.addr)?;
        return Ok(Some(format!("a source is now a /{}", now.prefix_len())));
    }
    let network = Network { prefix: key.prefix.into(), addr: key.addr };
    if tables.policy.is_allowed(&network)? {
        return Ok(Some("a rule allows it".to_owned()));
    }
    let observes = Mode::from_u8(policy.mode) == Mode::Observe;
    Ok(observes.then(|| "the service is in observe mode".to_owned()))
}

/// The keys of all bans that have not ended.
fn banned(tables: &Tables) -> Result<HashSet<Key>> {
    let now_ns = ledger::now_ns()?;
    let penalties = tables.penalties()?.into_iter();
    Ok(penalties.filter(|(_, penalty)| penalty.is_banned(now_ns)).map(|(key, _)| key).collect())
}

/// Of the `banned`, the keys at one service that `address` is in, whatever made a source when it was banned.
fn covering(banned: &HashSet<Key>, service: ServiceId, policy: &ServicePolicy, address: &Addr) -> Vec<Key> {
    let mut keys = Vec::new();
    for length in 0..=128_u8 {
        let policy = ServicePolicy { source: Prefixes { ipv4: length.min(32), ipv6: length }, ..*policy };
        let key = Key::source(service, &policy, 0, address);
        if keys.last() != Some(&key) && banned.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// Bans the sources of `keys` until `until_ns`. Where there is no room, sources that were only refused are forgotten, then
/// the oldest bans that the ladder made are given up.
///
/// # Errors
/// When so many bans made by hand are in force that there is no room for these, or the kernel is short of memory; then
/// nothing has changed.
fn ban(tables: &mut Tables, keys: &[Key], until_ns: u64) -> Result<()> {
    let now_ns = ledger::now_ns()?;
    let uncounted = tables.uncounted_drops()?;
    let mut bans = Vec::with_capacity(keys.len());
    for key in keys {
        let before = tables.penalty(key)?.unwrap_or_default();
        // What it had left of replies counts from anew when the ban ends, as after a ban of the ladder.
        let penalty = Penalty {
            replies_due_ns: 0,
            ban_due_ns: 0,
            banned_until_ns: until_ns,
            banned_at_ns: now_ns,
            cause: Cause::Admin as u32,
            dropped: before.dropped + uncounted.of(key, &before),
            ..before
        };
        bans.push((*key, penalty));
    }
    let (max, ladder) = (tables.max_bans()? as usize, tables.policy.ladder()?);
    let mut others = tables.penalties()?;
    let is_banned: HashSet<_> = keys.iter().collect();
    others.retain(|(key, _)| !is_banned.contains(key));
    let by_hand = others
        .iter()
        .filter(|(_, penalty)| penalty.is_banned(now_ns) && penalty.cause == Cause::Admin as u32)
        .count();
    ensure!(
        by_hand + keys.len() <= max,
        "no room for {} more bans: {by_hand} bans made by the admin are in force, and max_bans is {max}; end \
         some with `limiter unban ADDR`, or raise max_bans in [ladder] and restart the daemon",
        keys.len()
    );
    let given_up = beyond(&others, max - keys.len(), max, &ladder, now_ns);
    tables.change_penalties(|penalties| {
        given_up.iter().try_for_each(|key| penalties.remove(key))?;
        bans.iter().try_for_each(|(key, penalty)| penalties.set(key, penalty))
    })
}

/// Ends every ban of the sources that these keys mean, and forgets that they were ever refused.
fn unban(tables: &mut Tables, keys: &[Key]) -> Result<()> {
    tables.change_penalties(|penalties| keys.iter().try_for_each(|key| penalties.remove(key)))
}

/// Whom to give up so that of `penalties` at most `bans` are banned at `now_ns`, and at most `refused` others are remembered:
/// the oldest of each, but nobody who was banned by hand.
fn beyond(
    penalties: &[(Key, Penalty)],
    bans: usize,
    refused: usize,
    ladder: &Ladder,
    now_ns: u64,
) -> Vec<Key> {
    let (banned, others): (Vec<_>, Vec<_>) =
        penalties.iter().copied().partition(|(_, penalty)| penalty.is_banned(now_ns));
    let over = [banned.len().saturating_sub(bans), others.len().saturating_sub(refused)];
    let ladders = banned.into_iter().filter(|(_, penalty)| penalty.cause != Cause::Admin as u32).collect();
    let oldest = |mut among: Vec<(Key, Penalty)>, n: usize| {
        among.sort_by_key(|(_, penalty)| penalty.since_ns(ladder));
        among.into_iter().take(n).map(|(key, _)| key).collect::<Vec<_>>()
    };
    [oldest(ladders, over[0]), oldest(others, over[1])].concat()
}

#[cfg(test)]
mod tests {
    use limiter_common::{Addr, Rate};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Nobody loses a ban to others that were only refused, and no ban by hand goes for any.
        #[test]
        fn what_is_given_up_is_the_oldest_of_its_kind_and_never_a_ban_by_hand(
            kinds in prop::collection::vec(0u8..3, 0..60), bans in 0usize..40, refused in 0usize..40,
        ) {
            const NOW: u64 = 1_000_000_000_000;
            let ladder = Ladder { replies: Rate::new(20, 60, 20), ..Ladder::default() };
            let penalties: Vec<_> = (0_u32..).zip(&kinds).map(|(nth, kind)| {
                let since = u64::from(nth) * 1_000_000_000;
                let penalty = match kind {
                    0 => Penalty { replies_due_ns: since + ladder.replies.tolerance_ns, ..Penalty::default() },
                    kind => Penalty {
                        banned_at_ns: since, banned_until_ns: NOW + 1,
                        cause: if *kind == 1 { Cause::Ladder as u32 } else { Cause::Admin as u32 }, ..Penalty::default()
                    },
                };
                (Key { addr: Addr([0, 0, 0, nth]), service: 1, ..Key::default() }, penalty)
            }).collect();
            let gone: Vec<u32> = beyond(&penalties, bans, refused, &ladder, NOW).iter().map(|key| key.addr.0[3]).collect();
            let of = |wanted: u8| (0_u32..).zip(&kinds).filter(move |(_, kind)| **kind == wanted).map(|(nth, _)| nth);
            let gone_of = |wanted: u8| of(wanted).filter(|nth| gone.contains(nth)).collect::<Vec<_>>();
            prop_assert_eq!(gone_of(2), Vec::<u32>::new());
            prop_assert_eq!(gone_of(0), of(0).take(of(0).count().saturating_sub(refused)).collect::<Vec<_>>());
            let over = (of(1).count() + of(2).count()).saturating_sub(bans);
            prop_assert_eq!(gone_of(1), of(1).take(over).collect::<Vec<_>>());
        }
    }
}
