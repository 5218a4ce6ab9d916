// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Five hundred handshakes of one source, completed at the same moment.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Instant;

use crate::lab::{AttackLab, nobody};
use crate::raw::Crowd;
use limiter_lab::watch::Watch;
use limiter_lab::{Family, Limiter, SOON, Sink, V4, V6, deadline, same, say, sockets};

const LIMIT: usize = 8;
const CROWD: RangeInclusive<u16> = 20_001..=20_500;
/// Rounds of each family, both at the same time.
const ROUNDS: u16 = 100;
/// Every so many rounds those who wait are let in by the SYN-ACK the kernel repeats a second after the SYN;
/// in between they repeat their ACK before that, as a client does who speaks first.
const PATIENT: u16 = 10;
/// How many of the eight leave, and make room.
const LEAVING: usize = 5;

/// One thing at a time is tested here: places, not room in the kernel's queues.
const BACKLOG: i32 = 65_536;

/// Fails unless there are `LIMIT`; complains of how many there are.
fn full(ports: &BTreeSet<u16>) -> Result<BTreeSet<u16>, String> {
    if ports.len() == LIMIT { Ok(ports.clone()) } else { Err(format!("connected from {ports:?}")) }
}

/// The `n`th burst, of a source of its own, of which eight are let in; then room is made, and as many of the
/// others come in.
fn round(lab: &AttackLab, limiter: &Limiter, watch: &Watch, family: Family, n: u16) {
    let source = nobody(family, n);
    let mut crowd = Crowd::new(lab, source, CROWD, family.port(25));
    crowd.call();
    crowd.complete();
    let held = CROWD.len() - LIMIT;
    crowd.answer_until("the ACKs of all others are held", || {
        let held_so_far = limiter.source("smtp", source).held as usize;
        if held_so_far >= held { Ok(()) } else { Err(format!("{held_so_far} of {held}")) }
    });
    let first = watch.until(source, "eight are let in", SOON, full);

    let leaving: Vec<u16> = first.iter().copied().take(LEAVING).collect();
    for port in &leaving {
        let fin = crowd.callers.get_mut(port).expect("one of the crowd").fin();
        crowd.wire.send(&fin);
    }
    let refilled =
        |ports: &BTreeSet<u16>| ports.len() == LIMIT && leaving.iter().all(|port| !ports.contains(port));
    watch.until(source, "there is room", SOON, |ports| {
        same("some are still there", &leaving.iter().any(|port| ports.contains(port)), &false)
    });
    if !n.is_multiple_of(PATIENT) {
        crowd.complete();
    }
    let in_time = crowd.answer(deadline(SOON), |_| refilled(&watch.ports(source)));
    assert!(in_time, "round {n}: {leaving:?} left, and there are {:?}", watch.ports(source));
    watch.until(source, "eight again", SOON, full);
    let counted = limiter.source("smtp", source);
    assert_eq!((counted.connections, counted.peak, counted.accepted), (8, 8, 13), "{counted:?}");

    crowd.hang_up();
    watch.until(source, "they are gone", SOON, |ports| same("connections", &ports.len(), &0));
}

#[test]
fn of_500_handshakes_completed_at_once_eight_are_let_in_and_the_others_as_places_free() {
    let Some(lab) = AttackLab::new() else { return };
    lab.receive_on_all_cpus();
    let _server = Sink::with_backlog(&lab, 25, BACKLOG);
    let limiter = Limiter::start(&lab, LIMIT as u32, "reset");
    let watch = Watch::start(&lab.host, 25, 1);
    let began = Instant::now();
    let (lab, limiter, watch) = (&lab, &limiter, &watch);
    std::thread::scope(|scope| {
        for family in [V4, V6] {
            let rounds = move || (0..ROUNDS).for_each(|n| round(lab, limiter, watch, family, n));
            scope.spawn(rounds);
        }
    });
    for family in [V4, V6] {
        let peaks: Vec<usize> = (0..ROUNDS).map(|n| watch.peak(nobody(family, n))).collect();
        assert!(peaks.iter().all(|peak| *peak == LIMIT), "the most at one time, by the kernel: {peaks:?}");
    }
    say(&format!(
        "burst: {ROUNDS} rounds of each family in {:.1?}, the socket table looked at every {:.1?}",
        began.elapsed(),
        watch.interval()
    ));
    sockets::settled(&lab.host, limiter, 25);
}

/// What the test above relies on.
#[test]
fn nine_at_one_time_would_be_seen() {
    let Some(lab) = AttackLab::new() else { return };
    lab.receive_on_all_cpus();
    let _server = Sink::with_backlog(&lab, 25, BACKLOG);
    let limiter = Limiter::start(&lab, LIMIT as u32 + 1, "reset");
    let watch = Watch::start(&lab.host, 25, 1);
    for family in [V4, V6] {
        let source = nobody(family, 0);
        let mut crowd = Crowd::new(&lab, source, CROWD, family.port(25));
        crowd.call();
        crowd.complete();
        // Once to see them, and once more to see that they were there at the same time.
        for _ in 0..2 {
            watch.until(source, "nine are let in", SOON, |ports| same("connections", &ports.len(), &9));
        }
        crowd.hang_up();
        watch.until(source, "they are gone", SOON, |ports| same("connections", &ports.len(), &0));
        assert_eq!(watch.peak(source), LIMIT + 1);
    }
    sockets::settled(&lab.host, &limiter, 25);
}
