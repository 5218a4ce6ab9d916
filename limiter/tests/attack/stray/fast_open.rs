// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! TCP Fast Open (RFC 7413).

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use nix::libc;
use socket2::{Domain, Socket, Type};

use super::{BACKLOG, LIMIT, Stage, only, play, set_tcp};
use crate::forgery::Victim;
use crate::lab::{AttackLab, nobody};
use crate::raw::{ACK, Caller, Crowd, SYN, Segment};
use limiter_lab::command::run;
use limiter_lab::sink::listener;
use limiter_lab::sock_diag::{ESTABLISHED, SYN_RECV};
use limiter_lab::watch::Watch;
use limiter_lab::{Limiter, SOON, Sink, V4, V6, cpu, deadline, eventually, proc_net, same, say};

/// The option, without and with a cookie.
const FAST_OPEN: u8 = 34;
/// What comes with a SYN.
const WORDS: &[u8] = b"NOOP\r\n";

fn fast(lab: &AttackLab) -> Sink {
    let listener = listener(lab, SocketAddr::from(([0_u16; 8], 25)), BACKLOG);
    set_tcp(&listener, libc::TCP_FASTOPEN, BACKLOG);
    Sink::serve(listener)
}

/// The cookie the mail host gives to the source.
fn fast_open_cookie(stage: &Stage) -> Vec<u8> {
    let mut crowd = Crowd::new(stage.lab, stage.source, 10_001..=10_001, stage.family.port(25));
    let syn = only(&mut crowd).syn().with_options(&[2, 4, 5, 180, FAST_OPEN, 2, 1, 1]);
    crowd.wire.send(&syn);
    let deadline = deadline(SOON);
    let answer = loop {
        let heard = crowd.listen(deadline);
        if let Some(answer) = heard.into_iter().find(|segment| segment.is(SYN | ACK)) {
            break answer;
        }
        assert!(Instant::now() < deadline, "the SYN is not answered");
    };
    crowd.hang_up();
    let at = answer.options.iter().position(|byte| *byte == FAST_OPEN).expect("a cookie in the SYN-ACK");
    let len = usize::from(answer.options[at + 1]);
    answer.options[at + 2..at + len].to_vec()
}

/// A SYN with a cookie and data; moves the caller on.
fn fast_syn(caller: &mut Caller, cookie: &[u8]) -> Segment {
    let mut options = vec![2, 4, 5, 180, FAST_OPEN, 2 + cookie.len() as u8];
    options.extend(cookie);
    options.resize(options.len().next_multiple_of(4), 1);
    let syn = caller.syn().with_options(&options).with_payload(WORDS);
    caller.next = caller.next.wrapping_add(WORDS.len() as u32);
    syn
}

#[test]
fn connections_by_fast_open_are_counted_and_let_go_of() {
    play(fast, |stage, _| {
        stage.lab.host.sysctl("ipv4/tcp_fastopen", "3").unwrap();
        let cookie = fast_open_cookie(stage);
        let mut crowd = stage.crowd(2);
        let syns: Vec<Segment> = crowd.callers.values_mut().map(|caller| fast_syn(caller, &cookie)).collect();
        crowd.wire.send_all(&syns);
        let accepted = |crowd: &Crowd| crowd.unanswered().next().is_none();
        assert!(crowd.answer(deadline(SOON), accepted), "Fast Open is answered");
        stage.agree(2);
        assert_eq!(stage.counted().accepted, 2);
        assert!(stage.limiter.counter("smtp", "unreserved") >= 2, "they came by Fast Open");
        crowd.hang_up();
        stage.agree(0);

        // One that resets before its ACK.
        let mut crowd = stage.crowd(1);
        let caller = only(&mut crowd);
        let syn = fast_syn(caller, &cookie);
        let rst = caller.rst();
        crowd.wire.send_all([&syn, &rst]);
        eventually("it was counted", SOON, || same("accepted", &stage.counted().accepted, &3));
    });
}

#[test]
fn a_burst_by_fast_open_exceeds_the_limit_by_no_more_than_the_other_cpus() {
    play(fast, |stage, _| {
        stage.lab.receive_on_all_cpus();
        stage.lab.host.sysctl("ipv4/tcp_fastopen", "3").unwrap();
        let cookie = fast_open_cookie(stage);
        let watch = Watch::start(&stage.lab.host, 25, 1);
        let mut most = 0;
        for _ in 0..20 {
            let mut crowd = stage.crowd(200);
            let syns: Vec<Segment> =
                crowd.callers.values_mut().map(|caller| fast_syn(caller, &cookie)).collect();
            crowd.wire.send_all(&syns);
            let judged = |crowd: &Crowd| {
                crowd.callers.values().all(|caller| caller.reset || caller.expected.is_some())
            };
            // Those that admission has let pass, and the gate not, are sent again, as TCP does.
            let deadline = deadline(SOON);
            while !crowd.answer(Instant::now() + Duration::from_millis(500), judged) {
                assert!(Instant::now() < deadline, "a SYN is neither answered nor refused");
                let again: Vec<Segment> = crowd
                    .unanswered()
                    .map(|caller| {
                        let isn = caller.next.wrapping_sub(1 + WORDS.len() as u32);
                        fast_syn(&mut Caller::new(caller.from, caller.to, isn), &cookie)
                    })
                    .collect();
                crowd.wire.send_all(&again);
            }
            let looked = watch.until(stage.source, "they are in", SOON, |ports| {
                if ports.len() >= LIMIT { Ok(ports.len()) } else { Err(format!("{ports:?}")) }
            });
            most = most.max(looked);
            stage.agree(looked);
            crowd.hang_up();
            stage.agree(0);
        }
        say(&format!("Fast Open, 200 at once, limit {LIMIT}, {}: at most {most}", stage.source));
        assert!(most < LIMIT + cpu::allowed().unwrap().len(), "{most} at one time");
    });
}

/// A listener on an interface: admission leaves the verdict to the gate, which judges ACKs, and here none comes before
/// the connection.
fn fast_on_the_wire(lab: &AttackLab) -> Sink {
    let listener: TcpListener = lab.host.run(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(false).unwrap();
        socket.bind_device(Some(b"wire")).unwrap();
        socket.bind(&SocketAddr::from(([0_u16; 8], 25)).into()).unwrap();
        socket.listen(BACKLOG).unwrap();
        socket.into()
    });
    set_tcp(&listener, libc::TCP_FASTOPEN, BACKLOG);
    Sink::serve(listener)
}

#[test]
fn where_admission_leaves_the_verdict_to_the_gate_fast_open_keeps_to_the_limit() {
    play(fast_on_the_wire, |stage, _| {
        stage.lab.host.sysctl("ipv4/tcp_fastopen", "3").unwrap();
        let cookie = fast_open_cookie(stage);
        let becomes_limit = || {
            let counted = || (stage.counted().connections, stage.counted().peak);
            eventually("eight count", SOON, || {
                same("connections", &counted(), &(LIMIT as u64, LIMIT as u64))
            });
        };
        let mut crowd = stage.crowd(20);
        let syns: Vec<Segment> = crowd.callers.values_mut().map(|caller| fast_syn(caller, &cookie)).collect();
        crowd.wire.send_all(&syns);
        let in_ = |crowd: &Crowd| crowd.callers.values().filter(|caller| caller.expected.is_some()).count();
        assert!(crowd.answer(deadline(SOON), |crowd| in_(crowd) == LIMIT), "eight are answered");
        becomes_limit();
        assert_eq!(stage.counted().peak, LIMIT as u64);
        assert_eq!(stage.counted().accepted, LIMIT as u64);
        // Without both it is a SYN like others: its client waits, and hears.
        let plain = |caller: &&Caller| caller.expected.is_none();
        let plain: Vec<Segment> = crowd
            .callers
            .values()
            .filter(plain)
            .map(|caller| Segment {
                payload: Vec::new(),
                options: vec![2, 4, 5, 180],
                ..fast_syn(&mut caller.clone(), &[])
            })
            .collect();
        assert_eq!(plain.len(), 20 - LIMIT, "no other is answered");
        crowd.wire.send_all(&plain);
        let answered = |crowd: &Crowd| crowd.unanswered().next().is_none();
        assert!(crowd.answer(deadline(SOON), answered), "every SYN is answered");
        becomes_limit();
        crowd.hang_up();
        stage.agree(0);
    });
}

/// The kernel has given up the handshake, and the record is still there, as nobody has looked: admission leaves its addresses
/// and ports to the gate.
#[test]
fn where_a_waiter_has_been_fast_open_keeps_to_the_limit() {
    let Some(lab) = AttackLab::new() else { return };
    lab.host.sysctl("ipv4/tcp_fastopen", "3").unwrap();
    let _server = fast(&lab);
    for family in [V4, V6] {
        let mut limiter = Limiter::start(&lab, LIMIT as u32, "reset");
        let stage = Stage { lab: &lab, limiter: &limiter, family, source: nobody(family, 1) };
        let cookie = fast_open_cookie(&stage);
        let crowd = stage.half_open(12);
        crowd.complete();
        stage.becomes(SYN_RECV, 4);
        stage.becomes(ESTABLISHED, LIMIT);
        limiter.kill();
        // By hand: no segment says so.
        let mut command = lab.host.command("ss");
        command.args(["-K", "-t", "state", "syn-recv", "sport", "=", ":25"]);
        run(command).unwrap();
        let stage = Stage { lab: &lab, limiter: &limiter, family, source: nobody(family, 1) };
        stage.becomes(SYN_RECV, 0);
        let syns: Vec<Segment> = crowd
            .callers
            .values()
            .map(|caller| fast_syn(&mut Caller::new(caller.from, caller.to, 7), &cookie))
            .collect();
        let arrived = || proc_net::counter(&lab.host, "InSegs").unwrap();
        let before = arrived();
        crowd.wire.send_all(&syns);
        eventually("they have arrived", SOON, || {
            if arrived() >= before + 12 { Ok(()) } else { Err(String::new()) }
        });
        assert_eq!((stage.in_state(ESTABLISHED), stage.in_state(SYN_RECV)), (LIMIT, 0));
        assert_eq!(stage.counted().peak, LIMIT as u64);
        crowd.hang_up();
        stage.agree(0);
    }
}

/// Without cookies nothing proves that a SYN comes from where it says, and the kernel makes a connection of it
/// at once, which the mail daemon pays for: it has to count (`docs/architecture.md`). It counts no longer than the
/// kernel keeps it.
#[test]
fn where_fast_open_asks_for_no_cookie_forged_syns_count_until_the_kernel_gives_up_on_them() {
    play(fast, |stage, _| {
        // 0x200: data in a SYN is taken without a cookie.
        stage.lab.host.sysctl("ipv4/tcp_fastopen", "519").unwrap();
        // Soon: see tcp_fastopen_synack_timer in net/ipv4/tcp_timer.c.
        stage.lab.host.sysctl("ipv4/tcp_synack_retries", "0").unwrap();
        for victim in [Victim::Resets, Victim::IsSilent] {
            let mut crowd = stage.crowd(20);
            let forged = |caller: &Caller| caller.syn().with_payload(b"NOOP\r\n");
            let syns: Vec<Segment> = crowd.callers.values().map(forged).collect();
            let before = stage.counted();
            crowd.wire.send_all(&syns);
            let deadline = deadline(SOON);
            while !crowd.callers.values().all(|caller| caller.reset || caller.expected.is_some()) {
                assert!(Instant::now() < deadline, "a SYN is not answered");
                crowd.listen(deadline);
            }
            let counted = stage.counted();
            let forged = (counted.accepted - before.accepted) as usize;
            let bound = LIMIT..LIMIT + cpu::allowed().unwrap().len();
            assert!(bound.contains(&forged), "{forged} of {bound:?} count: {counted:?}");
            if victim == Victim::Resets {
                crowd.hang_up();
            }
            eventually("nothing counts", SOON, || same("connections", &stage.counted().connections, &0));
            stage.agree(0);
        }
    });
}
