// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Postfix and Dovecot behind the limiter, and the clients people use: what the ninth connection gets
//! under a limit of 8, and that the mail daemons never hear of it.

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use crate::support::clients::{Python, swaks};
use crate::support::exim::Exim;
use crate::support::mail_daemon::MailDaemon;
use crate::support::{dovecot, postfix};
use limiter_lab::client::first_line;
use limiter_lab::limiter::HOSTNAME;
use limiter_lab::{Answer, Family, Lab, Limiter, SOON, V4, V6, eventually, same, sockets};

const LIMIT: u32 = 8;

/// A service, and how a test recognises what its clients and its daemon say.
struct Service {
    name: &'static str,
    port: u16,
    /// The exception of Python's library for the refusal of this source.
    exception: fn(IpAddr) -> String,
    /// What is in the one line that the daemon logs for each client of this source that reaches it.
    trace: fn(IpAddr) -> Vec<String>,
}

const SMTP: Service = Service {
    name: "smtp",
    port: 25,
    exception: |source| {
        format!("SMTPConnectError(421, b'4.7.0 {HOSTNAME} {}')", Limiter::smtp_words(LIMIT, source))
    },
    trace: |source| vec![" connect from ".to_owned(), format!("[{source}]")],
};

const IMAP: Service = Service {
    name: "imap",
    port: 143,
    exception: |source| format!("error(b'* BYE [UNAVAILABLE] {}')", Limiter::words(LIMIT, source)),
    trace: |source| vec!["imap-login: ".to_owned(), format!("rip={source},")],
};

const POP3: Service = Service {
    name: "pop3",
    port: 110,
    exception: |source| format!("error_proto(b'-ERR [SYS/TEMP] {}')", Limiter::words(LIMIT, source)),
    trace: |source| vec!["pop3-login: ".to_owned(), format!("rip={source},")],
};

/// Eight sessions that work, a ninth that is refused in the words of the protocol, and room again when
/// one is closed.
fn the_ninth_is_refused(
    lab: &Lab,
    limiter: &Limiter,
    daemon: &MailDaemon,
    service: &Service,
    family: Family,
) {
    let source = family.source();
    let at = (service.name, service.port);
    let mut clients = Python::start(lab);
    let open = |clients: &mut Python| clients.open(service.name, source, family.host);
    let mut sessions: Vec<u64> = (1..=LIMIT)
        .map(|n| {
            let id = open(&mut clients).unwrap_or_else(|error| panic!("session {n} is refused: {error}"));
            sockets::agree(&lab.host, limiter, at, source, u64::from(n));
            id
        })
        .collect();

    for _ in 0..2 {
        assert_eq!(
            open(&mut clients),
            Err((service.exception)(source)),
            "the ninth, as Python's library reports it"
        );
    }
    sockets::agree(&lab.host, limiter, at, source, u64::from(LIMIT));
    for &id in &sessions {
        clients.use_session(id);
    }

    clients.close(sessions.remove(0));
    sockets::agree(&lab.host, limiter, at, source, u64::from(LIMIT - 1));
    sessions.push(open(&mut clients).expect("closing one lets the next in"));
    assert_eq!(open(&mut clients), Err((service.exception)(source)), "and only one");

    for &id in &sessions {
        clients.use_session(id);
    }
    for id in sessions {
        clients.close(id);
    }
    sockets::settled(&lab.host, limiter, service.port);
    no_trace_of_refused(daemon, &(service.trace)(source), 9);
}

/// The daemon has logged the coming of exactly those that were served.
fn no_trace_of_refused(daemon: &MailDaemon, trace: &[String], served: usize) {
    let words: Vec<&str> = trace.iter().map(String::as_str).collect();
    eventually("the daemon's log knows the served ones", SOON, || {
        let lines = daemon.lines(&words);
        if lines.len() >= served { Ok(()) } else { Err(format!("{} of {served}: {lines:#?}", lines.len())) }
    });
    let lines = daemon.lines(&words);
    assert_eq!(lines.len(), served, "the daemon's log knows no others: {lines:#?}");
}

#[test]
fn smtplib_gets_421_for_the_ninth_session_and_postfix_never_hears_of_it() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let postfix = postfix::start(&lab);
    let limiter = Limiter::start(&lab, LIMIT, "reply");
    for family in [V4, V6] {
        the_ninth_is_refused(&lab, &limiter, &postfix, &SMTP, family);
    }
}

#[test]
fn imaplib_and_poplib_get_the_refusal_of_their_protocol_and_dovecot_never_hears_of_it() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let dovecot = dovecot::start(&lab);
    let limiter = Limiter::start(&lab, LIMIT, "reply");
    for family in [V4, V6] {
        the_ninth_is_refused(&lab, &limiter, &dovecot, &IMAP, family);
        the_ninth_is_refused(&lab, &limiter, &dovecot, &POP3, family);
    }
}

#[test]
fn swaks_delivers_while_there_is_room_and_prints_the_421_when_there_is_none() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let postfix = postfix::start(&lab);
    let limiter = Limiter::start(&lab, LIMIT, "reply");
    for family in [V4, V6] {
        let source = family.source();
        let mut sessions: Vec<TcpStream> = (1..LIMIT).map(|_| lab.served(source, family.port(25))).collect();

        let delivered = swaks(&lab, family);
        assert_eq!(delivered.code, Some(0), "with one place left: {delivered:?}");
        assert!(delivered.stdout.contains("<-  250 2.0.0 Ok: queued as"), "{delivered:?}");
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, u64::from(LIMIT - 1));

        sessions.push(lab.served(source, family.port(25)));
        let refused = swaks(&lab, family);
        let expected = format!("<** {}", Limiter::smtp_reply(LIMIT, source));
        assert!(
            refused.stdout.lines().any(|line| line.trim_end() == expected),
            "expected {expected:?} in {refused:?}"
        );
        assert_ne!(refused.code, Some(0), "{refused:?}");

        sessions.pop();
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, u64::from(LIMIT - 1));
        let delivered = swaks(&lab, family);
        assert_eq!(delivered.code, Some(0), "with one place left again: {delivered:?}");

        drop(sessions);
        sockets::settled(&lab.host, &limiter, 25);
        no_trace_of_refused(&postfix, &(SMTP.trace)(source), 10);
    }
}

#[test]
fn a_managesieve_client_gets_bye_trylater_for_the_ninth_session() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let dovecot = dovecot::start(&lab);
    let limiter = Limiter::start(&lab, LIMIT, "reply");
    for family in [V4, V6] {
        let (source, sieve) = (family.source(), family.port(4190));
        let sessions: Vec<TcpStream> = (1..=LIMIT)
            .map(|_| {
                let stream = lab.dial(source, sieve).expect("there is room");
                let greeting = first_line(&stream, SOON);
                assert_eq!(
                    greeting,
                    Answer::Line("\"IMPLEMENTATION\" \"Dovecot (Debian) Pigeonhole\"".to_owned())
                );
                stream
            })
            .collect();
        sockets::agree(&lab.host, &limiter, ("sieve", 4190), source, u64::from(LIMIT));
        let bye = format!("BYE (TRYLATER) \"{}\"", Limiter::words(LIMIT, source));
        assert_eq!(lab.answer(source, sieve), Answer::Line(bye));
        drop(sessions);
        sockets::settled(&lab.host, &limiter, 4190);
        // Dovecot logs a client that leaves without logging in, once.
        no_trace_of_refused(&dovecot, &["managesieve-login: ".to_owned(), format!("rip={source},")], 8);
    }
}

#[test]
fn every_refusal_is_closed_by_the_greeter_and_counted() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _postfix = postfix::start(&lab);
    let limiter = Limiter::start(&lab, 1, "reply");
    let (source, smtp) = (V4.source(), V4.port(25));
    let served = lab.served(source, smtp);
    for refusals in 1..=3 {
        let stream = lab.dial(source, smtp).expect("the greeter accepts");
        assert_eq!(first_line(&stream, SOON), Answer::Line(Limiter::smtp_reply(1, source)));
        assert_eq!(first_line(&stream, SOON), Answer::Closed, "after its words");
        let counters = ["refused_concurrency", "replied"].map(|counter| limiter.counter("smtp", counter));
        assert_eq!(counters, [refusals; 2], "refused, and replied to");
        assert_eq!(limiter.source("smtp", source).refused, refusals);
    }
    eventually("the greeter keeps no connection", SOON, || {
        same("connections to port 25", &sockets::established(&lab.host, 25).len(), &1)
    });
    assert_eq!(limiter.source("smtp", source).accepted, 1);
    drop(served);
    sockets::settled(&lab.host, &limiter, 25);
}

/// With 47 of 50 told to come again or left to wait, everything depends on what both sides make of that.
#[test]
fn exim_hands_over_fifty_messages_within_half_a_minute_where_it_may_hold_three_connections() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let postfix = postfix::start(&lab);
    let limiter = Limiter::start(&lab, 3, "reply");
    let exim = Exim::with_queue(&lab, 50);
    let _deliveries = exim.release();
    eventually("every message has arrived", Duration::from_secs(30), || {
        let arrived = postfix.lines(&["postfix/discard[", "status=sent"]).len();
        if arrived == 50 { Ok(()) } else { Err(format!("{arrived} of 50; Exim's log:\n{}", exim.log())) }
    });
    let source = limiter.source("smtp", V4.source());
    assert!(source.refused + source.held > 0, "it has met the limit: {source:?}");
    assert!(source.peak <= 3, "and never passed it: {source:?}");
}
