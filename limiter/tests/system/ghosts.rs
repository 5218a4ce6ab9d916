// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Clients that vanish without a word.

use std::time::{Duration, Instant};

use crate::support::dovecot;
use limiter_lab::{Lab, Limiter, SOON, Sink, V4, V6, eventually, same, sockets};

/// The shortest keepalive there is.
const KEEPALIVE: Duration = Duration::from_secs(30);
const CONFIG: &str = "[defaults]\nmax_connections = 8\nkeepalive = \"30s\"\n";

/// The wire is cut; what held a place must be gone within the time, with room for a busy machine.
fn vanish(lab: &Lab, limiter: &Limiter, (service, port): (&str, u16)) {
    let cut = Instant::now();
    lab.cut();
    eventually("the places are given back", KEEPALIVE + SOON, || {
        let held = [V4, V6].map(|family| limiter.source(service, family.source()).connections);
        same("connections", &held, &[0, 0])
    });
    assert!(sockets::held(&lab.host, port, limiter).is_empty());
    assert!(cut.elapsed() > KEEPALIVE / 2, "gone before anyone could know: {:?}", cut.elapsed());
}

#[test]
fn a_vanished_client_gives_its_place_back_in_the_keepalive_time_and_dovecot_its_slot() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let dovecot = dovecot::start(&lab);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let held: Vec<_> = [V4, V6].map(|family| lab.served(family.source(), family.port(143))).into();
    vanish(&lab, &limiter, ("imap", 143));
    eventually("Dovecot has noticed", SOON, || {
        same("lines", &dovecot.lines(&["imap-login", "Disconnected"]).len(), &2)
    });
    drop(held);
}

#[test]
fn a_client_that_vanishes_while_it_is_spoken_to_is_given_up_in_the_same_time() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let sink = Sink::start(&lab, 25);
    // One that was there before the limiter, and one that came after.
    let before: Vec<_> = [V4, V6].map(|family| lab.served(family.source(), family.port(25))).into();
    let limiter = Limiter::start_with(&lab, CONFIG);
    let after: Vec<_> = [V4, V6].map(|family| lab.served(family.source(), family.port(25))).into();
    for family in [V4, V6] {
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 2);
    }
    // Answered by nobody, and repeated: the kernel sends no probes as long as it has something to say.
    for family in [V4, V6] {
        lab.deafen(family.source());
    }
    sink.say("250-there is more to come\r\n");
    vanish(&lab, &limiter, ("smtp", 25));
    drop((before, after));
}

#[test]
fn a_keepalive_that_is_set_later_is_for_connections_that_are_there_as_well() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 8, "reset");
    let held: Vec<_> = [V4, V6].map(|family| lab.served(family.source(), family.port(25))).into();
    let keepalives = || -> Vec<bool> {
        let listed = limiter.json(&["connections"]);
        let lines = listed["connections"].as_array().expect("a list").iter();
        lines.map(|line| line["keepalive"].as_bool().expect("it is open")).collect()
    };
    assert_eq!(keepalives(), [false, false]);
    limiter.ok(&["set", "imap", "keepalive=30s"]);
    assert_eq!(keepalives(), [false, false], "of another service");
    let outcome = limiter.cli(&["set", "smtp", "keepalive=30s"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    assert_eq!(keepalives(), [true, true]);
    let outcome = limiter.cli(&["set", "smtp", "keepalive=none"]);
    assert!(outcome.stderr.contains("existing connections keep their keepalive"), "{outcome:?}");
    assert_eq!(keepalives(), [true, true]);
    limiter.ok(&["set", "smtp", "keepalive=30s"]);
    // And it is the time that was set: without it, nobody would notice for two hours.
    vanish(&lab, &limiter, ("smtp", 25));
    drop(held);
}
