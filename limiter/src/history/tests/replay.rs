// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Seven days of a host, of which it is known who held how many connections and was refused how often.

use std::collections::BTreeMap;

use limiter_common::{Addr, Count, Entry, Key, Reason};

use super::{DAY, place, source, store};
use crate::history::{
    aggregate::Aggregator,
    baselines::{self, Baselines},
    read::{self, Days},
    row::{DAY_S, Quarter},
    tidy::{self, Retention},
};

const DAYS: i64 = 7;
const LIMIT: u32 = 20;
const SOURCES: u32 = 40;
const MINUTES: i64 = 24 * 60;

/// The most that a source held on a day: always another minute, and for less than one.
const fn peak(n: u32, day: u32) -> u32 {
    1 + (n * 7 + day * 5) % LIMIT
}

/// What it holds all the time: nothing in the night, half of its peak, rounded down, during the day.
const fn base(n: u32, day: u32, minute: u32) -> u32 {
    if minute < 7 * 60 || minute >= 19 * 60 { 0 } else { peak(n, day) / 2 }
}

/// The minute of its peak.
const fn minute_of_peak(n: u32, day: u32) -> u32 {
    7 * 60 + 30 + (n * 37 + day * 101) % 600
}

/// How often it is refused in the minute of its peak: those that reach their limit.
const fn refused(n: u32, day: u32) -> u64 {
    if peak(n, day) == LIMIT { 3 + n as u64 } else { 0 }
}

fn key(n: u32) -> Key {
    Key { addr: Addr::from(source(n).addr()), service: 1, prefix: 128, ..Key::NONE }
}

/// Replays it into a database, and returns what that says of these days. Another daemon takes over every `restart` minutes.
fn replayed(restart: i64, bytes: u64) -> Days {
    let (_dir, path) = place();
    let mut store = store(&path);
    let mut entries: Vec<Entry> = vec![Entry::default(); SOURCES as usize];
    let (mut baselines, mut aggregator) = (Baselines::default(), Aggregator::default());
    let mut rows = Vec::new();
    for minute in 0..DAYS * MINUTES {
        let now_s = DAY + (minute + 1) * 60;
        let (day, of_day) = ((minute / MINUTES) as u32, (minute % MINUTES) as u32);
        if minute % restart == 0 {
            rows.extend(aggregator.finish());
            (baselines, aggregator) = (Baselines::default(), Aggregator::default());
            for (n, entry) in (0..).zip(&entries) {
                baselines.learn(&key(n), entry);
            }
            // It looks for the first time.
            aggregator.look(now_s - 60, Vec::new());
        }
        let mut seen = Vec::new();
        for (n, entry) in (0..).zip(&mut entries) {
            let before = entry.count.connections();
            let now = base(n, day, of_day);
            let most = if of_day == minute_of_peak(n, day) { peak(n, day) } else { now };
            let more = most.saturating_sub(before);
            if more > 0 {
                entry.accepted = entry.accepted.wrapping_add(more);
                entry.recent_peak = entry.recent_peak.max(most);
                entry.peak = entry.peak.max(most);
                entry.last_seen_s = (minute * 60) as u32;
            }
            entry.count = Count(now.into());
            let refused = if of_day == minute_of_peak(n, day) { refused(n, day) } else { 0 };
            if baselines::is_active(entry) || refused > 0 {
                let change = baselines.change(&key(n), entry, 600);
                let mut part = Quarter::new(0, 1, "imap", source(n));
                change.add_to(&mut part);
                part.limit = Some(LIMIT);
                part.refused += refused;
                part.refused_for[Reason::Concurrency as usize] = refused;
                seen.push(part);
            }
            if baselines::is_over(entry) {
                entry.recent_peak = 0;
            }
        }
        baselines.end_look();
        rows.extend(aggregator.look(now_s, seen));
        if (minute + 1) % 60 == 0 {
            store.write(&std::mem::take(&mut rows), true).unwrap();
            tidy::tidy(store.connection(), now_s, &Retention { days: 30, bytes }).unwrap();
        }
    }
    rows.extend(aggregator.finish());
    store.write(&rows, true).unwrap();
    let end = DAY + DAYS * i64::from(DAY_S);
    tidy::tidy(store.connection(), end, &Retention { days: 30, bytes }).unwrap();
    read::read(&path, |conn| read::days_of(conn, Some("imap"), DAY, end)).unwrap().unwrap()
}

/// What is known.
fn known() -> Vec<BTreeMap<u32, u64>> {
    let of_day = |day| {
        let mut peaks = BTreeMap::new();
        for n in 0..SOURCES {
            *peaks.entry(peak(n, day)).or_default() += 1;
        }
        peaks
    };
    (0..DAYS as u32).map(of_day).collect()
}

fn says_what_is_known(days: &Days) {
    let peaks: Vec<_> = days.days.iter().map(|day| day.sources_by_peak.clone()).collect();
    assert_eq!(peaks, known());
    assert!(days.days.iter().all(|day| day.is_complete && day.service == "imap"));
    // Who was refused, when and how often.
    let mut expected = BTreeMap::new();
    for (day, n) in (0..DAYS as u32).flat_map(|day| (0..SOURCES).map(move |n| (day, n))) {
        if refused(n, day) > 0 {
            let at_s = DAY + i64::from(day) * i64::from(DAY_S) + i64::from(minute_of_peak(n, day)) * 60;
            expected.insert((at_s - at_s % 900, source(n)), (LIMIT, refused(n, day)));
        }
    }
    let refused: BTreeMap<_, _> = days
        .notable
        .iter()
        .filter(|row| row.refused > 0)
        .map(|row| ((row.start_s, row.source), (row.peak, row.refused_for[Reason::Concurrency as usize])))
        .collect();
    assert_eq!(refused, expected);
    // Each that reached half of its limit has its quarter of an hour, with the peak that it had.
    for (day, n) in (0..DAYS as u32).flat_map(|day| (0..SOURCES).map(move |n| (day, n))) {
        let at_s = DAY + i64::from(day) * i64::from(DAY_S) + i64::from(minute_of_peak(n, day)) * 60;
        let quarter =
            days.notable.iter().find(|row| row.start_s == at_s - at_s % 900 && row.source == source(n));
        let expected = (2 * peak(n, day) >= LIMIT).then_some(peak(n, day));
        assert_eq!(quarter.map(|row| row.peak), expected, "source {n}, day {day}");
    }
}

#[test]
fn seven_days_with_known_peaks_give_exactly_these() {
    says_what_is_known(&replayed(i64::MAX, 256 << 20));
}

#[test]
fn seven_days_in_which_the_daemon_is_started_again_and_again_give_the_same() {
    says_what_is_known(&replayed(97, 256 << 20));
}
