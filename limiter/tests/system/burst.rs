// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Many handshakes at the same moment.

use std::iter;
use std::net::{IpAddr, TcpStream};
use std::ops::RangeInclusive;
use std::sync::Barrier;
use std::time::Duration;

use limiter_lab::client::{answer, ask, first_line, knock, reset};
use limiter_lab::sink::listener;
use limiter_lab::watch::Watch;
use limiter_lab::{Answer, Family, Lab, Limiter, SOON, Sink, V4, V6, cpu, eventually, same, sockets};

const SMTP: (&str, u16) = ("smtp", 25);
const LIMIT: usize = 8;
/// Clients that race for the last place, each on a CPU of its own.
const RACERS: usize = 2;

/// Without SYN cookies: never more, on any number of CPUs.
const EXACT: RangeInclusive<usize> = LIMIT..=LIMIT;

/// The bound with SYN cookies in force, for clients on `cpus` CPUs.
///
/// The kernel keeps no request then, and only it can tell whether an ACK bears the cookie: the gate holds
/// no place for it, since it may be forged, but looks whether there is one. Each CPU handles one packet at
/// a time, from that look until the connection is counted, so every other CPU may let in one that this one
/// does not see.
fn with_cookies(cpus: usize) -> RangeInclusive<usize> {
    LIMIT..=LIMIT + cpus - 1
}

/// Binds the calling thread to one of `cpus`: what it sends over the wire is received there as well, and so
/// is what its TCP answers to the answers.
fn bind_to_cpu(cpus: &[usize], nth: usize) {
    cpu::bind_to(&[cpus[nth % cpus.len()]]).unwrap();
}

/// Runs `client` on `n` threads of the client host, bound to the CPUs in turn, all starting at once.
fn at_once<T: Send>(lab: &Lab, n: usize, client: impl Fn() -> T + Sync) -> Vec<T> {
    let (start, cpus) = (Barrier::new(n), cpu::allowed().unwrap());
    std::thread::scope(|scope| {
        let thread = |nth| {
            let (start, cpus, client) = (&start, &cpus, &client);
            scope.spawn(move || {
                lab.client.enter();
                bind_to_cpu(cpus, nth);
                start.wait();
                client()
            })
        };
        let threads: Vec<_> = (0..n).map(thread).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client does not fail")).collect()
    })
}

/// Twenty handshakes of which no ACK arrives until all their SYNs were judged, and then all do.
fn twenty_half_open(lab: &Lab, family: Family) -> Vec<TcpStream> {
    let (source, smtp) = (family.source(), family.port(25));
    lab.deafen(source);
    let clients = at_once(lab, 20, || knock(source, smtp));
    eventually("every SYN is admitted", SOON, || {
        same("half open", &sockets::half_open(&lab.host, 25).len(), &20)
    });
    clients
}

/// The clients that were greeted, those that heard nothing yet, and how many were reset.
fn greeted(clients: Vec<TcpStream>, within: Duration) -> (Vec<TcpStream>, Vec<TcpStream>, usize) {
    let (mut served, mut waiting, mut refused) = (Vec::new(), Vec::new(), 0);
    for client in clients {
        match first_line(&client, within) {
            Answer::Silence => waiting.push(client),
            Answer::Reset => refused += 1,
            answer if answer.is_service() => served.push(client),
            answer => panic!("one of the burst got {answer:?}"),
        }
    }
    (served, waiting, refused)
}

#[test]
fn of_twenty_handshakes_completed_together_eight_are_served_eight_wait_for_room_and_four_are_refused() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 8, "reset");
    for family in [V4, V6] {
        let source = family.source();
        let clients = twenty_half_open(&lab, family);
        let counted = limiter.source("smtp", source);
        assert_eq!((counted.connections, counted.reserved), (0, 0), "nothing counts before its ACK");

        lab.undeafen(source);
        sockets::agree(&lab.host, &limiter, SMTP, source, LIMIT as u64);
        eventually("the ACKs of the others are held", SOON, || {
            let held = limiter.source("smtp", source).held;
            if held >= 12 { Ok(()) } else { Err(format!("held: {held}")) }
        });
        // As many wait as may connect: the others are told at once. One of those may have got in by now, where an
        // ACK that came twice had kept it waiting for a moment.
        eventually("four are refused", SOON, || {
            let half_open = sockets::half_open(&lab.host, 25).len();
            if (7..=8).contains(&half_open) { Ok(()) } else { Err(format!("{half_open} half open")) }
        });
        let (mut served, waiting, refused) = greeted(clients, Duration::from_millis(50));
        assert_eq!((served.len(), waiting.len() + refused), (8, 12));
        assert!((7..=8).contains(&waiting.len()), "{} wait", waiting.len());
        assert_eq!(lab.answer(source, family.port(25)), Answer::Reset, "a new SYN is judged by the eight");

        served.truncate(5);
        eventually("three that waited get in", SOON, || same("served so far", &sink.tally(source).ever, &11));
        sockets::agree(&lab.host, &limiter, SMTP, source, LIMIT as u64);
        for session in &served {
            assert_eq!(ask(session, "NOOP", SOON), Answer::Line("250 2.0.0 Ok".to_owned()));
        }
        drop((served, waiting));
        assert_eq!((sink.tally(source).peak, limiter.source("smtp", source).peak), (LIMIT, LIMIT as u64));
        sockets::settled(&lab.host, &limiter, 25);
    }
}

#[test]
fn those_that_waited_and_gave_up_leave_nothing_behind() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 8, "reset");
    for family in [V4, V6] {
        let source = family.source();
        let clients = twenty_half_open(&lab, family);
        lab.undeafen(source);
        sockets::agree(&lab.host, &limiter, SMTP, source, LIMIT as u64);
        drop(clients);
        // The FIN of one that waits completes its handshake, and so it may be served for a moment.
        sockets::settled(&lab.host, &limiter, 25);
        assert_eq!(limiter.source("smtp", source).peak, 8);
        drop(lab.served(source, family.port(25)));
        sockets::settled(&lab.host, &limiter, 25);
    }
}

/// Bursts from all CPUs: at no instant are there more than `bound` allows, and always as many are served.
fn bursts_of_parallel_clients(
    response: &str,
    refusal: impl Fn(IpAddr) -> Answer,
    syncookies: bool,
    bound: &RangeInclusive<usize>,
) {
    const CLIENTS: usize = 32;
    // Who completes the handshake and is held at the gate hears nothing, and gives up.
    const PATIENCE: Duration = Duration::from_secs(1);
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    if syncookies {
        lab.host.sysctl("ipv4/tcp_syncookies", "2").unwrap();
    }
    let sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_patient(&lab, 8, response);
    let watch = Watch::start(&lab.host, 25, 1);
    for family in [V4, V6, V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let outcomes = at_once(&lab, CLIENTS, || answer(source, smtp, PATIENCE));
        let served = outcomes.iter().filter(|(_, answer)| answer.is_service()).count();
        let refused = outcomes.iter().filter(|(_, answer)| *answer == refusal(source)).count();
        let waiting = outcomes.iter().filter(|(_, answer)| *answer == Answer::Silence).count();
        let answers: Vec<_> = outcomes.iter().map(|(_, answer)| answer).collect();
        assert!(bound.contains(&served), "{served} of {bound:?} are served: {answers:#?}");
        assert_eq!(served + refused + waiting, CLIENTS, "{answers:#?}");
        sockets::agree(&lab.host, &limiter, SMTP, source, served as u64);
        // Another source finds its own eight places untouched.
        let (_, other) = lab.client.run(|| answer(family.sources[1], smtp, SOON));
        assert!(other.is_service(), "another source got {other:?}");
        watch.sees(source);
        drop(outcomes);
        sockets::settled(&lab.host, &limiter, 25);
    }
    for source in [V4.source(), V6.source()] {
        let listed = watch.peak_of(source, |cookie| sink.accepted(*cookie));
        let held = sink.tally(source).peak;
        assert!(bound.contains(&held), "{held} of {bound:?}, by what the server held at once");
        assert!(bound.contains(&listed), "{listed} of {bound:?}, by the kernel's table");
    }
}

#[test]
fn a_burst_from_all_cpus_never_exceeds_the_limit_and_the_rest_is_reset_or_waits() {
    bursts_of_parallel_clients("reset", |_| Answer::Reset, false, &EXACT);
}

#[test]
fn a_burst_from_all_cpus_never_exceeds_the_limit_and_the_rest_is_told_or_waits() {
    let refusal = |source| Answer::Line(Limiter::smtp_reply(8, source));
    bursts_of_parallel_clients("reply", refusal, false, &EXACT);
}

#[test]
fn with_syn_cookies_in_force_a_burst_exceeds_the_limit_by_no_more_than_the_other_cpus() {
    bursts_of_parallel_clients(
        "reset",
        |_| Answer::Reset,
        true,
        &with_cookies(cpu::allowed().unwrap().len()),
    );
}

/// Two clients, each on a CPU of its own, that do nothing but connect, so that both CPUs handle completing
/// ACKs when the last places are taken; over and over.
fn races_for_the_last_place(syncookies: bool, bound: &RangeInclusive<usize>) {
    const ROUNDS: usize = 60;
    const KNOCKS: usize = 12;
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    if syncookies {
        lab.host.sysctl("ipv4/tcp_syncookies", "2").unwrap();
    }
    let (source, smtp) = (V4.source(), V4.port(25));
    let server = listener(&lab, smtp, 64);
    // An accept queue that is empty has no more of a round.
    server.set_nonblocking(true).unwrap();
    let limiter = Limiter::start(&lab, 8, "reset");
    let accept_all = || iter::from_fn(|| server.accept().ok());
    for round in 0..ROUNDS {
        let clients =
            at_once(&lab, RACERS, || (0..KNOCKS).map(|_| knock(source, smtp)).collect::<Vec<TcpStream>>());
        // A busy host handles packets a moment after they were sent.
        eventually(&format!("the places are taken in round {round}"), SOON, || {
            let held = sockets::held(&lab.host, 25, &limiter).get(&source).map_or(0, |held| *held as usize);
            if held >= *bound.start() { Ok(()) } else { Err(format!("{held} of {bound:?}, by ss")) }
        });
        for client in clients.into_iter().flatten() {
            reset(client);
        }
        let held = accept_all().collect::<Vec<_>>().len();
        assert!(bound.contains(&held), "round {round}: {held} of {bound:?} in the accept queue");
        // One that waited may have got in between, dead: its reset was still to be handled when places became free.
        eventually("the round is over", SOON, || {
            drop(accept_all().collect::<Vec<_>>());
            let left = sockets::established(&lab.host, 25).len() + sockets::half_open(&lab.host, 25).len();
            same(
                "left by ss and by limiter list",
                &(left, limiter.source("smtp", source).connections),
                &(0, 0),
            )
        });
    }
    let peak = limiter.source("smtp", source).peak as usize;
    assert!(bound.contains(&peak), "{peak} of {bound:?}, by limiter list");
    drop(server);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn two_cpus_racing_for_the_last_place_never_both_get_it() {
    races_for_the_last_place(false, &EXACT);
}

#[test]
fn with_syn_cookies_in_force_two_cpus_racing_for_the_last_place_get_one_more_at_most() {
    races_for_the_last_place(true, &with_cookies(RACERS));
}
