// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The rows of each source, added up. Pure.

use std::{cmp::Reverse, collections::HashMap};

use ipnet::IpNet;
use limiter_common::Reason;
use serde::Serialize;

use crate::history::{Durations, Quarter, REASONS, by_name};

/// How many parts the time has that is shown as a line.
const PARTS: usize = 12;

/// What is known of one source at one service over the time that is asked for.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Summary {
    pub service: String,
    #[cfg_attr(test, schemars(with = "String"))]
    pub source: IpNet,
    /// The most connections at one time.
    pub peak: u32,
    /// The last limit; none where there was none.
    pub limit: Option<u32>,
    pub accepted: u64,
    pub refused: u64,
    #[serde(serialize_with = "by_name")]
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, u64>"))]
    pub refused_for: [u64; REASONS],
    pub would_refuse: u64,
    pub held: u64,
    pub waiting: u32,
    /// How long connections had been there that ended; none where that is not known.
    pub durations: Option<Durations>,
    pub users: Option<u32>,
    pub names: Vec<String>,
    /// When the stretch begins in which it was refused last, in seconds since 1970.
    pub last_refused: Option<i64>,
    /// What it is added up from, by time.
    pub rows: Vec<Quarter>,
    /// The peaks over the time, in equal parts of it.
    #[serde(skip)]
    pub peaks: [u64; PARTS],
    /// The refusals likewise.
    #[serde(skip)]
    pub refusals: [u64; PARTS],
}

impl Summary {
    /// The reasons, the most frequent first.
    pub fn reasons(&self) -> Vec<(Reason, u64)> {
        let mut reasons: Vec<(Reason, u64)> =
            Reason::ALL.into_iter().zip(self.refused_for).filter(|(_, times)| *times > 0).collect();
        reasons.sort_by_key(|(_, times)| Reverse(*times));
        reasons
    }

    /// How much of its limit it has reached, in thousandths.
    fn share(&self) -> u64 {
        let limit = self.limit.map_or(u64::MAX, |limit| u64::from(limit.max(1)));
        u64::from(self.peak) * 1000 / limit
    }
}

/// Adds them up, which are in the order of time: from when on and until when, in seconds since 1970.
pub fn of(rows: Vec<Quarter>, (since, until): (i64, i64)) -> Vec<Summary> {
    let mut by_source: HashMap<(String, IpNet), Vec<Quarter>> = HashMap::new();
    for row in rows {
        by_source.entry((row.service.clone(), row.source)).or_default().push(row);
    }
    let mut all: Vec<Summary> = by_source.into_values().filter_map(|rows| one(rows, since, until)).collect();
    all.sort_by(|a, b| {
        let order = |one: &Summary| (Reverse(one.refused + one.would_refuse), Reverse(one.share()));
        order(a).cmp(&order(b)).then_with(|| (a.source, &a.service).cmp(&(b.source, &b.service)))
    });
    all
}

fn one(rows: Vec<Quarter>, since: i64, until: i64) -> Option<Summary> {
    let first = rows.first()?;
    let mut sum = Quarter::new(first.start_s, first.seconds, &first.service, first.source);
    let (mut peaks, mut refusals) = ([0_u64; PARTS], [0_u64; PARTS]);
    let length = (until - since).max(1);
    let part = |at: i64| {
        let part = (at.clamp(since, until - 1) - since).saturating_mul(PARTS as i64) / length;
        usize::try_from(part).unwrap_or(0).min(PARTS - 1)
    };
    for row in &rows {
        sum.add(row);
        let end = row.start_s + i64::from(row.seconds) - 1;
        for (index, peak) in peaks.iter_mut().enumerate() {
            if (part(row.start_s)..=part(end)).contains(&index) {
                *peak = (*peak).max(row.peak.into());
            }
        }
        // A stretch that is longer than a part counts where it begins.
        if let Some(sum) = refusals.get_mut(part(row.start_s)) {
            *sum += row.refused;
        }
    }
    let last_refused = rows.iter().rev().find(|row| row.refused > 0).map(|row| row.start_s);
    let Quarter {
        service,
        source,
        peak,
        limit,
        accepted,
        refused,
        refused_for,
        would_refuse,
        held,
        waiting,
        ..
    } = sum;
    Some(Summary {
        service,
        source,
        peak,
        limit,
        accepted,
        refused,
        refused_for,
        would_refuse,
        held,
        waiting,
        durations: sum.durations,
        users: sum.users,
        names: sum.names,
        last_refused,
        rows,
        peaks,
        refusals,
    })
}

/// The numbers as a line: the highest as high as it can be, none as none.
pub fn sparkline(numbers: &[u64]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = numbers.iter().copied().max().unwrap_or(0).max(1);
    let height = |number: u64| {
        if number == 0 {
            return '·';
        }
        let index = usize::try_from((number * HEIGHTS.len() as u64).div_ceil(most)).unwrap_or(1);
        HEIGHTS.get(index.saturating_sub(1)).copied().unwrap_or('█')
    };
    numbers.iter().map(|number| height(*number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(start_s: i64, peak: u32, refused: u64) -> Quarter {
        let mut row = Quarter::new(start_s, 900, "smtp", "192.0.2.7/32".parse().unwrap());
        row.peak = peak;
        row.refused = refused;
        row.refused_for[Reason::Concurrency as usize] = refused;
        row.limit = Some(8);
        row
    }

    #[test]
    fn rows_of_one_source_are_added_up_and_drawn_in_the_order_of_time() {
        let sources = of(vec![row(0, 4, 0), row(900, 8, 3), row(10_800 - 900, 2, 1)], (0, 10_800));
        let [one] = &sources[..] else { panic!("one source") };
        assert_eq!((one.peak, one.refused, one.limit, one.last_refused), (8, 4, Some(8), Some(9900)));
        assert_eq!(one.reasons(), [(Reason::Concurrency, 4)]);
        assert_eq!(sparkline(&one.peaks), "▄█·········▂");
        assert_eq!(sparkline(&one.refusals), "·█·········▃");
    }

    #[test]
    fn who_was_refused_most_comes_first_and_then_who_came_nearest_to_the_limit() {
        let of_source = |source: &str, row: Quarter| Quarter { source: source.parse().unwrap(), ..row };
        let sources = of(
            vec![
                of_source("192.0.2.1/32", row(0, 5, 0)),
                of_source("192.0.2.2/32", row(0, 8, 0)),
                of_source("192.0.2.3/32", row(0, 1, 2)),
            ],
            (0, 900),
        );
        let order: Vec<String> = sources.iter().map(|one| one.source.to_string()).collect();
        assert_eq!(order, ["192.0.2.3/32", "192.0.2.2/32", "192.0.2.1/32"]);
    }

    #[test]
    fn a_line_without_anything_has_nothing_in_it() {
        assert_eq!(sparkline(&[0, 0]), "··");
        assert_eq!(sparkline(&[1, 0, u64::from(u32::MAX)]), "▁·█");
    }
}
