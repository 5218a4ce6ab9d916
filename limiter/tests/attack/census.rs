// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A census of a hundred thousand sockets, and what it does to those who connect meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::honest::EndOf;
use crate::lab::{AttackLab, nobody};
use crate::raw::Crowd;
use limiter_lab::client::answer;
use limiter_lab::sink::listener;
use limiter_lab::{Limiter, SOON, Sink, V4, eventually, same, say};

const SOCKETS: u64 = 100_000;
/// A source has so many of them, from these ports on.
const CROWD: u16 = 5_000;
const FIRST_PORT: u16 = 20_001;
/// Looks at the socket table, and as many times in between without.
const ROUNDS: u32 = 20;
/// What the slowest in a hundred may wait longer while the table is looked at; a busy machine needs most of it.
const LONGER: Duration = Duration::from_millis(50);

/// How long it took from the SYN to the greeting, until `done`, in order.
fn sample(lab: &AttackLab, done: impl Fn() -> bool + Sync) -> Vec<Duration> {
    lab.client.run(|| {
        let mut took = Vec::new();
        while !done() {
            let called = Instant::now();
            let (_, said) = answer(V4.source(), V4.port(587), SOON);
            assert!(said.is_service(), "{said:?}");
            took.push(called.elapsed());
        }
        took
    })
}

/// The median, and the slowest but one in a hundred.
fn median_and_p99(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

#[test]
#[ignore = "cargo xtask soak runs it: its figures want a machine of their own"]
fn a_census_of_100_000_sockets_does_not_disturb_who_connects_meanwhile() {
    let Some(lab) = AttackLab::new() else { return };
    // Accepted by nobody: an established connection in the queue of a listener takes no file.
    let _queue = listener(&lab, SocketAddr::from(([0_u16; 8], 25)), SOCKETS as i32);
    let _server = Sink::with_backlog(&lab, 587, 1_024);
    let limiter = Limiter::start_with(&lab, "[defaults]\nmax_connections = 10000\nresponse = \"reset\"\n");
    let crowds = u16::try_from(SOCKETS / u64::from(CROWD)).expect("a few");
    for n in 0..crowds {
        let ports = FIRST_PORT..=FIRST_PORT + (CROWD - 1);
        let mut crowd = Crowd::new(&lab, nobody(V4, n), ports, V4.port(25));
        crowd.call();
        crowd.complete();
        crowd.answer_until("all are connected", || {
            let source = limiter.source("smtp", nobody(V4, n));
            same("connections", &source.connections, &u64::from(CROWD))
        });
    }
    let (mut without, mut with, mut looks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let meanwhile = scope.spawn(|| sample(&lab, || over.load(Ordering::Relaxed)));
            let verified = {
                let _end = EndOf(&over);
                limiter.json(&["status", "--verify"])["verified"].clone()
            };
            assert_eq!(verified["differences"], json!([]), "{verified:#}");
            let seen = verified["connections"].as_u64();
            assert!(seen >= Some(SOCKETS), "{verified:#}");
            with.extend(meanwhile.join().expect("everyone is served"));
        });
        let look = began.elapsed();
        looks.push(look);
        let until = Instant::now() + look;
        without.extend(sample(&lab, || Instant::now() >= until));
    }
    let connections = (without.len(), with.len());
    let (without, with) = (median_and_p99(without), median_and_p99(with));
    let (look, _) = median_and_p99(looks);
    say(&format!(
        "census of {SOCKETS} sockets: limiter status --verify takes {look:.1?}; from SYN to greeting without it \
         {:.0?} (p99 {:.0?}), while it runs {:.0?} (p99 {:.0?}), of {} and {} connections",
        without.0, without.1, with.0, with.1, connections.0, connections.1
    ));
    assert!(with.1 <= without.1 + LONGER, "{with:?} instead of {without:?}");
    eventually("only the crowd is there", SOON, || {
        let status = limiter.json(&["status"]);
        let services = status["services"].as_array().ok_or("no services")?;
        let now: u64 = services.iter().filter_map(|service| service["connections"].as_u64()).sum();
        same("connections", &now, &SOCKETS)
    });
}
