// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the history shows in some states, for the files of `cli/screens`.

use std::time::Duration;

use limiter_common::Reason;

use super::{
    screen::{Shown, screen},
    summary,
};
use crate::{
    cli::output::{Screen, Width},
    history::{Durations, Gap, Quarter},
};

/// Midnight of 2026-11-27, UTC.
const DAY: i64 = 1_795_737_600;
const DAY_S: i64 = 86_400;

/// How a command shows what it shows.
pub type Show = fn(Width) -> Screen;

/// Each state: its command, and what that shows.
pub const STATES: [(&str, Show); 5] = [
    ("history", night),
    ("history --refused", refused),
    ("history 198.51.100.7", one),
    ("history --since 1h", |width| shown(Vec::new(), (3600, false, false), width)),
    ("history 192.0.2.9", |width| shown(Vec::new(), (DAY_S, false, true), width)),
];

fn row(hour: i64, service: &str, source: &str, peak: u32, limit: Option<u32>) -> Quarter {
    let source = source.parse().expect("a source");
    let row = Quarter::new(DAY + hour * 3600, 900, service, source);
    Quarter { peak, limit, accepted: u64::from(peak) * 3, durations: Some(Durations::default()), ..row }
}

fn refused_for(row: Quarter, reasons: &[(Reason, u64)]) -> Quarter {
    let last_refused = Some(row.start_s + 13 * 60);
    let refused = reasons.iter().map(|(_, times)| times).sum();
    let mut row = Quarter { refused, last_refused, ..row };
    for (reason, times) in reasons {
        row.refused_for[*reason as usize] = *times;
    }
    row
}

/// An office, somebody who hammers, and one whose service only observes.
fn rows() -> Vec<Quarter> {
    let office = |hour, peak| row(hour, "imap", "198.51.100.7/32", peak, Some(20));
    let hammers = |hour| row(hour, "smtp", "2001:db8:1234:5678::/64", 8, Some(8));
    let mut rows: Vec<Quarter> = (7..18).map(|hour| office(hour, 10 + (hour as u32 * 3) % 7)).collect();
    rows.push(refused_for(office(18, 20), &[(Reason::Concurrency, 61)]));
    let reasons = [(Reason::Concurrency, 40), (Reason::Rate, 700), (Reason::Banned, 12_000)];
    rows.extend((2..5).map(|hour| refused_for(hammers(hour), &reasons)));
    rows.push(Quarter { would_refuse: 7, ..row(9, "submission", "203.0.113.0/28", 26, Some(20)) });
    rows.push(row(12, "pop3", "192.0.2.7/32", 12, Some(20)));
    rows
}

fn night(width: Width) -> Screen {
    shown(rows(), (DAY_S, false, false), width)
}

fn refused(width: Width) -> Screen {
    let of_old =
        |row: Quarter| Quarter { last_refused: row.last_refused.filter(|_| row.service == "imap"), ..row };
    let rows = rows().into_iter().filter(|row| row.refused > 0).map(of_old).collect();
    shown(rows, (DAY_S, true, false), width)
}

fn one(width: Width) -> Screen {
    let mut rows: Vec<Quarter> =
        rows().into_iter().filter(|row| row.source.to_string() == "198.51.100.7/32").collect();
    rows.insert(0, Quarter { seconds: 3600, limit: None, ..row(3, "imap", "198.51.100.7/32", 2, None) });
    if let Some(last) = rows.last_mut() {
        let ended = Durations { under_1_min: 3, under_10_min: 12, under_1_h: 40, under_8_h: 9, longer: 1 };
        (last.durations, last.users) = (Some(ended), Some(9));
        last.names = ["anna", "ben", "cleo"].map(str::to_owned).into();
    }
    shown(rows, (DAY_S, false, true), width)
}

fn shown(rows: Vec<Quarter>, (since_s, refused, is_of_one): (i64, bool, bool), width: Width) -> Screen {
    let until = DAY + DAY_S;
    let sources = summary::of(rows, (until - since_s, until));
    let since = Duration::from_secs(since_s.unsigned_abs());
    // Wherever the test runs.
    let utc = |times: Vec<i64>| -> rusqlite::Result<Vec<String>> {
        let times = crate::history::utc(times)?;
        Ok(times.iter().map(|at| at.replace('T', " ").replace(":00Z", "")).collect())
    };
    // A minute ago; or nobody knows.
    let gaps =
        [Gap { since: until - 7200, until: until - 7080 }, Gap { since: until - 600, until: until - 480 }];
    let gaps = if is_of_one { gaps.to_vec() } else { Vec::new() };
    let until = (since_s != 3600).then_some(until - 60);
    screen(&Shown { sources: &sources, since, refused, is_of_one, until, gaps: &gaps }, utc, width)
        .expect("a screen")
}
