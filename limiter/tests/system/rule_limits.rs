// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What rules say of the rate and of the network: for their networks instead of the service's word.

use std::net::{IpAddr, SocketAddr, TcpStream};

use serde_json::Value;

use limiter_lab::{Answer, Lab, Limiter, Sink, V4, V6, sockets};

/// Everybody has two connections at once and then one a minute; the first source of each family more, the second less.
const RATES: &str = "
[ladder]
replies = \"none\"
[service.smtp]
max_connections = 100
response = \"reply\"
rate = \"60/h\"
burst = 2
";
const LOOSER: &str = "
[[rule]]
network = \"198.51.100.7\"
rate = \"600/h\"
burst = 6
[[rule]]
network = \"2001:db8:7::/48\"
rate = { smtp = \"600/h\", imap = \"none\" }
burst = { smtp = 6 }
";
const STRICTER: &str = "
[[rule]]
network = \"198.51.100.8\"
rate = \"60/h\"
burst = 1
[[rule]]
network = \"2001:db8:8::/64\"
rate = { \"*\" = \"60/h\" }
burst = 1
";

/// How many connections are served at once, and what the first refusal says.
fn at_once(lab: &Lab, source: IpAddr, to: SocketAddr) -> (usize, String) {
    for served in 0..20 {
        match lab.answer(source, to) {
            answer if answer.is_service() => {}
            Answer::Line(line) => return (served, line),
            other => panic!("{other:?}"),
        }
    }
    (20, String::new())
}

/// The reason for which the next connection to smtp would be refused.
fn reason(limiter: &Limiter, source: IpAddr) -> Option<String> {
    let explained = limiter.json(&["explain", &source.to_string()]);
    let services = explained["services"].as_array().unwrap().clone();
    let smtp = services.into_iter().find(|standing| standing["service"] == "smtp").unwrap();
    smtp["reason"].as_str().map(str::to_owned)
}

#[test]
fn who_has_a_rate_of_its_own_is_not_held_to_the_services() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, &format!("{RATES}{LOOSER}{STRICTER}"));
    for family in [V4, V6] {
        let smtp = family.port(25);
        let [looser, stricter, service] = family.sources;
        for (source, burst) in [(looser, 6), (stricter, 1), (service, 2)] {
            let (served, refusal) = at_once(&lab, source, smtp);
            assert_eq!(served, burst, "{source}: {refusal}");
            assert!(refusal.contains("Too many new connections from this IP ["), "{refusal}");
            assert_eq!(reason(&limiter, source).as_deref(), Some("rate"));
        }
    }
    assert!(limiter.counter("smtp", "refused_rate") >= 6);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_rule_without_a_rate_lets_in_who_was_refused_a_moment_ago_and_nobody_else() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start_with(&lab, RATES);
    for family in [V4, V6] {
        for source in family.sources {
            assert_eq!(at_once(&lab, source, family.port(25)).0, 2, "the service's burst");
        }
    }
    let rule = |network, keys| format!("[[rule]]\nnetwork = \"{network}\"\n{keys}\n");
    let helped =
        rule("198.51.100.7", "rate = \"none\"") + &rule("2001:db8:7::7", "rate = { smtp = \"none\" }");
    limiter.configure(&format!("{RATES}{helped}"));
    limiter.ok(&["reload"]);
    let holds = |limiter: &Limiter| {
        for family in [V4, V6] {
            let smtp = family.port(25);
            let [helped, other, _] = family.sources;
            assert_eq!(at_once(&lab, helped, smtp).0, 20, "no limit");
            assert_eq!(reason(limiter, helped), None);
            assert_eq!(at_once(&lab, other, smtp).0, 0);
            assert_eq!(reason(limiter, other).as_deref(), Some("rate"));
        }
    };
    holds(&limiter);
    // It holds without a daemon, where nothing is said but a reset, and with the next one.
    limiter.kill();
    for family in [V4, V6] {
        let smtp = family.port(25);
        drop(lab.served(family.source(), smtp));
        assert_eq!(lab.answer(family.sources[1], smtp), Answer::Reset);
    }
    limiter.run();
    holds(&limiter);
    limiter.configure(RATES);
    limiter.ok(&["reload"]);
    for family in [V4, V6] {
        // The service's rate holds again, and what the source owed when the rule came it owes still.
        assert_eq!(at_once(&lab, family.source(), family.port(25)).0, 0);
        assert_eq!(reason(&limiter, family.source()).as_deref(), Some("rate"));
    }
    sockets::settled(&lab.host, &limiter, 25);
}

/// All IPv6 sources are neighbours, and of IPv4 the first two.
const NETWORKS: &str = "
[ladder]
replies = \"none\"
[service.smtp]
max_connections = 3
response = \"reply\"
network = { ipv4_prefix = 24, ipv6_prefix = 44, max_connections = 4 }
";

#[test]
fn who_has_a_limit_of_its_own_for_the_network_gets_in_when_the_services_is_reached() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, NETWORKS);
    let of_network = |connections: u32| {
        format!("Too many connections ({connections} of {connections}) from the network of this IP [")
    };
    let mut held: Vec<TcpStream> = Vec::new();
    for family in [V4, V6] {
        let smtp = family.port(25);
        held.extend((0..3).map(|_| lab.served(family.source(), smtp)));
        held.push(lab.served(family.sources[1], smtp));
        let (served, refusal) = at_once(&lab, family.sources[1], smtp);
        assert!(served == 0 && refusal.contains(&of_network(4)), "{refusal}");
        assert_eq!(reason(&limiter, family.sources[1]).as_deref(), Some("network"));
    }
    let rule = |network, keys| format!("[[rule]]\nnetwork = \"{network}\"\n{keys}\n");
    let looser = rule("198.51.100.8", "network_max_connections = 6")
        + &rule("2001:db8:8::/48", "network_max_connections = { smtp = 6 }");
    limiter.configure(&format!("{NETWORKS}{looser}"));
    limiter.ok(&["reload"]);
    for family in [V4, V6] {
        let smtp = family.port(25);
        assert_eq!(reason(&limiter, family.sources[1]), None);
        held.extend((0..2).map(|_| lab.served(family.sources[1], smtp)));
        let (served, refusal) = at_once(&lab, family.sources[1], smtp);
        assert!(served == 0 && refusal.contains(&of_network(6)), "{refusal}");
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.sources[1], 3);
    }
    // A network of its own, and neighbours whose rule says nothing, are held to the service's.
    assert_eq!(reason(&limiter, V6.sources[2]).as_deref(), Some("network"));
    assert_eq!(reason(&limiter, V4.sources[2]), None);
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);

    let stricter = rule("198.51.100.0/24", "network_max_connections = 2")
        + &rule("2001:db8:7::7", "network_max_connections = 2");
    limiter.configure(&format!("{NETWORKS}{stricter}"));
    limiter.ok(&["reload"]);
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let _held = [lab.served(source, smtp), lab.served(source, smtp)];
        let (served, refusal) = at_once(&lab, source, smtp);
        assert!(served == 0 && refusal.contains(&of_network(2)), "{refusal}");
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_rule_limits_networks_where_the_service_does_not_and_what_they_hold_is_given_back() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let plain = "[service.smtp]\nmax_connections = 10\nresponse = \"reset\"\n";
    let rules = "[[rule]]\nnetwork = \"198.51.100.0/24\"\nnetwork_max_connections = 3\n\
                 [[rule]]\nnetwork = \"2001:db8:7::/48\"\nmax_connections = { smtp = 3, imap = 7 }\n\
                 network_max_connections = { smtp = 3, imap = 8 }\n";
    let mut limiter = Limiter::start_with(&lab, &format!("{plain}{rules}"));
    let limits = |limiter: &Limiter| -> Vec<(Value, Value)> {
        let list = limiter.json(&["list"]);
        let networks = list["sources"].as_array().unwrap().iter().filter(|entry| entry["tier"] == "network");
        networks.map(|entry| (entry["limit"].clone(), entry["rule"].clone())).collect()
    };
    let networks = |limiter: &Limiter| -> Vec<(String, u64)> {
        let list = limiter.json(&["list"]);
        let networks = list["sources"].as_array().unwrap().iter().filter(|entry| entry["tier"] == "network");
        let name = |entry: &Value| entry["source"].as_str().unwrap().to_owned();
        networks.map(|entry| (name(entry), entry["connections"].as_u64().unwrap())).collect()
    };
    let mut held: Vec<TcpStream> = Vec::new();
    // Two neighbours together, and in IPv6 one alone.
    for (source, connections) in [(V4.sources[0], 2), (V4.sources[1], 1), (V6.sources[0], 3)] {
        let smtp = if source.is_ipv4() { V4.port(25) } else { V6.port(25) };
        held.extend((0..connections).map(|_| lab.served(source, smtp)));
    }
    for (family, source) in [(V4, V4.sources[0]), (V4, V4.sources[1]), (V6, V6.sources[0])] {
        assert_eq!(lab.answer(source, family.port(25)), Answer::Reset);
        assert_eq!(reason(&limiter, source).as_deref(), Some("network"));
    }
    for (family, source) in [(V4, V4.sources[2]), (V6, V6.sources[1])] {
        held.extend((0..4).map(|_| lab.served(source, family.port(25))));
    }
    let mut counted = networks(&limiter);
    counted.sort();
    let expected = [("198.51.100.0/24".to_owned(), 3), ("2001:db8:7::/48".to_owned(), 3)];
    assert_eq!(counted, expected, "and nobody else's network is counted");
    let mut shown = limits(&limiter);
    shown.sort_by_key(|(_, rule)| rule.to_string());
    assert_eq!(shown, [(3.into(), "198.51.100.0/24".into()), (3.into(), "2001:db8:7::/48".into())]);
    // One that takes over counts on, and knows what was counted by a rule that is gone.
    limiter.kill();
    limiter.run();
    assert_eq!(lab.answer(V4.source(), V4.port(25)), Answer::Reset);
    limiter.configure(plain);
    limiter.ok(&["reload"]);
    let later = lab.served(V4.source(), V4.port(25));
    assert_eq!(networks(&limiter).into_iter().map(|(_, held)| held).max(), Some(3), "what is new is not");
    drop((held, later));
    sockets::settled(&lab.host, &limiter, 25);
    assert_eq!(networks(&limiter).into_iter().map(|(_, held)| held).max(), Some(0));
}

/// The command that `explain` offers to let a source in.
fn remedy(limiter: &Limiter, source: IpAddr) -> String {
    let explained = limiter.json(&["explain", &source.to_string()]);
    let services = explained["services"].as_array().unwrap();
    let smtp = services.iter().find(|standing| standing["service"] == "smtp").unwrap();
    smtp["remedy"].as_str().unwrap().to_owned()
}

#[test]
fn what_explain_offers_for_a_rate_or_a_network_lets_in_this_source_and_no_other() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let config =
        RATES.replace("100", "3") + "network = { ipv4_prefix = 24, ipv6_prefix = 44, max_connections = 4 }\n";
    let limiter = Limiter::start_with(&lab, &config);
    let offer = |source| {
        let command = remedy(&limiter, source);
        limiter.ok(&command.split(' ').collect::<Vec<_>>());
        command
    };
    for family in [V4, V6] {
        let smtp = family.port(25);
        let [one, two, other] = family.sources;
        for source in family.sources {
            assert_eq!(at_once(&lab, source, smtp).0, 2, "the service's burst");
        }
        assert_eq!(offer(one), format!("limit {one} --rate none --service smtp"));
        assert_eq!(reason(&limiter, one), None);
        assert_eq!(reason(&limiter, two).as_deref(), Some("rate"));
        let held = [0; 3].map(|_| lab.served(one, smtp));
        limiter.ok(&["limit", &two.to_string(), "--rate", "3600/h", "--burst", "900", "--service", "smtp"]);
        let fourth = lab.served(two, smtp);
        assert_eq!(reason(&limiter, two).as_deref(), Some("network"));
        assert_eq!(offer(two), format!("limit {two} --network-max-connections 5 --service smtp"));
        let fifth = lab.served(two, smtp);
        assert_eq!(reason(&limiter, two).as_deref(), Some("network"));
        assert_eq!(
            reason(&limiter, other).as_deref(),
            Some(if other.is_ipv4() { "rate" } else { "network" })
        );
        drop((held, fourth, fifth));
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn each_limit_of_a_rule_is_said_live_kept_beside_the_others_and_saved() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, RATES);
    let net = "198.51.100.0/24";
    let said = limiter.ok(&["limit", net, "--rate", "600/h", "--burst", "6", "--save"]);
    assert!(
        said.contains("198.51.100.0/24: limit rate 10/min (6 at once) to each service: changed"),
        "{said}"
    );
    limiter.ok(&["limit", net, "90", "--service", "smtp", "--save"]);
    limiter.ok(&["limit", net, "--network-max-connections", "95", "--save"]);
    limiter.ok(&["limit", net, "--rate", "none", "--service", "imap", "--save"]);
    let rules = limiter.json(&["rules"])["rules"].as_array().unwrap().clone();
    let rule = rules.into_iter().find(|rule| rule["network"] == net).unwrap();
    let limits = &rule["limits"];
    assert_eq!((&limits["rate"], &limits["burst"]), (&"10/min".into(), &6.into()), "{rule:#}");
    assert_eq!(limits["network_max_connections"], "95");
    assert_eq!(rule["service_limits"][0][1]["rate"], "none", "{rule:#}");
    assert_eq!(rule["service_limits"][1][1]["max_connections"], 90, "{rule:#}");
    let screen = limiter.ok(&["rules"]);
    for words in [
        "rate none to imap",
        "rate 10/min (6 at once) to each other service",
        // Of this no service has another.
        "95 from the network to each service",
    ] {
        assert!(screen.contains(words), "no {words:?} in {screen}");
    }
    assert_eq!(at_once(&lab, V4.source(), V4.port(25)).0, 6);
    // The file says the same, so that a reload changes nothing.
    let before = limiter.json(&["rules"]);
    limiter.ok(&["reload"]);
    assert_eq!(limiter.json(&["rules"]), before);
    for (words, why) in [
        (
            &["limit", net, "--burst", "5", "--service", "imap"][..],
            "burst has no effect without a rate in the same rule",
        ),
        (&["limit", net, "--rate", "fast"], "rate must be a number of connections a second"),
        (
            &["limit", net, "--network-max-connections", "50"],
            "lets the network around a source hold 50 connections",
        ),
        (&["limit", net], "give a limit: a number of connections after the networks"),
        (&["limit", "9"], "give the addresses or networks to limit"),
        (&["limit", "9", net], "give one number of connections, after all addresses and networks"),
    ] {
        let outcome = limiter.cli(words);
        assert!(outcome.code != Some(0) && outcome.stderr.contains(why), "{words:?}: {}", outcome.stderr);
    }
    assert_eq!(limiter.json(&["rules"]), before, "an error means that nothing was changed");
    sockets::settled(&lab.host, &limiter, 25);
}
