// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Advice to look at, of a host in each state.

use std::collections::BTreeMap;

use crate::{
    advice::{Advice, MailLimit, Past},
    history::{Day, Durations, Quarter},
};

const DAY_S: i64 = 86_400;
/// Midnight of 2026-11-23, UTC.
const MONDAY: i64 = 1_795_392_000;

/// A service with sources of these peaks, each day; those of 10 and more are known, and stay unless they `guess`.
fn past(days: i64, observes: bool, peaks: &[(u32, u64)], guess: &[u32]) -> Past {
    let day = |day: i64| Day {
        start_s: MONDAY + day * DAY_S,
        service: "imap".to_owned(),
        sources_by_peak: peaks.iter().copied().collect::<BTreeMap<u32, u64>>(),
        is_complete: true,
    };
    let mut notable = Vec::new();
    for (start_s, &(peak, sources)) in
        (0..days).flat_map(|day| peaks.iter().map(move |peak| (MONDAY + day * DAY_S, peak)))
    {
        for host in (0..sources).filter(|_| peak >= 10) {
            let source = format!("203.0.{}.{host}/32", peak % 256).parse().expect("a network");
            let mut row = Quarter::new(start_s, 900, "imap", source);
            let guesses = guess.contains(&peak);
            (row.peak, row.limit, row.users) = (peak, Some(20), Some(u32::from(!guesses)));
            row.durations = Some(Durations { under_1_min: 9, ..Durations::default() });
            notable.push(row);
        }
    }
    Past {
        service: "imap".to_owned(),
        max_connections: 20,
        observes,
        days: (0..days).map(day).collect(),
        notable,
        ..Past::default()
    }
}

/// Each state, and whether it is put in force right after.
pub fn states() -> Vec<(&'static str, Vec<Advice>, bool)> {
    let peaks = [(1, 120), (2, 301), (3, 44), (5, 12), (8, 6), (10, 4), (31, 1), (40, 12)];
    let enforcing = past(7, false, &peaks, &[40]);
    let mut observing = past(7, true, &peaks, &[40]);
    observing.mail = vec![
        MailLimit { daemon: "Postfix", setting: "smtpd_client_connection_count_limit = 10".to_owned(), limit: Some(10) },
        MailLimit {
            daemon: "Dovecot",
            setting: "mail_max_userip_connections = 10 counts each user of an address separately, and only after the \
                      login"
                .to_owned(),
            limit: None,
        },
    ];
    let few = past(2, false, &[(1, 3), (2, 1)], &[]);
    vec![
        ("advise-enforcing", vec![Advice::of(&enforcing)], false),
        ("advise-observing", vec![Advice::of(&observing)], false),
        ("advise-applied", vec![Advice::of(&enforcing)], true),
        ("advise-few-days", vec![Advice::of(&few)], false),
        ("advise-nothing-known", Vec::new(), false),
    ]
}
