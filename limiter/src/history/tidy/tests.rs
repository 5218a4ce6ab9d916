// SPDX-License-Identifier: GPL-2.0-only OR MIT

use super::*;
use crate::history::{
    read::{self, Asked},
    row::Quarter,
    store::Store,
    tests::{DAY, place, row, rows, source, store},
};

const MONTH: Retention = Retention { days: 30, bytes: 256 << 20 };

fn lengths(rows: &[Quarter]) -> Vec<(u32, i64, u32, u64)> {
    rows.iter().map(|row| (row.seconds, (row.start_s - DAY) / 900, row.peak, row.accepted)).collect()
}

fn days_later(days: i64) -> i64 {
    DAY + days * i64::from(DAY_S)
}

#[test]
fn a_week_later_quarters_become_hours_and_two_weeks_later_days() {
    let (_dir, path) = place();
    let mut store = store(&path);
    let quarters: Vec<Quarter> = [(0, 3), (1, 9), (4, 5), (95, 2)]
        .map(|(n, peak)| row(DAY + n * 900, 900, 1, peak))
        .into_iter()
        .chain([row(DAY, 3600, 1, 1), Quarter { limit: Some(7), ..row(DAY + 5 * 900, 900, 1, 1) }])
        .collect();
    store.write(&quarters, true).unwrap();
    tidy(store.connection(), days_later(8), &MONTH).unwrap();
    assert_eq!(rows(&path).len(), 6, "nothing is as old as that");
    tidy(store.connection(), days_later(9), &MONTH).unwrap();
    let found = rows(&path);
    assert_eq!(lengths(&found), [(3600, 0, 9, 3), (3600, 4, 5, 2), (3600, 92, 2, 1)]);
    assert_eq!(
        found.iter().map(|row| row.limit).collect::<Vec<_>>(),
        [Some(20), Some(7), Some(20)],
        "the last"
    );
    tidy(store.connection(), days_later(16), &MONTH).unwrap();
    assert_eq!(lengths(&rows(&path)), [(86_400, 0, 9, 6)]);
    tidy(store.connection(), days_later(30), &MONTH).unwrap();
    assert_eq!(rows(&path).len(), 1);
    tidy(store.connection(), days_later(31), &MONTH).unwrap();
    assert_eq!(rows(&path), []);
    let left = "SELECT (SELECT count(*) FROM sources) + (SELECT count(*) FROM peaks)";
    let left: i64 = store.connection().query_row(left, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0, "something is left of it");
}

#[test]
fn rows_that_were_written_while_the_clock_was_ahead_go() {
    let (_dir, path) = place();
    let mut store = store(&path);
    store.write(&[row(days_later(300), 900, 1, 3), row(days_later(0), 900, 2, 3)], true).unwrap();
    tidy(store.connection(), days_later(1), &MONTH).unwrap();
    assert_eq!(rows(&path).iter().map(|row| row.source).collect::<Vec<_>>(), [source(2)]);
}

/// Days with many sources that nobody asks for, some near their limit, and a few that were refused.
fn crowd(store: &mut Store, days: i64) {
    for day in 0..days {
        let mut batch: Vec<Quarter> =
            (0..4000).map(|n| row(days_later(day), 3600, n + 4000 * day as u32, 1)).collect();
        batch.extend((0..200).map(|n| row(days_later(day), 900, n, 15)));
        batch.extend((0..20).map(|n| Quarter { refused: 5, ..row(days_later(day), 900, n + 1000, 20) }));
        store.write(&batch, true).unwrap();
    }
}

#[test]
fn where_there_is_too_much_the_least_interesting_goes_first() {
    let (_dir, path) = place();
    let mut store = store(&path);
    crowd(&mut store, 4);
    let all = used(store.connection()).unwrap();
    let now_s = days_later(3) + 7200;
    let count =
        |rows: &[Quarter], wanted: fn(&Quarter) -> bool| rows.iter().filter(|row| wanted(row)).count();
    let mut bytes = all;
    let (mut plain, mut near) = (16_000, 800);
    while bytes > 64 << 10 {
        bytes = bytes * 2 / 3;
        shrink(store.connection(), now_s, &Retention { days: 30, bytes }).unwrap();
        let left = used(store.connection()).unwrap();
        assert!(left <= bytes || rows(&path).is_empty(), "{left} of {bytes}");
        let rows = rows(&path);
        let now_plain = count(&rows, |row| row.seconds == 3600);
        let now_near = count(&rows, |row| row.seconds == 900 && row.refused == 0);
        let now_refused = count(&rows, |row| row.refused > 0);
        assert!(now_plain <= plain && now_near <= near);
        assert!(now_near == 800 || now_plain == 0, "{now_near} near the limit, {now_plain} plain");
        assert!(now_refused == 80 || now_near == 0, "{now_refused} refused, {now_near} near");
        // Of the others the oldest went first.
        if now_plain > 0 {
            let first = rows.iter().filter(|row| row.seconds == 3600).map(|row| row.start_s).min().unwrap();
            assert_eq!(now_plain as i64, (now_s - first) / i64::from(DAY_S) * 4000 + 4000);
        }
        (plain, near) = (now_plain, now_near);
    }
    crate::history::store::empty_log(store.connection()).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < all / 2, "nothing was given back to the file system");
    // The peaks of days that are over are counted for all of them, whatever is left; of today it is said.
    let days = read::read(&path, |conn| read::days_of(conn, None, DAY, now_s)).unwrap().unwrap().days;
    let peaks: Vec<_> =
        days.iter().map(|day| (day.is_complete, day.sources_by_peak.get(&1).copied())).collect();
    // Of the first day 220 held more as well.
    let over = [(true, Some(3780)), (true, Some(4000)), (true, Some(4000))];
    assert_eq!(peaks.get(..3), Some(&over[..]), "{days:?}");
    assert!(days.get(3).is_none_or(|today| !today.is_complete), "{days:?}");
}

#[test]
fn rows_are_found_by_source_by_network_and_by_what_happened() {
    let (_dir, path) = place();
    let mut store = store(&path);
    crowd(&mut store, 2);
    let now_s = days_later(2);
    let ask = |network: Option<&str>, services: Option<&[&str]>, notable: bool, since_s: i64| {
        let network = network.map(|network| network.parse().unwrap());
        let asked = Asked { since_s, services, network: network.as_ref(), notable };
        read::read(&path, |conn| read::rows_of(conn, &asked, now_s)).unwrap().unwrap().len()
    };
    assert_eq!(ask(Some("10.0.0.7/32"), None, false, 0), 3, "an hour, and two quarters");
    assert_eq!(ask(Some("10.0.0.7/32"), None, true, 0), 2);
    assert_eq!(ask(Some("10.0.0.7/32"), None, false, days_later(1)), 1);
    assert_eq!(ask(Some("10.0.0.7/32"), Some(&["imap"]), false, 0), 0);
    assert_eq!(ask(Some("10.0.0.7/32"), Some(&["smtp"]), false, 0), 3);
    assert_eq!(ask(Some("10.0.0.0/26"), None, false, 0), 64 * 3);
    assert_eq!(ask(Some("10.0.0.0/24"), None, false, 0), 200 * 3 + 56);
    assert_eq!(ask(Some("192.0.2.1/32"), None, false, 0), 0);
    assert_eq!(ask(None, None, true, 0), 440);
    assert_eq!(ask(None, None, false, days_later(1)), 4220);
}
