// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Connections older than the limiter.

use std::net::TcpStream;

use crate::support::service::{cgroup, serve};
use limiter_lab::{Answer, Family, Lab, Limiter, SOON, Sink, V4, V6, eventually, same, sockets};

/// More than a source may hold by far.
const OLD: usize = 3000;
const LIMIT: u32 = 100;

#[test]
fn what_was_there_before_is_counted_from_the_first_moment_until_it_ends() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut old: Vec<(Family, Vec<TcpStream>)> = [V4, V6]
        .map(|family| (family, (0..OLD / 2).map(|_| lab.served(family.source(), family.port(25))).collect()))
        .into();
    let limiter = Limiter::start(&lab, LIMIT, "reset");
    // It says so after it serves.
    eventually("the daemon says what it counted", SOON, || {
        if limiter.log().contains("counted 3000 existing connections") { Ok(()) } else { Err(limiter.log()) }
    });
    for (family, sessions) in &mut old {
        let (source, smtp) = (family.source(), family.port(25));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 1500);
        assert_eq!(lab.answer(source, smtp), Answer::Reset, "far over its limit");
        for left in [1000, LIMIT as usize, LIMIT as usize - 1] {
            sessions.truncate(left);
            sockets::agree(&lab.host, &limiter, ("smtp", 25), source, left as u64);
            let expected = left < LIMIT as usize;
            assert_eq!(lab.answer(source, smtp).is_service(), expected, "with {left} live");
            // The one that was served is closed.
            sockets::agree(&lab.host, &limiter, ("smtp", 25), source, left as u64);
        }
        // A neighbour never had any.
        drop(lab.served(family.sources[1], smtp));
    }
    assert_eq!(limiter.counter("smtp", "adopted"), OLD as u64);
    let accepted = |verb: &str, column: usize| -> u64 {
        let screen = limiter.ok(&[verb]);
        let rows = screen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows = rows.filter(|words| words.len() > column && words[0] == "smtp");
        rows.map(|words| words[column].parse::<u64>().expect("a number")).sum()
    };
    assert_eq!(accepted("status", 5), accepted("list", 6), "one word, one number");
    drop(old);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn what_comes_while_the_limiter_is_loaded_is_counted_once() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    for _round in 0..3 {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (lab, stop) = (&lab, &stop);
            let clients: Vec<_> = [V4, V6]
                .map(|family| {
                    scope.spawn(move || {
                        lab.client.run(|| {
                            let mut held = Vec::new();
                            while !stop.load(std::sync::atomic::Ordering::Relaxed) && held.len() < 400 {
                                held.extend(limiter_lab::client::dial(
                                    family.source(),
                                    family.port(25),
                                    SOON,
                                ));
                            }
                            held
                        })
                    })
                })
                .into();
            let limiter = Limiter::start(lab, 1000, "reset");
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let held: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
            for (family, held) in [V4, V6].iter().zip(&held) {
                sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), held.len() as u64);
            }
            drop(held);
            sockets::settled(&lab.host, &limiter, 25);
        });
        eventually("the host is empty", SOON, || {
            same("connections", &sockets::established(&lab.host, 25).len(), &0)
        });
    }
}

#[test]
fn of_a_cgroup_only_its_own_sockets_are_adopted() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let (group, other) = (cgroup(&lab), cgroup(&Lab::new(crate::BINARY).unwrap()));
    let _server = serve(&lab, &group);
    let _held: Vec<TcpStream> = [V4, V6].map(|family| lab.served(family.source(), family.port(25))).into();

    let stranger = Limiter::start_in(&lab, other.path());
    assert_eq!(stranger.counter("smtp", "adopted"), 0, "they are in another cgroup");
    drop(stranger);
    let limiter = Limiter::start_in(&lab, group.path());
    assert_eq!(limiter.counter("smtp", "adopted"), 2);
    for family in [V4, V6] {
        assert_eq!(limiter.source("smtp", family.source()).connections, 1);
    }
}
