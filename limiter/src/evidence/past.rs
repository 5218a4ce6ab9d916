// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a source did in the past, as the history has it.

use std::time::Duration;

use limiter_common::Reason;

use super::case::{Case, Known, Period};
use crate::{
    history::{self, Quarter},
    instance::Instance,
};

/// How far back is looked: as long as quarters of an hour are kept apart.
const BACK: Duration = Duration::from_secs(8 * 86_400);

/// What the history of this instance has of the source of a case; why it has nothing, otherwise.
pub fn past(instance: &Instance, case: &Case) -> Known<Vec<Period>> {
    match history::recent(instance, &case.service, &case.source, BACK) {
        Ok(Some(rows)) => Known::Is(rows.iter().map(period).collect()),
        Ok(None) => Known::Not("no history is kept".to_owned()),
        Err(problem) => Known::Not(format!("the history cannot be read: {problem:#}")),
    }
}

fn period(row: &Quarter) -> Period {
    let refused = Reason::ALL.into_iter().zip(row.refused_for).filter(|(_, times)| *times > 0);
    Period {
        start_s: u64::try_from(row.start_s).unwrap_or_default(),
        seconds: row.seconds,
        peak: row.peak,
        limit: row.limit,
        accepted: row.accepted,
        refused: refused.collect(),
        ended_within_minute: row.durations.map_or(0, |durations| durations.under_1_min),
        ended: row.durations.map_or(0, |durations| durations.ended()),
        users: row.users,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Durations;

    #[test]
    fn a_row_is_told_as_it_is() {
        let mut row = Quarter::new(1800, 900, "imap", "203.0.113.7/32".parse().unwrap());
        (row.peak, row.limit, row.accepted, row.users) = (7, Some(8), 40, Some(2));
        row.refused_for[Reason::Concurrency as usize] = 3;
        row.durations = Some(Durations { under_1_min: 30, longer: 4, ..Durations::default() });
        let told = period(&row);
        assert_eq!((told.start_s, told.seconds, told.peak, told.limit), (1800, 900, 7, Some(8)));
        assert_eq!((told.accepted, told.ended_within_minute, told.ended, told.users), (40, 30, 34, Some(2)));
        assert_eq!(told.refused.into_iter().collect::<Vec<_>>(), [(Reason::Concurrency, 3)]);
    }
}
