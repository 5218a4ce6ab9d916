//! A place that becomes free while somebody waits for it is used at once.

use std::time::{Duration, Instant};

use crate::crowd::{Caller, Crowd};
use crate::figures::{from_environment, ms, percentile, say, summary};
use crate::freed::Freed;
use crate::ground::{Ground, LATE, SMTP, TIDY, all_is_well, gently, nothing_is_left};
use crate::link::{Link, Loss};
use crate::support::{V4, V6};

const LIMIT: usize = 3;
const CLIENTS: usize = 8;
const STAY: Duration = Duration::from_millis(200);

/// For some seconds, a few clients more than may be served: whatever each gets, it comes again.
fn queue(rtt_ms: u64) {
    let _machine = gently();
    let rtt = Duration::from_millis(rtt_ms);
    let Some(ground) = Ground::far(LIMIT as u32, rtt, Loss::NONE) else { return };
    let families = [V4, V6];
    let callers =
        families.map(|family| Caller::crowd(CLIENTS, family.source(), family.port(SMTP), STAY)).concat();
    let seconds = Duration::from_secs(from_environment("LIMITER_SECONDS", 4));
    let patience = ground.patience() + Duration::from_millis(500);
    let (again, link) = (Some(Instant::now() + seconds), ground.link.as_ref());
    let records = Crowd { callers, patience, again, link }.call(&ground.lab);

    let mut complaints = ground.silences(&records);
    let mut used_after = Vec::new();
    for source in families.map(|family| family.source()) {
        complaints.extend(ground.excess(source, LIMIT));
        let freed = Freed::of(source, &ground.server.visits(), &records, rtt);
        if freed.unused > 0 {
            complaints.push(format!("{} places of {source} were free and nobody got them", freed.unused));
        }
        used_after.extend(freed.used_after);
    }
    let p99 = percentile(&used_after, 99);
    if p99 > 2 * rtt + LATE {
        complaints.push(format!("a place was free for {} while somebody waited", ms(p99)));
    }
    let summary = format!(
        "queue, rtt {rtt_ms} ms: {}; {} places used after {} (median), {} (p99); the link late by {}",
        summary(&records),
        used_after.len(),
        ms(percentile(&used_after, 50)),
        ms(p99),
        link.map(Link::lateness).expect("it is far")
    );
    say(&summary);
    all_is_well(&complaints, &summary);
    nothing_is_left(&ground.lab, &ground.limiter, TIDY);
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
