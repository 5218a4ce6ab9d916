// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Segments in orders no client sends them in.

use std::sync::Barrier;
use std::time::Instant;

use super::{FIRST_PORT, LIMIT, only, play, queued, served};
use crate::raw::{ACK, Caller, Crowd, SYN, Segment, Wire};
use limiter_lab::limiter::Source;
use limiter_lab::sock_diag::{ESTABLISHED, SYN_RECV};
use limiter_lab::watch::Watch;
use limiter_lab::{SOON, cpu, deadline, eventually, proc_net, same, say};

#[test]
fn a_syn_sent_three_times_is_one_connection() {
    play(served, |stage, _| {
        let mut crowd = stage.crowd(1);
        let syn = only(&mut crowd).syn();
        crowd.wire.send_all([&syn, &syn, &syn]);
        crowd.call();
        crowd.complete();
        stage.agree(1);
        assert_eq!(stage.counted().accepted, 1);
        crowd.hang_up();
    });
}

#[test]
fn an_ack_with_a_wrong_number_neither_counts_nor_hinders_the_right_one() {
    play(served, |stage, _| {
        let mut crowd = stage.half_open(1);
        for wrong in [0, 1, 12_345, u32::MAX / 2] {
            let mut ack = only(&mut crowd).ack();
            ack.ack = ack.ack.wrapping_add(1).wrapping_add(wrong);
            only(&mut crowd).reset = false;
            crowd.wire.send(&ack);
            // Only heard, not answered: the SYN-ACK may come again meanwhile, and its ACK would be the right one.
            let deadline = deadline(SOON);
            while !only(&mut crowd).reset {
                assert!(Instant::now() < deadline, "no reset");
                crowd.listen(deadline);
            }
            assert_eq!(stage.counted(), Source::default(), "nothing is known of who proved nothing");
        }
        stage.becomes(SYN_RECV, 1);
        crowd.complete();
        stage.agree(1);
        assert_eq!(stage.counted().accepted, 1);
        crowd.hang_up();
    });
}

/// The kernel takes such a segment for the ACK, ignores the SYN, and makes a connection that is not established. An
/// ACK behind it is none for the listener any more.
#[test]
fn a_syn_ack_with_data_in_the_place_of_the_ack_is_no_way_past_the_limit() {
    play(served, |stage, _| {
        let crowd = stage.half_open(40);
        for caller in crowd.callers.values() {
            let mut segment = caller.segment(SYN | ACK).with_payload(b"E");
            segment.seq = caller.next.wrapping_sub(1);
            let mut ack = caller.ack();
            ack.seq = ack.seq.wrapping_add(1);
            crowd.wire.send_all([&segment, &ack]);
        }
        // The ACKs are of this handshake, and so take what there is.
        eventually("eight are in, eight wait, and the others are gone", SOON, || {
            let established = stage.in_state(ESTABLISHED);
            let source = stage.counted();
            if established == LIMIT && source.connections == LIMIT as u64 {
                return Ok(());
            }
            Err(format!("{established} established, {} counted", source.connections))
        });
        assert!(stage.counted().peak <= LIMIT as u64);
        crowd.hang_up();
    });
}

#[test]
fn a_reset_between_syn_and_ack_ends_the_handshake() {
    play(served, |stage, _| {
        let mut crowd = stage.half_open(1);
        crowd.hang_up();
        stage.becomes(SYN_RECV, 0);
        crowd.complete();
        assert!(crowd.answer(deadline(SOON), |crowd| crowd.callers[&FIRST_PORT].reset), "no reset");
        assert_eq!(stage.counted(), Source::default(), "nothing is known of who proved nothing");
    });
}

#[test]
fn acks_that_arrive_on_every_cpu_at_once_are_one_connection_each_and_eight_in_all() {
    const ROUNDS: u16 = 20;
    play(served, |stage, _| {
        let watch = Watch::start(&stage.lab.host, 25, 1);
        for _ in 0..ROUNDS {
            let mut crowd = stage.half_open(40);
            let acks: Vec<Vec<u8>> = crowd.callers.values().map(|caller| caller.ack().frame()).collect();
            let start = Barrier::new(cpu::allowed().unwrap().len());
            std::thread::scope(|scope| {
                for cpu in cpu::allowed().unwrap() {
                    let (start, acks, wire) = (&start, &acks, Wire::to_send(stage.lab));
                    scope.spawn(move || {
                        cpu::bind_to(&[cpu]).unwrap();
                        start.wait();
                        wire.send_frames(acks);
                    });
                }
            });
            crowd.answer(deadline(SOON), |_| watch.ports(stage.source).len() >= LIMIT);
            stage.agree(LIMIT);
            crowd.hang_up();
            stage.agree(0);
        }
        assert_eq!(watch.peak(stage.source), LIMIT, "the most at one time, by the kernel");
    });
}

/// The kernel makes a socket of the ACK on one CPU, while on the other the reset ends the handshake, or the
/// connection that has just begun.
#[test]
fn a_reset_on_another_cpu_at_the_moment_of_the_ack_leaves_neither_a_count_nor_a_place() {
    const ROUNDS: u16 = 30;
    play(served, |stage, _| {
        if cpu::allowed().unwrap().len() < 2 {
            return;
        }
        let before = proc_net::counter(&stage.lab.host, "PassiveOpens").unwrap();
        for round in 0..ROUNDS {
            let crowd = stage.half_open(LIMIT as u16);
            let segments = |segment: fn(&Caller) -> Segment| -> Vec<Vec<u8>> {
                crowd.callers.values().map(|caller| segment(caller).frame()).collect()
            };
            let halves = [segments(Caller::ack), segments(Caller::rst)];
            let start = Barrier::new(2);
            std::thread::scope(|scope| {
                for (n, (half, cpu)) in halves.iter().zip(cpu::allowed().unwrap()).enumerate() {
                    let (start, wire) = (&start, Wire::to_send(stage.lab));
                    // Not always the same one first.
                    let delay = if usize::from(round) % 2 == n { u32::from(round) * 100 } else { 0 };
                    scope.spawn(move || {
                        cpu::bind_to(&[cpu]).unwrap();
                        start.wait();
                        (0..delay).for_each(|_| std::hint::spin_loop());
                        wire.send_frames(half);
                    });
                }
            });
            crowd.hang_up();
            stage.becomes(SYN_RECV, 0);
            stage.agree(0);
        }
        let made = proc_net::counter(&stage.lab.host, "PassiveOpens").unwrap() - before;
        say(&format!("{made} sockets made, {} connections counted", stage.counted().accepted));
        assert!(stage.counted().accepted <= made);
    });
}

#[test]
fn data_on_the_completing_ack_is_a_connection_like_any_other() {
    play(served, |stage, _| {
        let mut crowd = stage.half_open(2);
        let words = [b"NOOP\r\n", b"QUIT\r\n"];
        let segments: Vec<Segment> =
            crowd.callers.values_mut().zip(words).map(|(caller, words)| caller.say(words)).collect();
        crowd.wire.send_all(&segments);
        let left = |crowd: &Crowd| crowd.callers[&(FIRST_PORT + 1)].finished;
        assert!(crowd.answer(deadline(SOON), left), "QUIT is heard");
        stage.agree(1);
        assert_eq!(stage.counted().accepted, 2);
        crowd.hang_up();
    });
}

#[test]
fn a_fin_on_the_completing_ack_counts_until_the_server_lets_go() {
    play(queued, |stage, listener| {
        let mut crowd = stage.half_open(1);
        let fin = only(&mut crowd).fin();
        crowd.wire.send(&fin);
        stage.agree(1);
        // In CLOSE_WAIT, and not yet accepted: the server will pay for it.
        drop(eventually("it is accepted", SOON, || listener.accept().map_err(|error| error.to_string())));
        stage.agree(0);
        assert_eq!(stage.counted().accepted, 1);
        crowd.hang_up();
    });
}

/// Of those who send their FIN with the ACK, the others than the first eight are refused as if they had not, and it costs
/// their source as much.
#[test]
fn a_fin_on_the_completing_ack_makes_no_refusal_free() {
    const OVER: u64 = 4;
    play(queued, |stage, listener| {
        let before = stage.counted().refused;
        let mut crowd = stage.half_open(LIMIT as u16 + OVER as u16);
        let fins: Vec<Segment> = crowd.callers.values_mut().map(Caller::fin).collect();
        crowd.wire.send_all(&fins);
        eventually("those without a place are refused", SOON, || {
            same("refused", &(stage.counted().refused - before), &OVER)
        });
        stage.agree(LIMIT);
        crowd.hang_up();
        for _ in 0..LIMIT {
            drop(eventually("it is accepted", SOON, || listener.accept().map_err(|error| error.to_string())));
        }
    });
}
