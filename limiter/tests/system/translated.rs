// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IPv4 hosts that come as IPv6 addresses, because a translator or a 6to4 router has written theirs into one.

use std::net::IpAddr;

use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn hosts_behind_a_translator_are_sources_of_their_own_the_same_as_by_ipv4_itself() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    for network in ["64:ff9b::/96", "2002::/16"] {
        lab.take_network(network);
    }
    let limiter = Limiter::start_with(&lab, "[service.smtp]\nmax_connections = 3\n");
    // The lab's own 198.51.100.7 and .8, of which the second comes by both.
    let ways = ["64:ff9b::198.51.100.7", "64:ff9b::198.51.100.9", "2002:c633:640a:1::1"];
    let counted = ["198.51.100.7/32", "198.51.100.9/32", "198.51.100.10/32"];
    let mut held = Vec::new();
    for (source, counted) in ways.into_iter().zip(counted) {
        let answers: Vec<_> =
            (0..9).map(|_| lab.client.run(|| client::answer(address(source), V6.port(25), SOON))).collect();
        let served = answers.into_iter().filter(|(_, answer)| answer.is_service()).collect::<Vec<_>>();
        assert_eq!(served.len(), 3, "{source}");
        held.extend(served);
        let explained = limiter.ok(&["explain", source]);
        assert!(explained.contains(counted), "{explained}");
        let list = limiter.ok(&["list", "--service", "smtp"]);
        assert!(list.contains(counted), "{list}");
    }
    // The other /48 of one 6to4 host is the host itself; and so is it by IPv4.
    assert!(!lab.answer(address("2002:c633:640a:2::1"), V6.port(25)).is_service());
    assert!(!lab.answer(V4.source(), V4.port(25)).is_service());
    drop(held);
    eventually("all places are given back", SOON, || {
        let status = limiter.json(&["status"]);
        let live: Vec<_> =
            status["services"].as_array().into_iter().flatten().map(|it| it["connections"].clone()).collect();
        if live.iter().all(|live| live == 0) { Ok(()) } else { Err(format!("{live:?}")) }
    });
    assert_eq!(limiter.counter("smtp", "drift"), 0);
    // A ban is of the host, in whichever way it is written, and of nobody else.
    for spelled in ["198.51.100.9", "64:ff9b::c633:6409", "2002:c633:6409::1"] {
        let said = limiter.ok(&["ban", spelled, "--service", "smtp", "--for", "1h"]);
        assert!(said.contains("198.51.100.9/32: banned"), "{said}");
        let one = |source: &str| lab.client.run(|| client::answer(address(source), V6.port(25), A_WHILE).1);
        assert_eq!(one(ways[1]), Answer::Silence);
        assert!(one(ways[0]).is_service());
        limiter.ok(&["unban", "64:ff9b::198.51.100.9", "--service", "smtp"]);
        assert!(one(ways[1]).is_service());
    }
}

/// Long enough for a SYN that is repeated once.
const A_WHILE: std::time::Duration = std::time::Duration::from_millis(1500);
