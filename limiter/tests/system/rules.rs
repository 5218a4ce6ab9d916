// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is said of networks: allowed, denied, with limits of their own.

use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use limiter_lab::command::run;
use limiter_lab::{
    Answer, Family, Lab, Limiter, Namespace, SOON, Sink, V4, V6, client, eventually, same, sockets,
};

/// Long enough for a SYN that is repeated once.
const A_WHILE: Duration = Duration::from_millis(1500);

fn network(family: Family) -> &'static str {
    if family.host.is_ipv4() { "198.51.100.0/24" } else { "2001:db8:7::/48" }
}

/// How many of `n` connections are served, and what the next gets.
fn serve(lab: &Lab, source: IpAddr, family: Family, n: usize) -> (Vec<TcpStream>, Answer) {
    ((0..n).map(|_| lab.served(source, family.port(25))).collect(), lab.answer(source, family.port(25)))
}

#[test]
fn the_longest_prefix_counts_whatever_the_order() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nmax_connections = 2\n\
         [[rule]]\nnetwork = \"198.51.100.7\"\nallow = true\n\
         [[rule]]\nnetwork = \"198.51.100.0/24\"\nmax_connections = 5\n\
         [[rule]]\nnetwork = \"203.0.113.0/24\"\ndeny = true\n\
         [[rule]]\nnetwork = \"2001:db8:9::/48\"\ndeny = true\n\
         [[rule]]\nnetwork = \"2001:db8:8::/48\"\nmax_connections = { smtp = 5, imap = 1 }\n\
         [[rule]]\nnetwork = \"2001:db8:7::7\"\nallow = true\n\
         [[rule]]\nnetwork = \"2001:db8:7::/64\"\ndeny = true\n",
    );
    for family in [V4, V6] {
        let [allowed, with_limit, denied] = family.sources;
        let (held, next) = serve(&lab, allowed, family, 12);
        assert!(next.is_service(), "{next:?}");
        drop(held);
        let (held, next) = serve(&lab, with_limit, family, 5);
        assert_eq!(next, Answer::Line(Limiter::smtp_reply(5, with_limit)));
        drop(held);
        assert_eq!(lab.answer(denied, family.port(25)), Answer::Silence);
        let explained = limiter.ok(&["explain", &denied.to_string()]);
        assert!(explained.contains("refused: denied") && explained.contains("the rule for "), "{explained}");
    }
    assert!(limiter.counter("smtp", "refused_denied") >= 2, "each SYN, the repeated ones too");
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn rules_change_live_and_are_for_exactly_their_network() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 1, "reset");
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let held = lab.served(source, smtp);
        assert_eq!(lab.answer(source, smtp), Answer::Reset);
        limiter.ok(&["limit", network(family), "3"]);
        let more = [lab.served(source, smtp), lab.served(source, smtp)];
        assert_eq!(lab.answer(source, smtp), Answer::Reset);
        limiter.ok(&["limit", network(family), "4", "--service", "smtp"]);
        let fourth = lab.served(source, smtp);
        limiter.ok(&["allow", &source.to_string()]);
        let fifth = lab.served(source, smtp);
        limiter.ok(&["deny", &source.to_string()]);
        assert_eq!(lab.answer(source, smtp), Answer::Silence);
        // Nobody is cut.
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 5);
        limiter.ok(&["forget", &source.to_string()]);
        drop((fourth, fifth));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 3);
        let again = lab.served(source, smtp);
        let said = limiter.ok(&["forget", &source.to_string()]);
        assert!(said.ends_with(": no rule: unchanged\n"), "{said}");
        limiter.ok(&["forget", network(family)]);
        drop((held, more, again));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
    }
    let rules = limiter.json(&["rules"]);
    assert!(rules["rules"].as_array().unwrap().iter().all(|rule| rule["built_in"] == true), "{rules:#}");
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn who_is_allowed_takes_no_place_from_its_neighbours() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let neighbour: IpAddr = "2001:db8:7::99".parse().unwrap();
    lab.client.ip(&["addr", "add", "2001:db8:7::99/128", "dev", "wire", "nodad"]).unwrap();
    lab.host.ip(&["route", "add", "2001:db8:7::99", "dev", "wire"]).unwrap();
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nmax_connections = 2\nresponse = \"reset\"\n\
         network = { ipv4_prefix = 24, ipv6_prefix = 48, max_connections = 4 }\n\
         [ladder]\nreplies = \"none\"\nban_after = \"3 in 10min\"\n",
    );
    // By IPv6 in one source and one network, by IPv4 in one network.
    for (family, beside) in [(V6, neighbour), (V4, V4.sources[1])] {
        let (source, smtp) = (family.source(), family.port(25));
        limiter.ok(&["allow", &source.to_string()]);
        let held: Vec<TcpStream> = (0..6).map(|_| lab.served(source, smtp)).collect();
        let of_neighbour = [lab.served(beside, smtp), lab.served(beside, smtp)];
        assert_eq!(lab.answer(beside, smtp), Answer::Reset, "its own limit holds");
        let [of_source, of_neighbour_alone] = match family.host {
            IpAddr::V4(_) => [format!("{source}/32"), format!("{beside}/32")],
            IpAddr::V6(_) => [format!("{source}/128"), "2001:db8:7::/64".to_owned()],
        };
        let list = limiter.json(&["list"]);
        let listed = |name: &str| {
            let mut entries = list["sources"].as_array().unwrap().iter();
            let found = entries.find(|entry| entry["service"] == "smtp" && entry["source"] == name);
            found.unwrap_or_else(|| panic!("{name}: {list:#}"))["connections"].as_u64().unwrap()
        };
        assert_eq!((listed(&of_source), listed(&of_neighbour_alone)), (6, 2));
        // What was counted apart is let go apart.
        limiter.ok(&["forget", &source.to_string()]);
        drop(of_neighbour);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), beside, 0);
        drop(held);
        sockets::settled(&lab.host, &limiter, 25);
    }
}

#[test]
fn a_raised_limit_of_a_rule_is_not_held_down_by_the_network_limit() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nmax_connections = 2\nresponse = \"reset\"\nnetwork = { max_connections = 3 }\n",
    );
    for family in [V4, V6] {
        limiter.ok(&["limit", network(family), "6"]);
        let (held, next) = serve(&lab, family.source(), family, 6);
        assert_eq!(next, Answer::Reset);
        drop(held);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 0);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn the_host_talks_to_itself_as_it_likes_from_every_address_it_has() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 1, "reset");
    for (second, family) in [("192.0.2.99/32", V4), ("2001:db8::99/128", V6)] {
        let second_address: IpAddr = second.split_once('/').unwrap().0.parse().unwrap();
        let from = |source: IpAddr| lab.host.run(|| client::dial(source, family.port(25), SOON));
        // An address that is not there yet, then is, and is gone again.
        let at_once: &[&str] = if family.host.is_ipv6() { &["nodad"] } else { &[] };
        lab.host_ip(&[&["addr", "add", second, "dev", "wire"], at_once].concat());
        eventually("the new address is allowed", SOON, || {
            let rules = limiter.json(&["rules"]).to_string();
            if rules.contains(second) { Ok(()) } else { Err(rules) }
        });
        let held: Vec<TcpStream> =
            (0..5).map(|_| from(second_address).expect("it is the host's own")).collect();
        let also: Vec<TcpStream> = (0..5).map(|_| from(family.host).expect("so is this")).collect();
        drop((held, also));
        // The file's word on a local address counts.
        limiter.ok(&["deny", second, "--force"]);
        assert!(from(second_address).is_err());
        limiter.ok(&["forget", second]);
        lab.host_ip(&["addr", "del", second, "dev", "wire"]);
        eventually("it is no longer", SOON, || {
            let rules = limiter.json(&["rules"]).to_string();
            same("in the rules", &rules.contains(second), &false)
        });
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn when_the_admins_word_on_an_own_address_is_taken_back_it_is_allowed_again_at_once() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let config = "[defaults]\nmax_connections = 1\nresponse = \"reset\"\n";
    let limiter = Limiter::start_with(&lab, config);
    for family in [V4, V6] {
        let own = family.host.to_string();
        let from = || lab.host.run(|| client::answer(family.host, family.port(25), A_WHILE));
        let takes_back = |way: &str| {
            let held: Vec<TcpStream> = (0..3)
                .map(|n| match from() {
                    (Some(stream), answer) if answer.is_service() => stream,
                    (_, answer) => panic!("{way}, connection {n} of {own}: {answer:?}"),
                })
                .collect();
            drop(held);
            let rules = limiter.json(&["rules"]);
            let mut mine = rules["rules"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|rule| rule["network"].as_str().unwrap().split('/').next() == Some(own.as_str()));
            let rule = mine.next().expect("it is in the list");
            assert!(rule["built_in"] == true && rule["action"] == "allow", "{rule}");
        };
        for verb in [vec!["deny"], vec!["allow"], vec!["limit"]] {
            let value: &[&str] = match verb[0] {
                "limit" => &["1"],
                "deny" => &["--force"],
                _ => &[],
            };
            limiter.ok(&[&verb[..], &[own.as_str()], value].concat());
            if verb[0] == "deny" {
                assert!(!from().1.is_service(), "the admin's word counts");
            }
            limiter.ok(&["forget", &own]);
            takes_back(verb[0]);
        }
        limiter.configure(&format!("{config}[[rule]]\nnetwork = \"{own}\"\ndeny = true\n"));
        limiter.ok(&["reload"]);
        assert!(!from().1.is_service(), "the file's word counts");
        limiter.configure(config);
        limiter.ok(&["reload"]);
        takes_back("reload");
    }
    sockets::settled(&lab.host, &limiter, 25);
}

/// A wire more between the two hosts, as other network interfaces have it. The mail host has `fe80::7` on the first
/// and `fe80::8` on the second one; the client has `fe80::7` on the second one.
#[test]
fn a_neighbour_with_a_link_local_address_that_the_host_has_on_another_link_is_limited() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let (client, host) = (lab.client.name(), lab.host.name());
    for line in [
        format!("-n {client} link add other type veth peer name other netns {host}"),
        format!("-n {client} link set other addrgenmode none up"),
        format!("-n {host} link set other addrgenmode none up"),
        format!("-n {host} addr add fe80::7/64 dev wire nodad"),
        format!("-n {host} addr add fe80::8/64 dev other nodad"),
        format!("-n {client} addr add fe80::7/64 dev other nodad"),
    ] {
        let mut command = Command::new("ip");
        command.args(line.split_whitespace());
        run(command).unwrap();
    }
    let limiter = Limiter::start(&lab, 2, "reset");
    let scope = |netns: &Namespace, name: &str| {
        netns.run(|| nix::net::if_::if_nametoindex(name)).expect("it is there")
    };
    let at = |address: &str, scope: u32| SocketAddrV6::new(address.parse().unwrap(), 25, 0, scope);
    let dial = |netns: &Namespace, from: SocketAddrV6, to: SocketAddrV6| {
        netns.run(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            socket
                .bind(&SocketAddr::V6(SocketAddrV6::new(*from.ip(), 0, 0, from.scope_id())).into())
                .unwrap();
            socket.connect_timeout(&SocketAddr::V6(to).into(), SOON).map(|()| TcpStream::from(socket))
        })
    };
    let there = scope(&lab.client, "other");
    let knock = || dial(&lab.client, at("fe80::7", there), at("fe80::8", there));
    let held = [knock().expect("the first"), knock().expect("the second")];
    for stream in &held {
        assert!(client::first_line(stream, SOON).is_service());
    }
    assert!(knock().is_err(), "a neighbour has its limit, whatever its address is elsewhere");
    // The host itself connects by its link-local addresses as it likes.
    for (address, interface) in [("fe80::7", "wire"), ("fe80::8", "other")] {
        let here = at(address, scope(&lab.host, interface));
        let own: Vec<TcpStream> =
            (0..5).map(|_| dial(&lab.host, here, here).expect("it is the host's own")).collect();
        for stream in &own {
            assert!(client::first_line(stream, SOON).is_service());
        }
    }
    // What the admin says of them counts.
    limiter.ok(&["allow", "fe80::/10"]);
    let more: Vec<TcpStream> = (0..3).map(|_| knock().expect("it is allowed")).collect();
    drop((more, held));
    sockets::settled(&lab.host, &limiter, 25);
}
