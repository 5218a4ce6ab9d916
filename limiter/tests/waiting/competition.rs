//! Clients of one source that compete for its places without delay: whatever one gets, it connects again.

use std::time::{Duration, Instant};

use crate::crowd::{Caller, Crowd, Record};
use crate::figures::{from_environment, ms, percentile, say, summary};
use crate::freed::Freed;
use crate::ground::{BACKLOG, Ground, SMTP, TIDY, all_is_well, alone, nothing_is_left};
use crate::support::V4;

const STAY: Duration = Duration::from_millis(50);
/// One client may be served so many times as often as another.
const FAIR: usize = 3;

fn compete(clients: usize, limit: usize) {
    let _machine = alone();
    let Some(ground) = Ground::near(limit as u32, BACKLOG) else { return };
    let source = V4.source();
    let seconds = from_environment("LIMITER_SECONDS", 10);
    let crowd = Crowd {
        callers: Caller::crowd(clients, source, V4.port(SMTP), STAY),
        patience: ground.patience() + Duration::from_millis(500),
        again: Some(Instant::now() + Duration::from_secs(seconds)),
        link: None,
    };
    let records = crowd.call(&ground.lab);

    let mut complaints = ground.silences(&records);
    complaints.extend(ground.excess(source, limit));
    let served = |who| records.iter().filter(|record: &&Record| record.who == who && record.served()).count();
    let mut shares: Vec<usize> = (0..clients).map(served).collect();
    shares.sort_unstable();
    let (least, most) = (shares[0], shares[clients - 1]);
    if most > FAIR * least {
        complaints.push(format!("one client was served {most} times and another {least} times"));
    }
    let used_after = Freed::of(source, &ground.server.visits(), &records, Duration::ZERO).used_after;
    let summary = format!(
        "competition, {clients} clients, limit {limit}, {seconds} s: {}; served {least} to {most} times; \
         {} places that somebody waited for used after {} (median), {} (p99)",
        summary(&records),
        used_after.len(),
        ms(percentile(&used_after, 50)),
        ms(percentile(&used_after, 99))
    );
    say(&summary);
    all_is_well(&complaints, &summary);
    nothing_is_left(&ground.lab, &ground.limiter, TIDY);
}

#[test]
fn twenty_clients_that_never_pause_share_five_places_fairly_and_nobody_waits_in_silence() {
    compete(20, 5);
}

#[test]
fn a_hundred_clients_that_never_pause_share_fifty_places_fairly_and_nobody_waits_in_silence() {
    compete(100, 50);
}
