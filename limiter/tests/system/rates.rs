// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How fast one source may connect.

use std::time::{Duration, Instant};

use limiter_lab::client::knock;
use limiter_lab::pinned::Ledger;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, same, sockets};

/// A burst of three, then one every two seconds.
const CONFIG: &str = "
[service.smtp]
max_connections = 100
response = \"reply\"
rate = \"30/min\"
burst = 3
[ladder]
replies = \"none\"
";
const INTERVAL: Duration = Duration::from_secs(2);

#[test]
fn a_source_has_its_burst_and_then_its_rate() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, CONFIG);
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let started = Instant::now();
        let mut served = 0;
        let mut refused = 0;
        // As fast as it can, for the time of two more connections and a half.
        while started.elapsed() < INTERVAL * 5 / 2 {
            match lab.answer(source, smtp) {
                Answer::Line(line) if line.starts_with("220 ") => served += 1,
                Answer::Line(line) => {
                    assert!(line.contains("Too many new connections from this IP ["), "{line}");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        // On a busy machine the last try may come late, and find one more.
        let allowed = 3 + started.elapsed().as_millis() / INTERVAL.as_millis();
        assert!((5..=allowed).contains(&served), "{served} served, {refused} refused, {allowed} allowed");
        assert!(refused > 0);
        // A neighbour is not concerned.
        drop(lab.served(family.sources[1], smtp));
    }
    assert!(limiter.counter("smtp", "refused_rate") > 0);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_handshake_that_is_not_completed_pays_nothing() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, CONFIG);
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        drop(lab.served(source, smtp));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
        let due = Ledger::open(&limiter).due_ns(source);
        lab.deafen(source);
        let half_open: Vec<_> = (0..20).map(|_| lab.client.run(|| knock(source, smtp))).collect();
        eventually("the SYNs are there", SOON, || {
            let from_here = sockets::half_open(&lab.host, 25);
            same("half open", &from_here.iter().filter(|c| c.remote.ip() == source).count(), &20)
        });
        drop(half_open);
        lab.undeafen(source);
        assert_eq!(Ledger::open(&limiter).due_ns(source), due);
        for _ in 1..3 {
            drop(lab.served(source, smtp));
        }
    }
    assert_eq!(limiter.counter("smtp", "refused"), 0);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_restart_of_the_daemon_forgets_no_debt_and_a_rate_can_be_taken_away() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start_with(&lab, &CONFIG.replace("30/min", "1/min"));
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        for _ in 0..3 {
            drop(lab.served(source, smtp));
        }
        limiter.kill();
        limiter.run();
        assert!(!lab.answer(source, smtp).is_service(), "it has not waited");
        let explained = limiter.ok(&["explain", &source.to_string()]);
        assert!(explained.contains("refused: rate"), "{explained}");
    }
    limiter.ok(&["set", "smtp", "rate=none"]);
    for family in [V4, V6] {
        drop(lab.served(family.source(), family.port(25)));
    }
    sockets::settled(&lab.host, &limiter, 25);
}
