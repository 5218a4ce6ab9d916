// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Limits that change while connections live.

use std::net::{IpAddr, TcpStream};

use limiter_lab::client::{ask, first_line, knock};
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, same, sockets};

const SMTP: (&str, u16) = ("smtp", 25);

/// Fails if any of the sessions is no longer served.
#[track_caller]
fn all_work(sessions: &[TcpStream]) {
    for (n, session) in sessions.iter().enumerate() {
        assert_eq!(ask(session, "NOOP", SOON), Answer::Line("250 2.0.0 Ok".to_owned()), "session {n}");
    }
}

#[test]
fn a_raised_limit_is_in_force_for_the_next_syn() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 8, "reply");
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        limiter.ok(&["set", "smtp", "max_connections=8"]);
        let mut sessions: Vec<TcpStream> = (0..8).map(|_| lab.served(source, smtp)).collect();
        assert_eq!(lab.answer(source, smtp), Answer::Line(Limiter::smtp_reply(8, source)));
        limiter.ok(&["set", "smtp", "max_connections=20"]);
        assert_eq!(limiter.source("smtp", source).limit, 20);
        sessions.extend((8..20).map(|_| lab.served(source, smtp)));
        assert_eq!(lab.answer(source, smtp), Answer::Line(Limiter::smtp_reply(20, source)));
        sockets::agree(&lab.host, &limiter, SMTP, source, 20);
        all_work(&sessions);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_limit_lowered_below_the_live_count_cuts_nobody_and_lets_nobody_in_until_there_is_room() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 8, "reset");
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        limiter.ok(&["set", "smtp", "max_connections=8"]);
        let mut sessions: Vec<TcpStream> = (0..8).map(|_| lab.served(source, smtp)).collect();
        limiter.ok(&["set", "smtp", "max_connections=3"]);
        sockets::agree(&lab.host, &limiter, SMTP, source, 8);
        while sessions.len() >= 3 {
            all_work(&sessions);
            assert_eq!(lab.answer(source, smtp), Answer::Reset, "with {} live", sessions.len());
            sessions.pop();
            sockets::agree(&lab.host, &limiter, SMTP, source, u64::try_from(sessions.len()).unwrap());
        }
        sessions.push(lab.served(source, smtp));
        assert_eq!(lab.answer(source, smtp), Answer::Reset, "three is the limit now");
        limiter.ok(&["set", "smtp", "max_connections=4"]);
        sessions.push(lab.served(source, smtp));
        all_work(&sessions);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_handshake_under_way_when_the_limit_is_lowered_waits_for_room() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 4, "reset");
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        limiter.ok(&["set", "smtp", "max_connections=4"]);
        let mut sessions: Vec<TcpStream> = (0..2).map(|_| lab.served(source, smtp)).collect();

        lab.deafen(source);
        let late = lab.client.run(|| knock(source, smtp));
        eventually("the SYN is admitted", SOON, || {
            same("half open", &sockets::half_open(&lab.host, 25).len(), &1)
        });
        limiter.ok(&["set", "smtp", "max_connections=2"]);
        lab.undeafen(source);

        eventually("its ACK is held at the gate", SOON, || {
            let held = limiter.source("smtp", source).held;
            if held > 0 { Ok(()) } else { Err(format!("held: {held}")) }
        });
        sockets::agree(&lab.host, &limiter, SMTP, source, 2);
        all_work(&sessions);
        sessions.pop();
        assert!(first_line(&late, SOON).is_service(), "room for the one that waited");
        sockets::agree(&lab.host, &limiter, SMTP, source, 2);
        drop((late, sessions));
        sockets::settled(&lab.host, &limiter, 25);
    }
}

/// What `limiter explain` says of `address` at `service`: verdict, connections and limit.
#[track_caller]
fn explained(limiter: &Limiter, address: IpAddr, service: &str) -> (String, u64, u64) {
    let explanation = limiter.json(&["explain", &address.to_string()]);
    let services = explanation["services"].as_array().expect("a list of services");
    let mine = services.iter().find(|entry| entry["service"] == service);
    let mine = mine.unwrap_or_else(|| panic!("no {service} in {explanation:#}"));
    let number = |key: &str| mine[key].as_u64().unwrap_or_else(|| panic!("{key} is no number in {mine}"));
    (mine["verdict"].as_str().expect("a verdict").to_owned(), number("connections"), number("limit"))
}

#[test]
fn explain_foretells_what_becomes_of_the_next_connection() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sinks = [Sink::start(&lab, 25), Sink::start(&lab, 143)];
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nmax_connections = 2\nresponse = \"reset\"\n[service.imap]\nmax_connections = 3\n",
    );
    for family in [V4, V6] {
        let source = family.source();
        let mut sessions = Vec::new();
        for held in 0..2 {
            assert_eq!(explained(&limiter, source, "smtp"), ("admit".to_owned(), held, 2));
            sessions.push(lab.served(source, family.port(25)));
        }
        assert_eq!(explained(&limiter, source, "smtp"), ("refuse".to_owned(), 2, 2));
        assert_eq!(lab.answer(source, family.port(25)), Answer::Reset);
        assert_eq!(explained(&limiter, source, "imap"), ("admit".to_owned(), 0, 3));
        assert_eq!(explained(&limiter, family.sources[1], "smtp"), ("admit".to_owned(), 0, 2));
        limiter.ok(&["set", "smtp", "max_connections=3"]);
        assert_eq!(explained(&limiter, source, "smtp"), ("admit".to_owned(), 2, 3));
        limiter.ok(&["set", "smtp", "max_connections=2"]);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_refused_source_is_served_again_as_soon_as_it_has_closed_one() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 1, "reply");
    let (source, smtp) = (V4.source(), V4.port(25));
    let mut session = lab.served(source, smtp);
    for _ in 0..20 {
        assert_eq!(lab.answer(source, smtp), Answer::Line(Limiter::smtp_reply(1, source)));
        assert_eq!(ask(&session, "QUIT", SOON), Answer::Line("221 2.0.0 Bye".to_owned()));
        assert_eq!(first_line(&session, SOON), Answer::Closed, "the server lets go before the client knows");
        session = lab.served(source, smtp);
    }
    assert_eq!(limiter.source("smtp", source).refused, 20);
    drop(session);
    sockets::settled(&lab.host, &limiter, 25);
}
