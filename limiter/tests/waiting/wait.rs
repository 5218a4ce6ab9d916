// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! No place becomes free: who waits is told why when the wait is over.

use std::time::Duration;

use crate::crowd::{Caller, Crowd, End, Record};
use crate::figures::{ms, summary};
use crate::setup::{SMTP, Setup, TIDY, WAIT, all_is_well, gently, nothing_is_left, slack};
use limiter_lab::link::Loss;
use limiter_lab::{Answer, Family, Limiter, V4, V6, say};

const LIMIT: usize = 3;
const CLIENTS: usize = 10;
const RTT: Duration = Duration::from_millis(20);
/// Longer than anybody waits.
const STAY: Duration = Duration::from_secs(7);

/// What is wrong with what the clients of one source heard: some are served, as many wait and are told at the
/// end, the others are told at once, and all of them in words and with a clean end.
fn not_as_it_should_be(family: Family, records: &[Record], slack: Duration) -> Vec<String> {
    let source = family.source();
    let mine: Vec<&Record> = records.iter().filter(|record| record.local.ip() == source).collect();
    let why = Answer::Line(Limiter::smtp_reply(LIMIT as u32, source));
    let mut complaints: Vec<String> = mine
        .iter()
        .filter(|record| !record.served() && (record.answer != why || record.end != Some(End::Fin)))
        .map(|record| format!("{} heard {:?}, then {:?}", record.local, record.answer, record.end))
        .collect();
    let mut silences: Vec<Duration> =
        mine.iter().filter(|record| !record.served()).map(|record| record.silence()).collect();
    silences.sort_unstable();
    let at_once = silences.iter().filter(|silence| **silence < 2 * RTT + slack).count();
    let at_the_end =
        silences.iter().filter(|silence| (WAIT..=WAIT + 2 * RTT + slack).contains(silence)).count();
    if (at_once, at_the_end) != (CLIENTS - 2 * LIMIT, LIMIT) {
        let silences: Vec<String> = silences.into_iter().map(ms).collect();
        complaints.push(format!(
            "of {source} {at_once} were told at once, {at_the_end} at the end: {}",
            silences.join(", ")
        ));
    }
    complaints
}

#[test]
fn who_gets_no_place_is_told_why_when_the_wait_is_over_and_who_finds_no_room_to_wait_is_told_at_once() {
    let _machine = gently();
    let Some(setup) = Setup::far(LIMIT as u32, "reply", RTT, Loss::NONE) else { return };
    let families = [V4, V6];
    let callers =
        families.map(|family| Caller::crowd(CLIENTS, family.source(), family.port(SMTP), STAY)).concat();
    let patience = setup.patience() + Duration::from_millis(500);
    let records = Crowd { callers, patience, again: None, link: None }.call(&setup.lab);
    let mut complaints = setup.silences(&records);
    for family in families {
        complaints.extend(not_as_it_should_be(family, &records, slack() + setup.noise()));
        complaints.extend(setup.excess(family.source()));
    }
    let summary = format!("no place: {}", summary(&records));
    say(&summary);
    all_is_well(&complaints, &summary);
    nothing_is_left(&setup.lab, &setup.limiter, TIDY);
}
