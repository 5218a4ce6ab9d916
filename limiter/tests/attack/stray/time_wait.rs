// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A pair of ends in `TIME_WAIT`, used again.

use super::{FIRST_PORT, LIMIT, Stage, only, play, served};
use crate::raw::{Caller, Crowd};
use limiter_lab::sock_diag::TIME_WAIT;
use limiter_lab::{SOON, deadline, eventually, same};

/// The only caller of `crowd`, its handshake complete or not yet, leaves the mail host in `TIME_WAIT`.
#[track_caller]
fn quit_first(stage: &Stage, crowd: &mut Crowd) {
    let quit = only(crowd).say(b"QUIT\r\n");
    crowd.wire.send(&quit);
    assert!(crowd.answer(deadline(SOON), |crowd| crowd.callers[&FIRST_PORT].finished), "no FIN");
    let fin = only(crowd).fin();
    crowd.wire.send(&fin);
    stage.becomes(TIME_WAIT, 1);
}

#[test]
fn a_syn_that_reuses_a_pair_in_time_wait_is_judged_and_counted_anew() {
    play(served, |stage, _| {
        let mut crowd = stage.half_open(1);
        quit_first(stage, &mut crowd);
        stage.agree(0);

        let (from, to, next) = (only(&mut crowd).from, only(&mut crowd).to, only(&mut crowd).next);
        *only(&mut crowd) = Caller::new(from, to, next.wrapping_add(1_000_000));
        crowd.call();
        crowd.complete();
        stage.agree(1);
        assert_eq!(stage.counted().accepted, 2);

        // Back to TIME_WAIT, and the limit reached by others: the SYN is refused.
        quit_first(stage, &mut crowd);
        let to = stage.family.port(25);
        let mut others = Crowd::new(stage.lab, stage.source, 30_001..=30_008, to);
        others.call();
        others.complete();
        stage.agree(LIMIT);
        let rst = only(&mut crowd).rst();
        let next = rst.seq.wrapping_add(1_000_000);
        *only(&mut crowd) = Caller::new(from, to, next);
        let syn = only(&mut crowd).syn();
        crowd.wire.send(&syn);
        eventually("the SYN is refused", SOON, || same("refused", &stage.counted().refused, &1));
        // The kernel answers for the old connection (TCP_TW_SYN without a listener, in tcp_v4_rcv), a client's
        // TCP resets that, and its next SYN is the first of a pair nobody remembers.
        crowd.wire.send(&rst);
        stage.becomes(TIME_WAIT, 0);
        crowd.wire.send(&syn);
        assert!(crowd.answer(deadline(SOON), |crowd| crowd.callers[&FIRST_PORT].reset), "not refused");
        stage.agree(LIMIT);
        others.hang_up();
    });
}
