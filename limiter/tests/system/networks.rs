// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Networks: what all sources of one network may hold together.

use std::net::TcpStream;

use limiter_lab::{Answer, Family, Lab, Limiter, Sink, V4, V6, sockets};

/// Networks in which the lab's IPv6 sources are neighbours, too; of the IPv4 ones two are.
const CONFIG: &str = "
[service.smtp]
max_connections = 3
response = \"reply\"
network = { ipv4_prefix = 24, ipv6_prefix = 44, max_connections = 5 }
";

/// What `limiter list` says of the network of a family's first source.
fn network(limiter: &Limiter, family: Family) -> (u64, u64) {
    let name = if family.host.is_ipv4() { "198.51.100.0/24" } else { "2001:db8::/44" };
    let list = limiter.json(&["list"]);
    let listed = list["sources"].as_array().unwrap();
    let found = listed.iter().find(|entry| entry["source"] == name && entry["tier"] == "network");
    found.map_or((0, 0), |entry| (entry["connections"].as_u64().unwrap(), entry["limit"].as_u64().unwrap()))
}

#[test]
fn neighbours_share_the_limit_of_their_network_on_top_of_their_own() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, CONFIG);
    for family in [V4, V6] {
        let smtp = family.port(25);
        let [one, two, other] = family.sources;
        let of_one: Vec<TcpStream> = (0..3).map(|_| lab.served(one, smtp)).collect();
        assert_eq!(lab.answer(one, smtp), Answer::Line(Limiter::smtp_reply(3, one)), "its own limit");
        let mut of_two: Vec<TcpStream> = (0..2).map(|_| lab.served(two, smtp)).collect();
        assert_eq!(network(&limiter, family), (5, 5));
        let Answer::Line(refusal) = lab.answer(two, smtp) else { panic!("no refusal") };
        assert!(refusal.contains("Too many connections (5 of 5) from the network of this IP ["), "{refusal}");
        let explained = limiter.json(&["explain", &two.to_string()]);
        let smtp_there = explained["services"].as_array().unwrap().iter().find(|s| s["service"] == "smtp");
        assert_eq!(smtp_there.unwrap()["reason"], "network");

        // Another network is not concerned, where there is one.
        if family.host.is_ipv4() {
            drop(lab.served(other, smtp));
        }
        // A place that either of them gives back is for both.
        drop(of_one);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), one, 0);
        of_two.push(lab.served(two, smtp));
        assert_eq!(network(&limiter, family).0, 3);
        drop(of_two);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), two, 0);
        assert_eq!(network(&limiter, family).0, 0);
    }
    assert!(limiter.counter("smtp", "refused_network") >= 2);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_network_limit_can_be_set_and_taken_away_while_connections_live() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 3, "reset");
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let before = lab.served(source, smtp);
        limiter.ok(&["set", "smtp", "network_max_connections=3"]);
        let during = lab.served(source, smtp);
        limiter.ok(&["set", "smtp", "network_max_connections=none"]);
        let after = lab.served(source, smtp);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 3);
        drop((before, during, after));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
    }
    sockets::settled(&lab.host, &limiter, 25);
}
