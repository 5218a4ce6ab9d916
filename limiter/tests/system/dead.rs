// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Clients that connect and reset, and a mail daemon that is slow to accept.

use std::net::TcpListener;

use limiter_lab::client::{dial, reset};
use limiter_lab::sink::listener;
use limiter_lab::{Answer, Family, Lab, Limiter, SOON, V4, V6, sockets};

const LIMIT: u32 = 8;
const ATTEMPTS: usize = 66;

/// Connects and resets, again and again; how often that went well.
fn connect_and_reset(lab: &Lab, family: Family) -> usize {
    let once = |_: &usize| {
        let client = lab.client.run(|| dial(family.source(), family.port(25), SOON));
        client.map(reset).is_ok()
    };
    (0..ATTEMPTS).filter(once).count()
}

/// A mail daemon that accepts nothing by itself.
fn listener_at(lab: &Lab, family: Family) -> TcpListener {
    listener(lab, family.port(25), 64)
}

/// What a source may have in the accept queue is in it, dead, and everybody else gets in.
fn full_of_dead(lab: &Lab, limiter: &Limiter, family: Family) -> TcpListener {
    let listener = listener_at(lab, family);
    let refused = limiter.counter("smtp", "refused_concurrency");
    assert_eq!(connect_and_reset(lab, family), LIMIT as usize, "the rest is refused");
    let refused = limiter.counter("smtp", "refused_concurrency") - refused;
    assert!(refused >= (ATTEMPTS - LIMIT as usize) as u64, "{refused} refused");
    agrees(lab, limiter, family);
    lab.dial(family.sources[1], family.port(25)).expect("an honest client gets in");
    listener
}

#[track_caller]
fn agrees(lab: &Lab, limiter: &Limiter, family: Family) {
    sockets::with_dead(&lab.host, limiter, ("smtp", 25), family.source(), (0, u64::from(LIMIT)));
    assert_eq!(limiter.source("smtp", family.source()).peak, u64::from(LIMIT));
    assert_eq!(limiter.counter("smtp", "drift"), 0);
}

#[test]
fn who_connects_and_resets_fills_its_own_places_and_not_the_accept_queue() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, LIMIT, "reset");
    for family in [V4, V6] {
        let listener = full_of_dead(&lab, &limiter, family);
        for left in (0..u64::from(LIMIT)).rev() {
            drop(listener.accept().expect("it is in the queue"));
            assert_eq!(
                limiter.source("smtp", family.source()).connections,
                left,
                "with the close, not later"
            );
        }
        // The honest client, who has closed.
        drop(listener.accept().expect("it is in the queue"));
        lab.dial(family.source(), family.port(25)).expect("its places are free again");
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn the_dead_in_a_queue_go_with_its_listener() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, LIMIT, "reset");
    for family in [V4, V6] {
        drop(full_of_dead(&lab, &limiter, family));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 0);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_daemon_that_starts_again_knows_the_dead_and_without_one_they_go_with_their_listener() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, LIMIT, "reset");
    for family in [V4, V6] {
        let listener = full_of_dead(&lab, &limiter, family);
        limiter.kill();
        limiter.run();
        agrees(&lab, &limiter, family);
        limiter.stop();
        // Without a daemon, the kernel gives back what the owner lets go of, and keeps the rest.
        for _ in 0..=LIMIT {
            drop(listener.accept().expect("it is in the queue"));
        }
        drop(listener);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 0);
        let listener = listener_at(&lab, family);
        assert_eq!(connect_and_reset(&lab, family), LIMIT as usize);
        assert_eq!(limiter.source("smtp", family.source()).connections, u64::from(LIMIT));
        drop(listener);
        // Nobody has accepted them, so nobody lets go: the kernel says that they are destroyed.
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 0);
        limiter.run();
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 0);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn who_is_refused_because_of_its_dead_is_told_so() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 2, "reply");
    for family in [V4, V6] {
        let listener = listener_at(&lab, family);
        for _ in 0..2 {
            reset(lab.dial(family.source(), family.port(25)).expect("there is room"));
        }
        sockets::with_dead(&lab.host, &limiter, ("smtp", 25), family.source(), (0, 2));
        let reply = Limiter::smtp_reply(2, family.source());
        assert_eq!(lab.answer(family.source(), family.port(25)), Answer::Line(reply));
        drop(listener);
    }
    sockets::settled(&lab.host, &limiter, 25);
}
