// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a refused client is told is the verdict on its own connection, whatever has changed by the time it is told.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aya::maps::{Array, Map, MapData};
use limiter_common::grounds::{Refused, SLOTS};

use limiter_lab::client::{answer, first_line, knock};
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, same, sockets};

/// A SYN of `source` that is refused, and whose SYN-ACK is lost: nobody has told it anything yet.
#[track_caller]
fn refused_and_not_told(lab: &Lab, limiter: &Limiter, source: IpAddr, smtp: SocketAddr) -> TcpStream {
    let before = limiter.counter("smtp", "refused");
    lab.deafen(source);
    let client = lab.client.run(|| knock(source, smtp));
    eventually("the SYN is refused", SOON, || {
        same("refused", &limiter.counter("smtp", "refused"), &(before + 1))
    });
    client
}

/// What it is told when it can hear again.
fn told(lab: &Lab, source: IpAddr, client: &TcpStream) -> Answer {
    lab.undeafen(source);
    first_line(client, SOON)
}

/// What one is told that held so many connections when it might hold fewer.
fn over(count: u32, limit: u32, source: IpAddr) -> String {
    let reached = Limiter::smtp_reply(limit, source);
    reached.replace(&format!("({limit} of {limit})"), &format!("({count} of {limit})"))
}

/// Connections of `source` that are served.
fn held(lab: &Lab, source: IpAddr, smtp: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| lab.served(source, smtp)).collect()
}

fn holds(limiter: &Limiter, source: IpAddr, count: u64) {
    eventually("the others have left", SOON, || {
        same("connections", &limiter.source("smtp", source).connections, &count)
    });
}

#[test]
fn a_client_is_told_the_verdict_on_its_syn_whatever_was_changed_since() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, "[service.smtp]\nmax_connections = 3\nwait = \"0s\"\n");
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let mut three = held(&lab, source, smtp, 3);
        let verdict = Answer::Line(Limiter::smtp_reply(3, source));

        let client = refused_and_not_told(&lab, &limiter, source, smtp);
        three.truncate(1);
        holds(&limiter, source, 1);
        assert_eq!(told(&lab, source, &client), verdict, "two have left");

        three.extend(held(&lab, source, smtp, 2));
        let client = refused_and_not_told(&lab, &limiter, source, smtp);
        limiter.ok(&["set", "smtp", "max_connections=50"]);
        assert_eq!(told(&lab, source, &client), verdict, "the limit was raised");
        limiter.ok(&["set", "smtp", "max_connections=3"]);

        let client = refused_and_not_told(&lab, &limiter, source, smtp);
        limiter.configure("[service.smtp]\nmax_connections = 3\nmax_total = 3\nwait = \"0s\"\n");
        limiter.ok(&["reload"]);
        assert_eq!(told(&lab, source, &client), verdict, "the whole service is full by now");

        let client = refused_and_not_told(&lab, &limiter, source, smtp);
        limiter.configure("[service.smtp]\nmax_connections = 3\nwait = \"0s\"\n");
        limiter.ok(&["reload"]);
        let Answer::Line(line) = told(&lab, source, &client) else { panic!("it is to be told") };
        assert!(
            line.ends_with("Too many connections (3 of 3) to this service, wait and try again"),
            "{line}"
        );

        limiter.ok(&["set", "smtp", "max_connections=1"]);
        let client = refused_and_not_told(&lab, &limiter, source, smtp);
        drop(three);
        holds(&limiter, source, 0);
        let verdict = Answer::Line(over(3, 1, source));
        assert_eq!(told(&lab, source, &client), verdict, "it held three when one was allowed");
        limiter.ok(&["set", "smtp", "max_connections=3"]);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

/// Where another handshake has displaced the verdict, the connection is judged when it is established.
#[test]
fn a_client_whose_verdict_was_displaced_is_told_what_holds_when_it_is_connected() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start_with(&lab, "[service.smtp]\nmax_connections = 3\nwait = \"0s\"\n");
    let map = MapData::from_pin(limiter.pins().join("REFUSED")).unwrap();
    let mut slots: Array<_, Refused> = Map::Array(map).try_into().unwrap();
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let mut connections = held(&lab, source, smtp, 3);
        let mut displaced = || {
            let client = refused_and_not_told(&lab, &limiter, source, smtp);
            let mut noted = 0;
            for slot in 0..SLOTS {
                noted += u32::from(slots.get(&slot, 0).unwrap().word != 0);
                slots.set(slot, Refused::default(), 0).unwrap();
            }
            assert_eq!(noted, 1, "the SYN was refused");
            client
        };
        let client = displaced();
        limiter.ok(&["set", "smtp", "max_connections=2"]);
        assert_eq!(told(&lab, source, &client), Answer::Line(over(3, 2, source)));
        let client = displaced();
        connections.truncate(1);
        holds(&limiter, source, 1);
        assert_eq!(told(&lab, source, &client), Answer::Reset, "nothing is over a limit");
        limiter.ok(&["set", "smtp", "max_connections=3"]);
        drop(connections);
        sockets::settled(&lab.host, &limiter, 25);
    }
    limiter.stop();
    let log = limiter.log();
    assert!(log.contains("2 clients got a reset instead (2 of them because the reason was lost)"), "{log}");
}

/// Clients come and go, and the limit goes up and down: whoever is refused is refused by the low one, and is told of it.
#[test]
fn in_a_burst_no_client_is_told_a_number_that_was_not_the_verdicts() {
    const LOW: u32 = 8;
    const CLIENTS: u32 = 12;
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::with_backlog(&lab, 25, 1024);
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 8\nwait = \"0s\"\n[ladder]\nreplies = \"none\"\n",
    );
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let stop = AtomicBool::new(false);
        let answers: Vec<Answer> = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut answers = Vec::new();
                        while !stop.load(Ordering::Relaxed) {
                            answers.push(lab.client.run(|| answer(source, smtp, SOON).1));
                        }
                        answers
                    })
                })
                .collect();
            for _ in 0..20 {
                limiter.ok(&["set", "smtp", "max_connections=1000000"]);
                limiter.ok(&["set", "smtp", "max_connections=8"]);
            }
            stop.store(true, Ordering::Relaxed);
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        let refused: Vec<_> = answers.into_iter().filter(|answer| !answer.is_service()).collect();
        // The server lets go of connections a little after their clients, and while the limit is high others come.
        let most = limiter.source("smtp", source).peak as u32;
        let verdicts: Vec<_> = (LOW..=most).map(|count| Answer::Line(over(count, LOW, source))).collect();
        let others: Vec<_> = refused.iter().filter(|answer| !verdicts.contains(answer)).collect();
        assert!(others.is_empty(), "{} of {}: {others:?}", others.len(), refused.len());
        assert!(refused.len() > 20, "{} were refused", refused.len());
        sockets::settled(&lab.host, &limiter, 25);
    }
}

/// Handshakes that were held back and wait.
#[test]
fn waiters_are_told_the_count_and_the_limit_of_the_moment_in_which_they_are_refused() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, "[service.smtp]\nmax_connections = 3\nwait = \"60s\"\n");
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        lab.deafen(source);
        let clients: Vec<_> = (0..5).map(|_| lab.client.run(|| knock(source, smtp))).collect();
        eventually("the SYNs are there", SOON, || {
            same("half open", &sockets::half_open(&lab.host, 25).len(), &5)
        });
        lab.undeafen(source);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 3);
        limiter.ok(&["set", "smtp", "max_connections=1", "wait=0s"]);
        let lines = clients.iter().map(|client| first_line(client, SOON));
        let told: Vec<_> = lines.filter(|answer| !answer.is_service()).collect();
        assert_eq!(told, [over(3, 1, source), over(3, 1, source)].map(Answer::Line));
        limiter.ok(&["set", "smtp", "max_connections=3", "wait=60s"]);
        drop(clients);
        sockets::settled(&lab.host, &limiter, 25);
    }
}
