// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The administrator's words for refused clients.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use limiter_lab::limiter::HOSTNAME;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, let_time_pass};

#[test]
fn refused_clients_are_told_the_administrators_words_and_after_a_reload_the_new_ones() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let ports = [25, 110, 143, 4190];
    let _sinks = ports.map(|port| Sink::start(&lab, port));
    let file = |more: &str| {
        format!(
            "[defaults]\nmax_connections = 1\nurl = \"https://example.org/?ip={{address}}\"\n\
             message = \"{{count}} of {{limit}} from {{address}} at {{service}} of {{hostname}}, {{reason}}, come {{retry}}\"\n{more}"
        )
    };
    let mut limiter = Limiter::start_with(&lab, &file("[service.sieve]\nmessage = \"über \\\"1\\\"\"\n"));
    let held: Vec<TcpStream> = [V4, V6]
        .iter()
        .flat_map(|family| ports.map(|port| lab.served(family.source(), family.port(port))))
        .collect();
    for family in [V4, V6] {
        let source = family.source();
        let told = |port| lab.answer(source, family.port(port));
        let words = |service| {
            Answer::Line(format!(
                "{}1 of 1 from {source} at {service} of {HOSTNAME}, concurrency, come later \
                 https://example.org/?ip={source}",
                match service {
                    "smtp" => format!("421 4.7.0 {HOSTNAME} "),
                    "imap" => "* BYE [UNAVAILABLE] ".to_owned(),
                    _ => "-ERR [SYS/TEMP] ".to_owned(),
                }
            ))
        };
        assert_eq!([25, 143, 110].map(told), ["smtp", "imap", "pop3"].map(words));
        assert_eq!(
            told(4190),
            Answer::Line(format!("BYE (TRYLATER) \"über \\\"1\\\" https://example.org/?ip={source}\""))
        );
    }

    // A mistake changes nothing, and says where it is.
    limiter.configure(&file("[service.smtp]\nmessage = \"zu viele für dich\"\n"));
    let refused = limiter.cli(&["reload"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains(":7:11: the message of service smtp has the character ü, but"),
        "{refused:?}"
    );
    limiter.configure(&file("[service.imap]\nmessage = \"none\"\nurl = \"none\"\n"));
    let reloaded = limiter.ok(&["reload"]);
    assert!(reloaded.contains("imap: message ") && reloaded.contains("sieve: message "), "{reloaded}");
    let source = V4.source();
    eventually("the new words are told", SOON, || {
        match (lab.answer(source, V4.port(143)), lab.answer(source, V4.port(4190))) {
            (Answer::Line(imap), Answer::Line(sieve))
                if imap == format!("* BYE [UNAVAILABLE] {}", Limiter::words(1, source))
                    && sieve.starts_with("BYE (TRYLATER) \"1 of 1 from ") =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    });
    drop(held);
    // A daemon that takes over says the same.
    limiter.stop();
    limiter.run();
    let _held = lab.served(source, V4.port(143));
    assert_eq!(
        lab.answer(source, V4.port(143)),
        Answer::Line(format!("* BYE [UNAVAILABLE] {}", Limiter::words(1, source)))
    );
}

#[test]
fn who_comes_again_when_it_was_told_to_gets_in() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nrate = \"20/min\"\nburst = 2\nmessage = { rate = \"too fast, come {retry}\" }\n",
    );
    let (source, smtp) = (V4.source(), V4.port(25));
    for _ in 0..2 {
        drop(lab.served(source, smtp));
    }
    let asked = Instant::now();
    let told = lab.answer(source, smtp);
    let seconds = match &told {
        Answer::Line(line) => line
            .strip_prefix(&format!("421 4.7.0 {HOSTNAME} too fast, come in "))
            .and_then(|line| line.split_once(" second"))
            .and_then(|(seconds, _)| seconds.parse::<u64>().ok()),
        _ => None,
    };
    let seconds = seconds.unwrap_or_else(|| panic!("{told:?}"));
    assert!((1..=3).contains(&seconds), "the rate is one in three seconds: {told:?}");
    let rest = (asked + Duration::from_secs(seconds)).saturating_duration_since(Instant::now());
    let_time_pass(rest, "the client was told to come then");
    drop(lab.served(source, smtp));
    assert_eq!(limiter.counter("smtp", "refused_rate"), 1);
}
