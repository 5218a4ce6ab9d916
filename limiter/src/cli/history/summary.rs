// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The rows of each source, added up. Pure.

use std::{cmp::Reverse, collections::HashMap};

use ipnet::IpNet;
use limiter_common::Reason;
use serde::Serialize;

use crate::history::Quarter;

/// How many parts the time has that is shown as a line.
const PARTS: usize = 12;

/// What is known of one source at one service over the time that is asked for.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Summary {
    /// The rows added up: a row that is as long as the time that is asked for.
    #[serde(flatten)]
    pub sum: Quarter,
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
            Reason::ALL.into_iter().zip(self.sum.refused_for).filter(|(_, times)| *times > 0).collect();
        reasons.sort_by_key(|(_, times)| Reverse(*times));
        reasons
    }

    /// How much of its limit it has reached, in thousandths.
    fn share(&self) -> u64 {
        let limit = self.sum.limit.map_or(u64::MAX, |limit| u64::from(limit.max(1)));
        u64::from(self.sum.peak) * 1000 / limit
    }

    /// When it was refused last, and whether to within a minute; where nobody has kept that, when the row begins in which it
    /// was.
    pub fn last_refused(&self) -> Option<(i64, bool)> {
        let row = self.rows.iter().rev().find(|row| row.refused > 0)?;
        Some(row.last_refused.map_or((row.start_s, false), |at| (at, true)))
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
        let order = |one: &Summary| (Reverse(one.sum.refused + one.sum.would_refuse), Reverse(one.share()));
        let name = |one: &Summary| (one.sum.source, one.sum.service.clone());
        order(a).cmp(&order(b)).then_with(|| name(a).cmp(&name(b)))
    });
    all
}

fn one(rows: Vec<Quarter>, since: i64, until: i64) -> Option<Summary> {
    let first = rows.first()?;
    let seconds = u32::try_from(until - since).unwrap_or(u32::MAX);
    let mut sum = Quarter { start_s: since, seconds, ..Quarter::new(0, 1, &first.service, first.source) };
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
    Some(Summary { sum, rows, peaks, refusals })
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
        assert_eq!((one.sum.peak, one.sum.refused, one.sum.limit), (8, 4, Some(8)));
        assert_eq!((one.sum.start_s, one.sum.seconds), (0, 10_800));
        assert_eq!(one.last_refused(), Some((9900, false)), "that is all that is known");
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
        let order: Vec<String> = sources.iter().map(|one| one.sum.source.to_string()).collect();
        assert_eq!(order, ["192.0.2.3/32", "192.0.2.2/32", "192.0.2.1/32"]);
    }

    #[test]
    fn the_time_of_the_last_refusal_is_told_where_it_is_kept() {
        let at = |at| Quarter { last_refused: Some(at), ..row(900, 8, 3) };
        let sources = of(vec![row(0, 4, 1), at(1234), row(1800, 2, 0)], (0, 3600));
        assert_eq!(sources[0].last_refused(), Some((1234, true)));
        assert_eq!(sources[0].sum.last_refused, Some(1234));
    }

    #[test]
    fn a_line_without_anything_has_nothing_in_it() {
        assert_eq!(sparkline(&[0, 0]), "··");
        assert_eq!(sparkline(&[1, 0, u64::from(u32::MAX)]), "▁·█");
    }
}
