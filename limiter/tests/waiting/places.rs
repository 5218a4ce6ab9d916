// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A place that becomes free while somebody waits for it is used at once.

use std::time::{Duration, Instant};

use crate::crowd::{Caller, Crowd};
use crate::figures::{from_environment, summary};
use crate::setup::{SMTP, Setup, TIDY, all_is_well, gently, nothing_is_left};
use limiter_lab::link::Loss;
use limiter_lab::{V4, V6, say};

const LIMIT: usize = 3;
const CLIENTS: usize = 8;
const STAY: Duration = Duration::from_millis(200);

/// For some seconds, a few clients more than may be served: whatever each gets, it comes again.
fn queue(rtt_ms: u64) {
    let _machine = gently();
    let rtt = Duration::from_millis(rtt_ms);
    let Some(setup) = Setup::far(LIMIT as u32, "reply", rtt, Loss::NONE) else { return };
    let families = [V4, V6];
    let callers =
        families.map(|family| Caller::crowd(CLIENTS, family.source(), family.port(SMTP), STAY)).concat();
    let seconds = Duration::from_secs(from_environment("LIMITER_SECONDS", 4));
    let patience = setup.patience() + Duration::from_millis(500);
    let (again, link) = (Some(Instant::now() + seconds), setup.link.as_ref());
    let records = Crowd { callers, patience, again, link }.call(&setup.lab);

    let mut complaints = setup.silences(&records);
    let sources = families.map(|family| family.source());
    complaints.extend(sources.iter().filter_map(|source| setup.excess(*source)));
    let places = setup.places(&sources, &records, &mut complaints);
    let summary = format!("queue, rtt {rtt_ms} ms: {}; {places}", summary(&records));
    say(&summary);
    all_is_well(&complaints, &summary);
    nothing_is_left(&setup.lab, &setup.limiter, TIDY);
}

#[test]
fn next_door_a_place_that_somebody_waits_for_is_used_within_two_round_trips() {
    queue(1);
}

#[test]
fn in_the_same_country_a_place_that_somebody_waits_for_is_used_within_two_round_trips() {
    queue(20);
}

#[test]
fn on_another_continent_a_place_that_somebody_waits_for_is_used_within_two_round_trips() {
    queue(100);
}

#[test]
fn at_the_end_of_the_world_a_place_that_somebody_waits_for_is_used_within_two_round_trips() {
    queue(300);
}
