//! Bans: who is banned, by whom, and for how long. The kernel makes those of the ladder and lets all of
//! them end by themselves; here they are read, made and ended by hand, kept over a restart of the host, and
//! forgotten when nothing of them matters any more.

pub mod state;
mod upkeep;

use anyhow::Result;
use limiter_common::{Key, Rung, ladder::cause};
use serde::Serialize;

pub use upkeep::Upkeep;

use crate::{kernel::Tables, ledger};

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
    pub reason: &'static str,
    /// How many bans in a row the ladder made of it, this one included.
    pub bans: u32,
    /// Packets dropped since it was banned first.
    pub dropped: u64,
}

/// Who made a ban, in a word.
pub const fn word(number: u32) -> &'static str {
    match number {
        cause::ADMIN => "admin",
        _ => "ladder",
    }
}

/// The bans in force, the one that ends first first.
pub fn in_force(tables: &Tables) -> Result<Vec<Ban>> {
    let now_ns = ledger::now_ns()?;
    let services = tables.policy.services()?;
    let mut rungs: Vec<_> = tables.rungs()?;
    // In this order what is noted meanwhile is missed, and nothing counted twice.
    let unnoted = tables.unnoted_drops()?;
    rungs.retain(|(_, rung)| rung.is_banned(now_ns));
    rungs.sort_by_key(|(key, rung)| (rung.banned_until_ns, key.source, key.service));
    let shown = rungs.into_iter().filter_map(|(key, rung)| {
        let (_, policy) = services.iter().find(|(id, _)| id.0 == key.service)?;
        Some(Ban {
            service: policy.name().to_owned(),
            source: ledger::network(&key),
            left_seconds: (rung.banned_until_ns - now_ns).div_ceil(1_000_000_000),
            since_seconds: now_ns.saturating_sub(rung.banned_at_ns) / 1_000_000_000,
            reason: word(rung.cause),
            bans: rung.bans,
            dropped: rung.dropped + unnoted.of(&key, &rung),
        })
    });
    Ok(shown.collect())
}

/// Bans the sources of `keys` until `until_ns`; where there is no room, the oldest are given up.
pub fn ban(tables: &mut Tables, keys: &[Key], until_ns: u64) -> Result<()> {
    let now_ns = ledger::now_ns()?;
    let unnoted = tables.unnoted_drops()?;
    let mut bans = Vec::with_capacity(keys.len());
    let mut all_known = true;
    for key in keys {
        let known = tables.rung(key)?;
        all_known &= known.is_some();
        let before = known.unwrap_or_default();
        // What it had left of replies counts from anew when the ban ends, as after a ban of the ladder.
        let rung = Rung {
            replies_due_ns: 0,
            ban_due_ns: 0,
            banned_until_ns: until_ns,
            banned_at_ns: now_ns,
            cause: cause::ADMIN,
            dropped: before.dropped + unnoted.of(key, &before),
            ..before
        };
        bans.push((key, rung));
    }
    let mut given_up = Vec::new();
    if !all_known {
        let room = (tables.max_rungs()? as usize).saturating_sub(keys.len());
        let mut others = tables.rungs()?;
        others.retain(|(key, _)| !keys.contains(key));
        given_up = beyond(room, &mut others, tables)?;
    }
    tables.change_rungs(|rungs| {
        given_up.iter().try_for_each(|key| rungs.remove(key).map(drop))?;
        bans.iter().try_for_each(|(key, rung)| rungs.set(key, rung))
    })
}

/// Ends every ban of the sources that these keys mean, and forgets that they were ever refused.
pub fn unban(tables: &mut Tables, keys: &[Key]) -> Result<()> {
    tables.change_rungs(|rungs| keys.iter().try_for_each(|key| rungs.remove(key).map(drop)))
}

/// Takes away the oldest, until no more than `room` are left; returns whom to give up.
fn beyond(room: usize, rungs: &mut Vec<(Key, Rung)>, tables: &Tables) -> Result<Vec<Key>> {
    let over = rungs.len().saturating_sub(room);
    if over > 0 {
        let ladder = tables.policy.ladder()?;
        rungs.sort_by_key(|(_, rung)| rung.since_ns(&ladder));
    }
    Ok(rungs.drain(..over).map(|(key, _)| key).collect())
}
