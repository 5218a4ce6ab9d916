// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter connections` and `limiter close`: what is known of each connection, and its end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use limiter_lab::client::reset;
use limiter_lab::sink::listener;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, sockets};
use serde_json::Value;

use crate::support::schema::is_as_its_schema_says;

const LIMIT: u32 = 3;

/// A connection that was greeted.
fn greeted(lab: &Lab, family: limiter_lab::Family, nth: usize) -> TcpStream {
    let stream = lab.dial(family.sources[nth], family.port(25)).expect("there is a place");
    let greeting = client::first_line(&stream, SOON);
    assert!(greeting.is_service(), "{greeting:?}");
    stream
}

/// What is listed.
fn listed(limiter: &Limiter, arguments: &[&str]) -> Vec<Value> {
    let listed = limiter.json(&[&["connections"], arguments].concat());
    is_as_its_schema_says("connections", &listed);
    listed["connections"].as_array().expect("a list").clone()
}

#[test]
fn each_connection_is_listed_with_what_the_kernel_knows_of_it() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, LIMIT, "reset");
    let _sink = Sink::start(&lab, 25);
    assert_eq!(limiter.ok(&["connections"]), "no connection\n");
    for (family, all) in [(V4, 3), (V6, 6)] {
        let source = family.source().to_string();
        let mut first = greeted(&lab, family, 0);
        first.write_all(b"NOOP\r\n").unwrap();
        let second = greeted(&lab, family, 0);
        let other = greeted(&lab, family, 1);
        eventually("the bytes are there", SOON, || {
            let lines = listed(&limiter, &[&source]);
            if lines.iter().any(|line| line["received_bytes"] == 6) {
                Ok(())
            } else {
                Err(format!("{lines:?}"))
            }
        });
        let lines = listed(&limiter, &[&source]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let port = first.local_addr().unwrap().port();
        let line = lines.iter().find(|line| line["port"] == port).expect("it is listed");
        assert_eq!(line["service"], "smtp", "{line}");
        assert_eq!(line["address"], source.as_str(), "{line}");
        assert_eq!(line["local"], family.port(25).to_string(), "{line}");
        assert_eq!(line["state"], "open", "{line}");
        assert!(line["age_seconds"].as_f64().is_some_and(|age| age < 60.0), "{line}");
        assert!(line["idle_seconds"].as_f64().is_some_and(|idle| idle < 60.0), "{line}");
        assert!(line["sent_bytes"].as_u64().is_some_and(|sent| sent > 6), "the greeting: {line}");
        assert_eq!(line["process"]["pid"], std::process::id(), "the mail daemon is this process: {line}");
        assert_eq!(listed(&limiter, &[]).len(), all);
        assert_eq!(listed(&limiter, &[&source, "--service", "imap"]), Vec::<Value>::new());
        assert_eq!(listed(&limiter, &[&source, "--service", "smtp"]).len(), 2);
        // The next family finds these still there.
        std::mem::forget((first, second, other));
    }
    let network = ipv4_network(&V4.source().to_string());
    assert_eq!(listed(&limiter, &[&network]).len(), 3, "a whole network");
    let text = limiter.ok(&["connections", &V4.source().to_string()]);
    assert!(text.starts_with("SERVICE  CLIENT"), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
}

/// The network of an address with a prefix length of 24.
fn ipv4_network(text: &str) -> String {
    let (bytes, _) = text.rsplit_once('.').expect("IPv4");
    format!("{bytes}.0/24")
}

#[test]
fn the_dead_are_listed_until_the_mail_daemon_lets_go() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, LIMIT, "reset");
    for family in [V4, V6] {
        let listener = listener(&lab, family.port(25), 16);
        reset(lab.dial(family.source(), family.port(25)).expect("there is a place"));
        let source = family.source().to_string();
        eventually("it is listed as dead", SOON, || {
            let lines = listed(&limiter, &[&source]);
            let is_dead = |line: &Value| line["state"] == "dead" && line["port"].is_null();
            if lines.len() == 1 && is_dead(&lines[0]) { Ok(()) } else { Err(format!("{lines:?}")) }
        });
        assert!(listed(&limiter, &[&source])[0]["age_seconds"].as_f64().is_some_and(|age| age < 60.0));
        assert_eq!(
            limiter.ok(&["close", &source]),
            "no matching connection\n",
            "it is the daemon's to let go"
        );
        drop(listener.accept());
        eventually("it is gone", SOON, || {
            let lines = listed(&limiter, &[&source]);
            if lines.is_empty() { Ok(()) } else { Err(format!("{lines:?}")) }
        });
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_connection_older_than_the_limiter_has_no_age() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let _old = greeted(&lab, V4, 0);
    let limiter = Limiter::start(&lab, LIMIT, "reset");
    let lines = listed(&limiter, &[]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0]["age_seconds"].is_null(), "nobody knows: {lines:?}");
    assert!(limiter.ok(&["connections"]).contains("?: not known"));
}

#[test]
fn what_is_closed_gives_its_place_back_at_once() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, LIMIT, "reset");
    let _sink = Sink::start(&lab, 25);
    for family in [V4, V6] {
        let source = family.source().to_string();
        let held: Vec<TcpStream> = (0..LIMIT).map(|_| greeted(&lab, family, 0)).collect();
        let bystander = greeted(&lab, family, 1);
        assert_eq!(lab.answer(family.source(), family.port(25)), Answer::Reset, "it is full");
        let said = limiter.ok(&["close", &source, "--dry-run"]);
        assert!(said.ends_with(": would close 3 connections of 3\n"), "{said}");
        is_as_its_schema_says("close", &limiter.json(&["close", &source, "--dry-run"]));
        let said = limiter.ok(&["close", &source, "--service", "imap"]);
        assert_eq!(said, "no matching connection\n");
        assert_eq!(lab.answer(family.source(), family.port(25)), Answer::Reset, "nothing was closed");
        let said = limiter.ok(&["close", &source]);
        assert!(said.starts_with("smtp: ") && said.ends_with(": closed 3 connections, 0 left\n"), "{said}");
        for mut stream in held {
            let ended = stream.read(&mut [0; 64]).map_err(|error| error.kind());
            assert!(
                matches!(ended, Err(std::io::ErrorKind::ConnectionReset)),
                "the client is told: {ended:?}"
            );
        }
        drop(greeted(&lab, family, 0));
        assert_eq!(listed(&limiter, &[&family.sources[1].to_string()]).len(), 1, "the bystander stays");
        drop(bystander);
    }
    eventually("the daemon's log says who did it", SOON, || {
        let is_said = |line: &str| line.contains("changed by") && line.contains("closed 3 connections");
        if limiter.log().lines().any(is_said) { Ok(()) } else { Err(limiter.log()) }
    });
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn only_those_that_have_been_idle_for_so_long_are_closed() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, LIMIT, "reset");
    let _sink = Sink::start(&lab, 25);
    let source = V4.source().to_string();
    let mut idle = greeted(&lab, V4, 0);
    let mut busy = greeted(&lab, V4, 0);
    let said = limiter.ok(&["close", &source, "--idle", "1h"]);
    assert_eq!(said, "no matching connection\n");
    eventually("one has been idle for two seconds", Duration::from_secs(20), || {
        busy.write_all(b"NOOP\r\n").unwrap();
        let lines = listed(&limiter, &[&source]);
        let port = idle.local_addr().unwrap().port();
        let is_idle = |line: &Value| line["port"] == port && line["idle_seconds"].as_f64() > Some(2.0);
        if lines.iter().any(is_idle) { Ok(()) } else { Err(format!("{lines:?}")) }
    });
    let said = limiter.ok(&["close", &source, "--idle", "2s"]);
    assert!(said.ends_with(": closed 1 connection, 1 left\n"), "{said}");
    assert!(idle.read(&mut [0; 64]).is_err(), "it was the idle one");
    busy.write_all(b"NOOP\r\n").expect("and not the other");
    assert_eq!(listed(&limiter, &[&source]).len(), 1);
}

#[test]
fn wrong_words_close_nothing() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, LIMIT, "reset");
    let _sink = Sink::start(&lab, 25);
    let _held = greeted(&lab, V4, 0);
    let source = V4.source().to_string();
    for wrong in [
        vec!["close"],
        vec!["close", "example.net"],
        vec!["close", source.as_str(), "--idle", "soon"],
        vec!["close", source.as_str(), "--service", "web"],
        vec!["connections", "--service", "web"],
        vec!["connections", "203.0.113.7/24"],
    ] {
        assert_eq!(limiter.cli(&wrong).code, Some(2), "{wrong:?}");
    }
    assert_eq!(listed(&limiter, &[]).len(), 1);
}
