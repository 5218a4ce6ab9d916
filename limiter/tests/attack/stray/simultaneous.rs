// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Both sides begin at the same moment (RFC 9293, 3.5), where the mail host connects from a mail port.

use std::net::SocketAddr;
use std::time::Instant;

use crate::lab::{AttackLab, nobody};
use crate::raw::{ACK, SYN, Segment, Wire};
use limiter_lab::client::{begin, bound};
use limiter_lab::{Limiter, SOON, V4, V6, deadline, eventually, same};

/// The next segment of the mail host with exactly these flags.
fn hear(wire: &mut Wire, flags: u8) -> Segment {
    let deadline = deadline(SOON);
    loop {
        if let Some(segment) = wire.receive(deadline).into_iter().find(|segment| segment.is(flags)) {
            return segment;
        }
        assert!(Instant::now() < deadline, "the mail host says nothing");
    }
}

#[test]
fn a_connection_that_a_local_process_and_its_peer_begin_at_once_is_not_counted() {
    let Some(lab) = AttackLab::new() else { return };
    let limiter = Limiter::start(&lab, 3, "reset");
    for family in [V4, V6] {
        let peer = SocketAddr::new(nobody(family, 1), 7777);
        let mut wire = Wire::at(&lab, peer.ip());
        let ours = family.port(993);
        let socket = lab.host.run(|| {
            let socket = bound(ours).expect("the port is free");
            begin(&socket, peer).expect("a SYN is sent");
            socket
        });
        let syn = hear(&mut wire, SYN);
        wire.send(&Segment::new(peer, ours, SYN, 1000, 0));
        let both = hear(&mut wire, SYN | ACK);
        assert_eq!(both.seq, syn.seq, "it has kept its number");
        wire.send(&Segment::new(peer, ours, ACK, 1001, syn.seq.wrapping_add(1)));
        eventually("it is connected", SOON, || {
            same("peer", &socket.peer_addr().map(|at| at.as_socket()).ok().flatten(), &Some(peer))
        });
        assert_eq!(limiter.source("imap", peer.ip()).connections, 0);
        assert_eq!(limiter.counter("imap", "accepted"), 0);
    }
}
