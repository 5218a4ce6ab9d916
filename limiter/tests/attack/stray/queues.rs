// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Handshakes the listener has no room for, or wants more of.

use std::net::SocketAddr;
use std::time::Duration;

use nix::libc;
use socket2::SockRef;

use super::{BACKLOG, LIMIT, play, queued, set_tcp};
use crate::lab::AttackLab;
use crate::raw::Segment;
use limiter_lab::sink::listener;
use limiter_lab::sock_diag::{COUNTED, SYN_RECV, Sockets};
use limiter_lab::watch::Watch;
use limiter_lab::{Sink, deadline};

#[test]
fn an_accept_queue_without_room_gives_every_place_back() {
    const CALLERS: u16 = 6;
    play(queued, |stage, listener| {
        let backlog = |n| SockRef::from(listener).listen(n).expect("a listener's backlog can change");
        backlog(BACKLOG);
        let mut crowd = stage.half_open(CALLERS);
        // Holds 2: see sk_acceptq_is_full in include/net/sock.h.
        backlog(1);
        crowd.complete();
        stage.agree(2);
        stage.becomes(SYN_RECV, usize::from(CALLERS) - 2);

        // One of those in the queue gives up there, and counts for as long as it takes room there.
        let mut sockets = Sockets::of(&stage.lab.host);
        let table = sockets.connections(25, &COUNTED);
        let first = table.first().expect("there are two").remote.port();
        crowd.wire.send(&crowd.callers[&first].rst());
        stage.holds(1, 1);
        crowd.callers.remove(&first);

        // With room the others come in, as the kernel repeats their SYN-ACKs.
        let mut accepted = Vec::new();
        let all_in = crowd.answer(deadline(Duration::from_secs(20)), |_| {
            accepted.extend(std::iter::from_fn(|| listener.accept().ok()));
            accepted.len() == usize::from(CALLERS)
        });
        assert!(all_in, "{} are in", accepted.len());
        // The one that gave up was accepted too, and counts until it is closed.
        stage.holds(usize::from(CALLERS) - 1, 1);
        accepted.retain(|(_, remote)| remote.port() != first);
        stage.agree(usize::from(CALLERS) - 1);
        crowd.hang_up();
    });
}

#[test]
fn a_listener_that_defers_accepting_until_there_is_data_is_limited_alike() {
    let deferring = |lab: &AttackLab| {
        let listener = listener(lab, SocketAddr::from(([0_u16; 8], 25)), BACKLOG);
        set_tcp(&listener, libc::TCP_DEFER_ACCEPT, 10);
        Sink::serve(listener)
    };
    play(deferring, |stage, _| {
        let watch = Watch::start(&stage.lab.host, 25, 1);
        let mut crowd = stage.half_open(20);
        // The kernel takes note of a bare ACK, and waits for data.
        crowd.complete();
        stage.agree(0);
        let words: Vec<Segment> = crowd.callers.values_mut().map(|caller| caller.say(b"NOOP\r\n")).collect();
        crowd.wire.send_all(&words);
        stage.agree(LIMIT);
        assert_eq!(watch.peak(stage.source), LIMIT);
        crowd.hang_up();
    });
}
