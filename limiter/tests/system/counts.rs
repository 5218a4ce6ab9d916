// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The counts, held against the kernel's socket table at every step.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use limiter_common::slot::SLOTS;

use limiter_lab::client::knock;
use limiter_lab::lab::V6_NEIGHBOUR;
use limiter_lab::pinned::Records;
use limiter_lab::sink::listener;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, let_time_pass, same, sockets};

const SMTP: (&str, u16) = ("smtp", 25);

#[test]
fn counts_follow_ss_up_and_down_for_both_families_on_one_dual_stack_listener() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 6, "reset");
    let mut sessions: Vec<(TcpStream, TcpStream)> = Vec::new();
    for n in 1..=6 {
        sessions.push((lab.served(V4.source(), V4.port(25)), lab.served(V6.source(), V6.port(25))));
        for family in [V4, V6] {
            sockets::agree(&lab.host, &limiter, SMTP, family.source(), n);
        }
    }
    for family in [V4, V6] {
        assert_eq!(lab.answer(family.source(), family.port(25)), Answer::Reset, "the seventh");
        assert_eq!(limiter.source("smtp", family.source()).peak, 6);
    }
    while let Some((over_v4, over_v6)) = sessions.pop() {
        let left = u64::try_from(sessions.len()).unwrap();
        drop(over_v4);
        sockets::agree(&lab.host, &limiter, SMTP, V4.source(), left);
        sockets::agree(&lab.host, &limiter, SMTP, V6.source(), left + 1);
        drop(over_v6);
        sockets::agree(&lab.host, &limiter, SMTP, V6.source(), left);
    }
    sockets::settled(&lab.host, &limiter, 25);
    for family in [V4, V6] {
        let source = limiter.source("smtp", family.source());
        assert_eq!((source.accepted, source.refused, source.peak), (6, 1, 6), "{source:?}");
    }
}

#[test]
fn a_listener_of_one_family_is_limited_like_a_dual_stack_one() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 2, "reset");
    for family in [V4, V6] {
        let server = listener(&lab, family.port(25), 16);
        let sessions: Vec<TcpStream> =
            (0..2).map(|_| lab.dial(family.source(), family.port(25)).unwrap()).collect();
        sockets::agree(&lab.host, &limiter, SMTP, family.source(), 2);
        assert_eq!(lab.answer(family.source(), family.port(25)), Answer::Reset);
        drop((sessions, server));
        sockets::settled(&lab.host, &limiter, 25);
    }
}

#[test]
fn sources_are_counted_apart_and_hosts_of_one_ipv6_network_together() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 2, "reset");
    let mut sessions = Vec::new();
    for family in [V4, V6] {
        for source in family.sources {
            sessions.extend([lab.served(source, family.port(25)), lab.served(source, family.port(25))]);
            assert_eq!(lab.answer(source, family.port(25)), Answer::Reset, "the third of {source}");
        }
        for source in family.sources {
            sockets::agree(&lab.host, &limiter, SMTP, source, 2);
        }
    }
    assert_eq!(lab.answer(V6_NEIGHBOUR, V6.port(25)), Answer::Reset, "its /64 holds two already");
    drop(sessions);
    sockets::settled(&lab.host, &limiter, 25);
    drop(lab.served(V6_NEIGHBOUR, V6.port(25)));
}

#[test]
fn services_are_counted_apart_and_ports_of_one_service_together() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sinks = [25, 143, 587, 2525].map(|port| Sink::start(&lab, port));
    let config =
        "[defaults]\nmax_connections = 2\nresponse = \"reset\"\n[service.smtp]\nports = [25, 2525]\n";
    let limiter = Limiter::start_with(&lab, config);
    let source = V4.source();
    let mut sessions = vec![lab.served(source, V4.port(25)), lab.served(source, V4.port(2525))];
    for port in [25, 2525] {
        assert_eq!(lab.answer(source, V4.port(port)), Answer::Reset, "port {port}: the service is full");
    }
    sessions.extend([lab.served(source, V4.port(143)), lab.served(source, V4.port(587))]);
    let count = |service| limiter.source(service, source).connections;
    assert_eq!(["smtp", "imap", "submission"].map(count), [2, 1, 1]);
    drop(sessions);
    for port in [25, 143, 587, 2525] {
        sockets::settled(&lab.host, &limiter, port);
    }
}

#[test]
fn ports_that_are_no_mail_service_are_left_alone() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 8025);
    let limiter = Limiter::start(&lab, 1, "reset");
    let sessions: Vec<TcpStream> = (0..5).map(|_| lab.served(V4.source(), V4.port(8025))).collect();
    let list = limiter.json(&["list"]);
    assert_eq!(list["sources"].as_array().map(Vec::len), Some(0), "{list:#}");
    drop(sessions);
}

#[test]
fn a_host_that_talks_to_itself_is_never_refused() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 1, "reset");
    let loopback: [SocketAddr; 2] = ["127.0.0.1:25".parse().unwrap(), "[::1]:25".parse().unwrap()];
    for own in [V4.port(25), V6.port(25)].into_iter().chain(loopback) {
        let sessions: Vec<_> =
            lab.host.run(|| (0..4).map(|_| limiter_lab::answer(own.ip(), own, SOON)).collect());
        for (_, answer) in &sessions {
            assert!(answer.is_service(), "{own} to itself: {answer:?}");
        }
        drop(sessions);
    }
    assert_eq!(limiter.counter("smtp", "refused_concurrency"), 0);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn with_syn_cookies_in_force_counts_agree_and_who_comes_one_by_one_stops_at_the_limit() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    // 2: always, not only when the SYN queue is full.
    lab.host.sysctl("ipv4/tcp_syncookies", "2").unwrap();
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 4, "reset");
    for family in [V4, V6] {
        let source = family.source();
        let mut sessions: Vec<TcpStream> = (0..4).map(|_| lab.served(source, family.port(25))).collect();
        sockets::agree(&lab.host, &limiter, SMTP, source, 4);
        assert_eq!(lab.answer(source, family.port(25)), Answer::Reset);
        sessions.pop();
        sockets::agree(&lab.host, &limiter, SMTP, source, 3);
        sessions.push(lab.served(source, family.port(25)));
        assert_eq!(limiter.source("smtp", source).peak, 4);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_full_accept_queue_neither_counts_nor_keeps_a_place_for_what_it_has_no_room_for() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 8, "reset");
    for family in [V4, V6] {
        let ([source, other, _], smtp) = (family.sources, family.port(25));
        // A backlog of 3 is 4 in the accept queue, and 4 handshakes under way: see sk_acceptq_is_full and
        // inet_csk_reqsk_queue_is_full in include/net.
        let server = listener(&lab, smtp, 3);
        let others: Vec<TcpStream> = (0..2).map(|_| lab.dial(other, smtp).unwrap()).collect();
        // With a full queue the kernel admits no SYN, so the SYNs have to be there before.
        lab.deafen(source);
        let clients: Vec<TcpStream> = lab.client.run(|| (0..4).map(|_| knock(source, smtp)).collect());
        eventually("the SYNs are there", SOON, || {
            same("half open", &sockets::half_open(&lab.host, 25).len(), &4)
        });
        lab.undeafen(source);
        for client in &clients {
            eventually("the client has its SYN-ACK", SOON, || {
                same("connected", &client.peer_addr().is_ok(), &true)
            });
        }
        // Four ACKs found a place, and two of them room in the queue.
        sockets::agree(&lab.host, &limiter, SMTP, source, 2);
        eventually("no place stays reserved", SOON, || {
            same("reserved", &limiter.source("smtp", source).reserved, &0)
        });
        let accepted: Vec<TcpStream> = (0..6).map(|_| server.accept().unwrap().0).collect();
        sockets::agree(&lab.host, &limiter, SMTP, source, 4);
        drop((clients, others, accepted, server));
        sockets::settled(&lab.host, &limiter, 25);
    }
}

#[test]
fn connections_whose_slot_is_taken_are_counted_like_others() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter =
        Limiter::start_with(&lab, "reconcile_seconds = 86400\n[service.smtp]\nmax_connections = 2\n");
    let_time_pass(
        Duration::from_secs(3),
        "the daemon has its first look after a second, and the next one tomorrow",
    );
    let mut records = Records::open(&limiter);
    records.crowd();
    let taken = SLOTS as usize;
    for family in [V4, V6] {
        let held = [0, 1].map(|_| lab.served(family.source(), family.port(25)));
        assert_eq!(records.len(), (taken, 2));
        assert!(!lab.answer(family.source(), family.port(25)).is_service(), "the limit holds for them");
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 2);
        // Of those that are there, none is forgotten with the records that are of no connection.
        for _ in 0..2 {
            limiter.ok(&["status", "--verify"]);
        }
        assert_eq!(records.len(), (0, 2));
        records.crowd();
        drop(held);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 0);
        eventually("no record is beside the slots", SOON, || same("records", &records.len(), &(taken, 0)));
    }
    assert_eq!(limiter.counter("smtp", "uncounted") + limiter.counter("smtp", "drift"), 0);
}

#[test]
fn a_connection_that_there_is_no_room_to_record_is_let_through_and_counted_as_soon_as_there_is() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter =
        Limiter::start_with(&lab, "reconcile_seconds = 86400\n[service.smtp]\nmax_connections = 2\n");
    let_time_pass(
        Duration::from_secs(3),
        "the daemon has its first look after a second, and the next one tomorrow",
    );
    let mut records = Records::open(&limiter);
    records.fill();
    let held = [V4, V6].map(|family| lab.served(family.source(), family.port(25)));
    assert_eq!(limiter.counter("smtp", "uncounted"), 2, "one each, once");
    for family in [V4, V6] {
        let source = limiter.source("smtp", family.source());
        assert_eq!((source.connections, source.reserved), (0, 0), "{source:?}");
    }
    assert!(limiter.log().contains("no room for more connection records"), "{}", limiter.log());

    // What fills the map is of no connection, and forgotten in two looks; the next one counts who is there.
    for _ in 0..2 {
        limiter.ok(&["status", "--verify"]);
    }
    for family in [V4, V6] {
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 1);
    }
    assert_eq!(limiter.counter("smtp", "adopted"), 2);
    // Before Linux 6.12 the kernel does not report the end of what was counted late. The daemon looks for it, but
    // would not before tomorrow, since it was not the daemon that counted them. One that starts knows them.
    limiter.stop();
    limiter.run();
    drop(held);
    eventually("no record is left", SOON, || same("records", &records.len(), &(0, 0)));
    for family in [V4, V6] {
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 0);
    }
    assert_eq!(limiter.counter("smtp", "drift"), 0);
}
