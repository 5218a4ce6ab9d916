// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A source over all days, and what it looks like.

use std::collections::BTreeMap;

use ipnet::IpNet;
use limiter_common::Reason;
use serde::Serialize;

use crate::history::{Durations, Quarter};

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// What a source looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Look {
    /// Users are known, or half of its connections lasted ten minutes or more.
    Honest,
    /// No user is known where those of others are, and nearly all of its connections were shorter.
    Dubious,
    /// Neither is known.
    Unknown,
}

/// A source that was refused or reached half of its limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Source {
    /// Which.
    #[cfg_attr(test, schemars(with = "String"))]
    pub source: IpNet,
    /// The most connections at one time, on the day that begins then.
    pub peaks: BTreeMap<i64, u32>,
    /// The most of all days.
    pub peak: u32,
    /// Connections that began.
    pub accepted: u64,
    /// How often it was refused.
    pub refused: u64,
    /// Whether it was refused for its number of connections, so that nobody knows how many it wants.
    pub was_at_limit: bool,
    /// How many users were seen, at least; none where that is not known.
    pub users: Option<u32>,
    /// Connections that ended after ten minutes or more, and in all; none where that is not known.
    pub long: Option<(u64, u64)>,
    /// What it looks like.
    pub look: Look,
}

/// The sources of these rows, the largest first; `tells_users` where somebody says who logs in.
pub fn sources(rows: &[Quarter], tells_users: bool) -> Vec<Source> {
    let mut by_source: BTreeMap<IpNet, Vec<&Quarter>> = BTreeMap::new();
    for row in rows {
        by_source.entry(row.source).or_default().push(row);
    }
    let mut sources: Vec<Source> =
        by_source.into_iter().map(|(source, rows)| Source::of(source, &rows, tells_users)).collect();
    sources.sort_by(|a, b| (b.peak, a.source).cmp(&(a.peak, b.source)));
    sources
}

impl Source {
    fn of(source: IpNet, rows: &[&Quarter], tells_users: bool) -> Self {
        let mut peaks: BTreeMap<i64, u32> = BTreeMap::new();
        let mut durations: Option<Durations> = None;
        for row in rows.iter().filter(|row| row.peak > 0) {
            let peak = peaks.entry(row.start_s - row.start_s.rem_euclid(DAY_S)).or_default();
            *peak = (*peak).max(row.peak);
        }
        for more in rows.iter().filter_map(|row| row.durations) {
            durations.get_or_insert_default().add(&more);
        }
        let of_concurrency = |row: &&&Quarter| row.refused_for[Reason::Concurrency as usize] > 0;
        let users = rows.iter().filter_map(|row| row.users).max();
        let long = durations.map(|all| (all.under_1_h + all.under_8_h + all.longer, all.ended()));
        Self {
            source,
            peak: peaks.values().copied().max().unwrap_or(0),
            peaks,
            accepted: rows.iter().map(|row| row.accepted).sum(),
            refused: rows.iter().map(|row| row.refused).sum(),
            was_at_limit: rows.iter().any(|row| of_concurrency(&row)),
            users,
            long,
            look: look(users, long, tells_users),
        }
    }

    /// How many connections it is known to want; twice what it held, where one that looks honest was refused there.
    pub fn wants(&self) -> u32 {
        if self.was_at_limit && self.look == Look::Honest { self.peak.saturating_mul(2) } else { self.peak }
    }
}

/// Who has logged in is honest, and who stays as mail programs do. A client in IDLE stays for hours; one that guesses
/// passwords comes and goes. So does one that delivers mail, wanted or not: where nobody logs in, nothing says who it is.
const fn look(users: Option<u32>, long: Option<(u64, u64)>, tells_users: bool) -> Look {
    match (users, long) {
        (Some(1..), _) => Look::Honest,
        (_, Some((long, ended))) if ended > 0 && long * 2 >= ended => Look::Honest,
        (_, Some((_, 1..))) if tells_users => Look::Dubious,
        _ => Look::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_user_or_stays_looks_honest() {
        let look = |users, long| look(users, long, true);
        assert_eq!(look(Some(1), Some((0, 900))), Look::Honest);
        assert_eq!(look(Some(0), Some((10, 20))), Look::Honest);
        assert_eq!(look(None, Some((10, 21))), Look::Dubious);
        assert_eq!(look(Some(0), Some((0, 1))), Look::Dubious);
        assert_eq!(look(Some(0), Some((0, 0))), Look::Unknown, "all of them are still there");
        assert_eq!(look(None, None), Look::Unknown);
    }

    #[test]
    fn where_nobody_logs_in_a_short_connection_says_nothing() {
        assert_eq!(look(None, Some((0, 900)), false), Look::Unknown);
        assert_eq!(look(None, Some((500, 900)), false), Look::Honest);
    }
}
