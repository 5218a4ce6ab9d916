// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv6 extension headers (RFC 8200, 4).

use super::{LIMIT, Stage, served};
use crate::lab::{AttackLab, nobody};
use crate::raw::{Segment, extension};
use limiter_lab::sock_diag::SYN_RECV;
use limiter_lab::watch::Watch;
use limiter_lab::{Limiter, SOON, V6, eventually, same};

/// A fragment header that says there is no other fragment (RFC 6946).
fn atomic_fragment() -> (u8, Vec<u8>) {
    (44, vec![0, 0, 0, 0, 0, 0, 0, 7])
}

/// A routing header with nowhere left to go, of a type for experiments (RFC 8200, 4.4; RFC 3692).
fn routing() -> (u8, Vec<u8>) {
    (43, vec![0, 0, 253, 0, 0, 0, 0, 0])
}

/// As many as a chain may have for the gate to find what is behind it: RFC 8200, 4.1, knows no longer one.
const LONGEST: usize = 7;

#[test]
fn extension_headers_before_the_completing_ack_hide_it_from_nobody() {
    const HOP_BY_HOP: u8 = 0;
    const DESTINATION: u8 = 60;
    let Some(lab) = AttackLab::new() else { return };
    let _server = served(&lab);
    let limiter = Limiter::start(&lab, LIMIT as u32, "reset");
    let watch = Watch::start(&lab.host, 25, 1);
    let options = |n| (0..n).map(|_| extension(DESTINATION)).collect::<Vec<_>>();
    let chains = [
        vec![extension(HOP_BY_HOP)],
        options(1),
        [vec![extension(HOP_BY_HOP)], options(2)].concat(),
        vec![atomic_fragment()],
        [vec![extension(HOP_BY_HOP), atomic_fragment()], options(1)].concat(),
        [vec![extension(HOP_BY_HOP), routing()], options(1)].concat(),
        options(LONGEST),
        options(LONGEST + 1),
        options(LONGEST + 2),
        options(20),
        options(100),
    ];
    for (n, chain) in (1..).zip(chains) {
        let kinds: Vec<u8> = chain.iter().map(|(kind, _)| *kind).collect();
        let source = nobody(V6, n);
        let stage = Stage { lab: &lab, limiter: &limiter, family: V6, source };
        let crowd = stage.half_open(20);
        let acks: Vec<Segment> = crowd.callers.values().map(|c| c.ack().behind(chain.clone())).collect();
        let held = || limiter.counter("smtp", "held");
        let before = held();
        crowd.wire.send_all(&acks);
        if chain.len() <= LONGEST {
            stage.agree(LIMIT);
            let peak = watch.peak(source);
            assert!(peak <= LIMIT, "{peak} behind headers {kinds:?}");
        } else {
            eventually(&format!("20 are held behind headers {kinds:?}"), SOON, || {
                same("held", &(held() - before), &20)
            });
            stage.agree(0);
            stage.becomes(SYN_RECV, 20);
            // What they do not hide is let in.
            crowd.complete();
            stage.agree(LIMIT);
        }
        crowd.hang_up();
        stage.agree(0);
    }
}
