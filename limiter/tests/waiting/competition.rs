// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Clients of one source that compete for its places without delay: whatever one gets, it connects again.

use std::time::{Duration, Instant};

use crate::crowd::{Caller, Crowd, Record};
use crate::figures::{from_environment, ms, summary};
use crate::setup::{BACKLOG, SMTP, Setup, TIDY, all_is_well, alone, gently, nothing_is_left};
use limiter_lab::{V4, say};

const STAY: Duration = Duration::from_millis(50);
/// One client may be served so many times as often as another, over a minute and more. In seconds chance decides,
/// and which clients a busy machine lets run: then nobody may be left out.
fn fair(seconds: u64) -> usize {
    if seconds >= 60 { 3 } else { 30 }
}

fn compete(clients: usize, limit: usize, rtt: Option<Duration>, seconds: u64) {
    let Some(setup) = Setup::busy(limit as u32, BACKLOG, rtt) else { return };
    let source = V4.source();
    let seconds = from_environment("LIMITER_SECONDS", seconds);
    let crowd = Crowd {
        callers: Caller::crowd(clients, source, V4.port(SMTP), STAY),
        patience: setup.patience() + Duration::from_millis(500),
        again: Some(Instant::now() + Duration::from_secs(seconds)),
        link: setup.link.as_ref(),
    };
    let records = crowd.call_on_all_cpus(&setup.lab);

    let mut complaints = setup.silences(&records);
    complaints.extend(setup.excess(source));
    let served = |who| records.iter().filter(|record: &&Record| record.who == who && record.served()).count();
    let shares: Vec<usize> = (0..clients).map(served).collect();
    let least = shares.iter().min().copied().unwrap_or_default();
    let most = shares.iter().max().copied().unwrap_or_default();
    if most > fair(seconds) * least {
        complaints.push(format!("one client was served {most} times and another {least} times"));
    }
    let places = setup.places(&[source], &records, &mut complaints);
    let summary = format!(
        "competition, {clients} clients, limit {limit}, rtt {}, {seconds} s: {}; served {least} to {most} times; {places}",
        ms(setup.rtt()),
        summary(&records)
    );
    say(&summary);
    all_is_well(&complaints, &summary);
    nothing_is_left(&setup.lab, &setup.limiter, TIDY);
}

#[test]
fn twenty_clients_that_never_pause_share_five_places_fairly_and_nobody_waits_in_silence() {
    let _machine = alone();
    compete(20, 5, None, 10);
}

#[test]
fn twenty_clients_a_millisecond_away_share_five_places_fairly_and_nobody_waits_in_silence() {
    let _machine = gently();
    compete(20, 5, Some(Duration::from_millis(1)), 8);
}

#[test]
fn a_hundred_clients_that_never_pause_share_fifty_places_fairly_and_nobody_waits_in_silence() {
    let _machine = alone();
    compete(100, 50, None, 5);
}
