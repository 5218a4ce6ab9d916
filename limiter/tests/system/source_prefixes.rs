// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rules that say what makes a source in their network.

use std::{net::IpAddr, net::SocketAddr, net::TcpStream, time::Duration};

use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, same};

/// A translator's own prefix (RFC 8215), in which each address is somebody else's.
const TRANSLATOR: &str = "[[rule]]\nnetwork = \"64:ff9b:1::/48\"\nsource_prefix = 128\n";
/// Two hosts behind it.
const HOSTS: [&str; 2] = ["64:ff9b:1::198.51.100.7", "64:ff9b:1::198.51.100.9"];
/// Long enough for a SYN that is repeated once.
const A_WHILE: Duration = Duration::from_millis(1500);

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// As many connections as `source` gets of nine.
fn hold(lab: &Lab, source: IpAddr, to: SocketAddr) -> Vec<TcpStream> {
    let answers = (0..9).map(|_| lab.client.run(|| client::answer(source, to, SOON)));
    answers.filter(|(_, answer)| answer.is_service()).filter_map(|(stream, _)| stream).collect()
}

/// Nothing is counted any more, and nothing ever was that should not have been.
fn all_is_given_back(limiter: &Limiter) {
    eventually("all places are given back", SOON, || {
        let status = limiter.json(&["status"]);
        let live: Vec<_> =
            status["services"].as_array().into_iter().flatten().map(|it| it["connections"].clone()).collect();
        if live.iter().all(|live| live == 0) { Ok(()) } else { Err(format!("{live:?}")) }
    });
    for source in limiter.json(&["list"])["sources"].as_array().into_iter().flatten() {
        assert_eq!(source["connections"], 0, "{source}");
    }
    assert_eq!(limiter.counter("smtp", "drift"), 0);
}

#[test]
fn each_host_in_a_network_whose_rule_says_so_has_a_limit_and_a_ban_of_its_own() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    lab.take_network("64:ff9b:1::/48");
    // With the shield, which has to know the source, too.
    let limit = "interfaces = [\"wire\"]\n[service.smtp]\nmax_connections = 3\n";
    let limiter = Limiter::start_with(&lab, &format!("{limit}{TRANSLATOR}"));
    let mut held = Vec::new();
    for source in HOSTS {
        held.push(hold(&lab, address(source), V6.port(25)));
        assert_eq!(held.last().map(Vec::len), Some(3), "{source}");
        let counted = format!("{}/128", address(source));
        for said in [limiter.ok(&["explain", source]), limiter.ok(&["list", "--service", "smtp"])] {
            assert!(said.contains(&counted), "{said}");
        }
    }
    drop(held);
    all_is_given_back(&limiter);
    let one = |source: &str| lab.client.run(|| client::answer(address(source), V6.port(25), A_WHILE).1);
    let said = limiter.ok(&["ban", HOSTS[1], "--service", "smtp", "--for", "1h"]);
    assert!(said.contains(&format!("{}/128: banned", address(HOSTS[1]))), "{said}");
    assert_eq!(one(HOSTS[1]), Answer::Silence);
    assert!(limiter.counter("smtp", "dropped") > 0, "by the shield");
    assert!(one(HOSTS[0]).is_service());
    let ban = &limiter.json(&["bans"])["bans"][0];
    assert_eq!(ban["dropped"].as_u64(), Some(limiter.counter("smtp", "dropped")), "{ban}");
    assert!(limiter.ok(&["bans"]).contains(&format!("{}/128", address(HOSTS[1]))));
    // Of whom nothing is known any more by that name, nobody is banned: and it is, when it is again.
    let is_logged = |what: &str| {
        let said = format!("smtp: 1 ban is {what} ({}/128)", address(HOSTS[1]));
        eventually(&said, SOON, || {
            let log = limiter.log();
            if log.contains(&said) { Ok(()) } else { Err(log) }
        });
    };
    limiter.configure(limit);
    limiter.ok(&["reload"]);
    assert!(one(HOSTS[1]).is_service());
    assert!(limiter.ok(&["bans"]).contains("no source is banned"));
    is_logged("no longer in force");
    limiter.configure(&format!("{limit}{TRANSLATOR}"));
    limiter.ok(&["reload"]);
    assert_eq!(one(HOSTS[1]), Answer::Silence);
    is_logged("in force again");
    limiter.ok(&["unban", HOSTS[1], "--service", "smtp"]);
    assert!(one(HOSTS[1]).is_service());
}

#[test]
fn a_customers_whole_network_is_one_source_where_its_rule_says_so() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    lab.take_network("2001:db8:77::/48");
    let rule = "[[rule]]\nnetwork = \"2001:db8:77::/48\"\nsource_prefix = 48\nmax_connections = 4\n";
    let limiter = Limiter::start_with(&lab, &format!("[service.smtp]\nmax_connections = 3\n{rule}"));
    let first = hold(&lab, address("2001:db8:77:1::1"), V6.port(25));
    assert_eq!(first.len(), 4);
    assert_eq!(hold(&lab, address("2001:db8:77:2::1"), V6.port(25)).len(), 0);
    assert!(limiter.ok(&["list", "--service", "smtp"]).contains("2001:db8:77::/48"));
    assert!(limiter.ok(&["rules"]).contains("/48"));
    // Its limit may be another one in a part of it; what makes a source does not become another by that.
    limiter.ok(&["limit", "2001:db8:77:2::/64", "6"]);
    let more = hold(&lab, address("2001:db8:77:2::1"), V6.port(25));
    assert_eq!(more.len(), 2);
    assert_eq!(hold(&lab, V6.source(), V6.port(25)).len(), 3, "nobody else's");
    drop((first, more));
    all_is_given_back(&limiter);
}

#[test]
fn single_hosts_of_ipv4_are_sources_where_the_service_counts_networks() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let rule = "[[rule]]\nnetwork = \"198.51.100.8/29\"\nsource_prefix = 32\n";
    let limiter =
        Limiter::start_with(&lab, &format!("[service.smtp]\nmax_connections = 3\nipv4_prefix = 24\n{rule}"));
    let outside = hold(&lab, address("198.51.100.7"), V4.port(25));
    assert_eq!(outside.len(), 3);
    let inside = hold(&lab, address("198.51.100.8"), V4.port(25));
    assert_eq!(inside.len(), 3);
    let list = limiter.ok(&["list", "--service", "smtp"]);
    for counted in ["198.51.100.0/24", "198.51.100.8/32"] {
        assert!(list.contains(counted), "{list}");
    }
    drop((outside, inside));
    all_is_given_back(&limiter);
}

#[test]
fn what_is_held_while_the_rule_comes_and_goes_is_given_back_exactly_with_a_daemon_or_without() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    lab.take_network("64:ff9b:1::/48");
    let limit = "[service.smtp]\nmax_connections = 3\n";
    let mut limiter = Limiter::start_with(&lab, limit);
    let mut held = Vec::new();
    let hold_all = |limiter: &Limiter, expected: [usize; 2]| {
        let held: Vec<_> = HOSTS.into_iter().map(|host| hold(&lab, address(host), V6.port(25))).collect();
        assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>(), expected);
        eventually("what is counted is right", SOON, || {
            let verified = limiter.json(&["status", "--verify"])["verified"].clone();
            let drift = verified["differences"].as_array().map(Vec::len);
            same("differences", &drift, &Some(0)).map_err(|_| verified.to_string())
        });
        held
    };
    held.extend(hold_all(&limiter, [3, 0]));
    for (config, expected) in [(format!("{limit}{TRANSLATOR}"), [3, 3]), (limit.to_owned(), [0, 0])] {
        limiter.configure_all(&config);
        limiter.ok(&["reload"]);
        held.extend(hold_all(&limiter, expected));
    }
    limiter.configure_all(&format!("{limit}{TRANSLATOR}"));
    limiter.ok(&["reload"]);
    limiter.kill();
    // Those of the second round still hold their places.
    for host in HOSTS {
        assert_eq!(hold(&lab, address(host), V6.port(25)).len(), 0, "{host}");
    }
    drop(held);
    all_is_given_back(&limiter);
    let alone: Vec<_> = HOSTS.into_iter().map(|host| hold(&lab, address(host), V6.port(25))).collect();
    assert_eq!(alone.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    drop(alone);
    all_is_given_back(&limiter);
}
