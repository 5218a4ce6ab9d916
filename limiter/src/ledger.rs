//! The ledger as people see it, and its upkeep.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result};
use limiter_common::{Entry, Key, Places, ServiceId, ServicePolicy};
use serde::Serialize;

use crate::kernel::{Tables, steward::Steward};

/// One source at one service.
#[derive(Debug, Serialize)]
pub struct Source {
    /// The service's name.
    pub service: String,
    /// The source's network.
    pub source: String,
    /// Established connections.
    pub connections: u32,
    /// Handshakes that hold a place this very moment.
    pub reserved: u32,
    /// The limit that applies; none for the host itself.
    pub limit: Option<u32>,
    /// The most connections at one time.
    pub peak: u32,
    /// Connections counted since the source is known.
    pub accepted: u64,
    /// SYNs refused since the source is known.
    pub refused: u64,
    /// Completing ACKs held back since the source is known.
    pub held: u32,
    /// Seconds since a connection came or went.
    pub idle_seconds: u32,
}

impl Source {
    /// What is known of a source, in words.
    pub fn new(key: &Key, entry: &Entry, policy: Option<&ServicePolicy>, now: u32) -> Self {
        let limit = policy.map(|policy| policy.max_connections);
        Self {
            service: policy
                .map_or_else(|| format!("(removed {})", key.service), |policy| policy.name().to_owned()),
            source: network(key),
            connections: entry.places.connections(),
            reserved: entry.places.reserved(),
            limit: limit.filter(|_| !key.source.is_loopback()),
            peak: entry.peak,
            accepted: entry.accepted,
            refused: entry.refused,
            held: entry.held,
            idle_seconds: now.saturating_sub(entry.last_seen_s),
        }
    }
}

/// A key's source as people write networks.
pub fn network(key: &Key) -> String {
    format!("{}/{}", key.source.to_ip(), key.prefix_len())
}

/// Every source in the ledger.
pub fn sources(tables: &Tables) -> Result<Vec<Source>> {
    let services: HashMap<ServiceId, ServicePolicy> = tables.services()?.into_iter().collect();
    let now = now_s()?;
    let known = tables.sources()?.into_iter().filter(|(_, entry)| entry.places != Places::COLLECTED);
    Ok(known
        .map(|(key, entry)| Source::new(&key, &entry, services.get(&ServiceId(key.service)), now))
        .collect())
}

/// Seconds of `CLOCK_BOOTTIME`, the clock of [`Entry::last_seen_s`].
pub fn now_s() -> Result<u32> {
    let now =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).context("cannot read the clock")?;
    Ok(u32::try_from(now.tv_sec()).unwrap_or(u32::MAX))
}

/// Deletes sources that hold no connection and were last seen longer than `idle` ago; returns how
/// many. The kernel side makes sure that no count is lost.
pub fn collect(steward: &mut Steward, idle: Duration) -> Result<u32> {
    let now = now_s()?;
    let idle = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
    let long_gone = |entry: &Entry| {
        entry.places == Places(0) && entry.last_seen_s != 0 && now.saturating_sub(entry.last_seen_s) >= idle
    };
    let keys: Vec<Key> = steward
        .tables
        .sources()?
        .into_iter()
        .filter(|(_, entry)| long_gone(entry))
        .map(|(key, _)| key)
        .collect();
    steward.collect(&keys)
}
