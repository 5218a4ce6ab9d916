//! The ledger against the kernel's socket table.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::pinned::Ledger;
use crate::support::{Lab, Limiter, Sink, V4, V6, eventually, same, truth};

const CONFIG: &str = "reconcile_seconds = 5\n[defaults]\nmax_connections = 8\nresponse = \"reset\"\n";

#[test]
fn verify_finds_what_is_wrong_and_corrects_it_once() {
    let Some(lab) = Lab::new() else { return };
    let _sink = Sink::start(&lab, 25);
    // The daemon will not be faster.
    let limiter = Limiter::start_with(&lab, &CONFIG.replace("= 5", "= 86400"));
    for (round, family) in (1_u64..).zip([V4, V6]) {
        let source = family.source();
        let _held: Vec<TcpStream> = (0..3).map(|_| lab.served(source, family.port(25))).collect();
        truth::agree(&lab.host, &limiter, ("smtp", 25), source, 3);
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
        assert!(what.contains("was counted 7, and has 3 in the socket table"), "{what}");
        assert_eq!(limiter.source("smtp", source).connections, 3);
        assert_eq!(limiter.counter("smtp", "drift"), 4 * round, "four connections too many each time");
    }
    let warnings = limiter.json(&["status"])["warnings"].to_string();
    assert!(warnings.contains("the count was wrong by 8 connections"), "{warnings}");
}

#[test]
fn the_daemon_corrects_a_count_by_itself_and_says_so() {
    let Some(lab) = Lab::new() else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, CONFIG);
    for family in [V4, V6] {
        let source = family.source();
        let _held = lab.served(source, family.port(25));
        truth::agree(&lab.host, &limiter, ("smtp", 25), source, 1);
        Ledger::open(&limiter).set_connections(source, 8);
        eventually("it is corrected", Duration::from_secs(30), || {
            same("connections", &limiter.source("smtp", source).connections, &1)
        });
        drop(lab.served(source, family.port(25)));
    }
    let log = limiter.log();
    assert!(log.contains("was counted 8, and has 1 in the socket table: drift, corrected"), "{log}");
}

#[test]
fn what_is_counted_is_never_corrected_while_it_moves() {
    let Some(lab) = Lab::new() else { return };
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
    truth::settled(&lab.host, &limiter, 25);
}
