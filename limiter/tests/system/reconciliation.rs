// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ledger against the kernel's socket table.

use std::net::TcpStream;
use std::time::Duration;

use limiter_common::{Count, slot::SLOTS};

use limiter_lab::pinned::{Ledger, Records};
use limiter_lab::{Lab, Limiter, SOON, Sink, V4, V6, eventually, same, sockets};

const CONFIG: &str = "reconcile_seconds = 5\n[defaults]\nmax_connections = 8\nresponse = \"reset\"\n";

#[test]
fn verify_finds_what_is_wrong_and_corrects_it_once() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    // The daemon will not be faster.
    let limiter = Limiter::start_with(&lab, &CONFIG.replace("= 5", "= 86400"));
    for (round, family) in (1_u64..).zip([V4, V6]) {
        let source = family.source();
        let _held: Vec<TcpStream> = (0..3).map(|_| lab.served(source, family.port(25))).collect();
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 3);
        let verified = limiter.json(&["status", "--verify"])["verified"].clone();
        assert_eq!(verified["differences"].as_array().unwrap().len(), 0, "{verified:#}");

        // Nothing the limiter does makes this happen, so the test does it behind its back.
        Ledger::open(&limiter).set_connections(source, 7);
        assert_eq!(limiter.source("smtp", source).connections, 7);
        let verified = limiter.json(&["status", "--verify"])["verified"].clone();
        let differences = verified["differences"].as_array().unwrap();
        assert_eq!(differences.len(), 1, "{verified:#}");
        assert_eq!(differences[0]["corrected"], true);
        let what = differences[0]["what"].as_str().unwrap();
        assert!(what.contains("the ledger counts 7 connections, the kernel has 3"), "{what}");
        assert_eq!(limiter.source("smtp", source).connections, 3);
        assert_eq!(limiter.counter("smtp", "drift"), 4 * round, "four connections too many each time");
    }
    let warnings = limiter.json(&["status"])["warnings"].to_string();
    assert!(warnings.contains("a count that was wrong by 8 connections"), "{warnings}");
}

#[test]
fn the_record_of_a_connection_that_is_gone_is_forgotten_and_nothing_else() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, &CONFIG.replace("= 5", "= 86400"));
    let held = [V4, V6].map(|family| lab.served(family.source(), family.port(25)));
    let mut records = Records::open(&limiter);
    // An end is always reported, so the test makes records of its own.
    for cookie in [u64::MAX, u64::MAX - 1, u64::MAX - u64::from(SLOTS)] {
        assert!(records.insert(cookie), "there is room");
    }
    assert_eq!(records.len(), (4, 1));
    let verified = limiter.json(&["status", "--verify"])["verified"].clone();
    assert_eq!(verified["differences"].as_array().unwrap().len(), 0, "{verified:#}");
    assert_eq!(records.len(), (2, 0));
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_source_without_connections_is_forgotten_when_its_time_is_over_and_not_before() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, &format!("remember_seconds = 3\n{CONFIG}"));
    let known = || limiter.json(&["list"])["sources"].as_array().unwrap().len();
    let held = lab.served(V4.source(), V4.port(25));
    drop(lab.served(V6.source(), V6.port(25)));
    eventually("who holds nothing is forgotten", SOON, || same("sources", &known(), &1));
    assert_eq!(limiter.source("smtp", V4.source()).connections, 1);
    drop(held);
    eventually("everyone is forgotten", SOON, || same("sources", &known(), &0));

    // Half way is as good as nothing: whoever is marked and not removed could never come in again.
    for family in [V4, V6] {
        drop(lab.served(family.source(), family.port(25)));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 0);
        Ledger::open(&limiter).set_count(family.source(), Count::COLLECTED);
        drop(lab.served(family.source(), family.port(25)));
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn the_daemon_corrects_a_count_by_itself_and_says_so() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, CONFIG);
    for family in [V4, V6] {
        let source = family.source();
        let _held = lab.served(source, family.port(25));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 1);
        Ledger::open(&limiter).set_connections(source, 8);
        eventually("it is corrected", Duration::from_secs(30), || {
            same("connections", &limiter.source("smtp", source).connections, &1)
        });
        drop(lab.served(source, family.port(25)));
    }
    let log = limiter.log();
    assert!(log.contains("the ledger counts 8 connections, the kernel has 1: drift, corrected"), "{log}");
}

#[test]
fn what_is_counted_is_never_corrected_while_it_moves() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (lab, stop) = (&lab, &stop);
        for family in [V4, V6] {
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(lab.dial(family.source(), family.port(25)));
                }
            });
        }
        for _ in 0..30 {
            let verified = limiter.json(&["status", "--verify"])["verified"].clone();
            assert_eq!(verified["differences"].as_array().unwrap().len(), 0, "{verified:#}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    sockets::settled(&lab.host, &limiter, 25);
}
