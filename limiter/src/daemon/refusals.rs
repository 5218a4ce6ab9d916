// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Refusals in the log: not each, of which there may be a million a second, but how many, at which service, and why.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use limiter_common::{Counters, Reason};
use tracing::info;

use crate::kernel::Tables;

/// How often, at most.
const EVERY: Duration = Duration::from_secs(60);
/// The first ones are not waited for so long: somebody may be looking.
const FIRST: Duration = Duration::from_secs(5);

/// What was said last.
pub struct Refusals {
    /// By service: what had been counted, and when.
    said: HashMap<String, (Counters, Instant)>,
}

impl Refusals {
    /// What was refused before is not said again.
    pub fn new(tables: &Tables) -> Result<Self> {
        let long_ago = Instant::now().checked_sub(EVERY.saturating_sub(FIRST)).unwrap_or_else(Instant::now);
        let said = counters(tables)?.into_iter().map(|(name, now)| (name, (now, long_ago)));
        Ok(Self { said: said.collect() })
    }

    /// Says what has been refused since, where it is time.
    pub fn round(&mut self, tables: &Tables) -> Result<()> {
        let now = Instant::now();
        let all = counters(tables)?;
        self.said.retain(|name, _| all.iter().any(|(other, _)| other == name));
        for (name, counters) in all {
            let (before, at) = self.said.entry(name.clone()).or_insert((counters, now));
            if now.duration_since(*at) < EVERY {
                continue;
            }
            if let Some(said) = sentence(before, &counters) {
                info!("{name}: {said}");
                (*before, *at) = (counters, now);
            }
        }
        Ok(())
    }
}

fn counters(tables: &Tables) -> Result<Vec<(String, Counters)>> {
    let services = tables.policy.services()?;
    services.iter().map(|(id, policy)| Ok((policy.name().to_owned(), tables.counters(*id)?))).collect()
}

/// What has been refused between two looks; none if nothing.
fn sentence(before: &Counters, now: &Counters) -> Option<String> {
    let parts = |before: &[u64; 6], now: &[u64; 6]| -> Vec<String> {
        let since = Reason::ALL
            .iter()
            .zip(before.iter().zip(now))
            .map(|(reason, (before, now))| (reason, now.wrapping_sub(*before)));
        since.filter(|(_, n)| *n != 0).map(|(reason, n)| format!("{} {n}", reason.name())).collect()
    };
    let refused = parts(&before.refused, &now.refused);
    let observed = parts(&before.would_refuse, &now.would_refuse);
    let held = now.held.wrapping_sub(before.held);
    let mut said = Vec::new();
    if !refused.is_empty() {
        let replied = now.replied.wrapping_sub(before.replied);
        said.push(format!("packets refused: {}; clients that got a reply: {replied}", refused.join(", ")));
    }
    if held != 0 {
        said.push(format!("handshakes held back: {held}"));
    }
    if !observed.is_empty() {
        said.push(format!("would have been refused: {}", observed.join(", ")));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_said_by_reason_and_nothing_where_there_are_none() {
        let mut before = Counters { replied: 10, ..Counters::default() };
        before.refused[Reason::Concurrency as usize] = 100;
        assert_eq!(sentence(&before, &before), None);
        let mut now = Counters { replied: 13, held: 2, ..before };
        now.refused[Reason::Concurrency as usize] = 105;
        now.refused[Reason::Rate as usize] = 1;
        assert_eq!(
            sentence(&before, &now).unwrap(),
            "packets refused: concurrency 5, rate 1; clients that got a reply: 3; handshakes held back: 2"
        );
        now = before;
        now.would_refuse[Reason::Total as usize] = 4;
        assert_eq!(sentence(&before, &now).unwrap(), "would have been refused: total 4");
    }
}
