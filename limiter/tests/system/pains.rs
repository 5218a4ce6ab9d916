// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What mail administrators suffer from, played out with Postfix and Dovecot behind the limiter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::{dovecot, postfix};
use limiter_lab::lab::V6_NEIGHBOUR;
use limiter_lab::{Answer, Family, Lab, Limiter, SOON, V4, V6, client, eventually, sockets};

/// Long enough for a SYN that is repeated once.
const A_WHILE: Duration = Duration::from_millis(1500);

fn sessions(lab: &Lab, source: IpAddr, family: Family, port: u16, n: usize) -> Vec<TcpStream> {
    (0..n).map(|_| lab.served(source, family.port(port))).collect()
}

fn answer(lab: &Lab, source: IpAddr, family: Family, port: u16) -> Answer {
    lab.client.run(|| client::answer(source, family.port(port), A_WHILE).1)
}

fn is_told(answer: &Answer, words: &str) -> bool {
    matches!(answer, Answer::Line(line) if line.contains(words))
}

#[track_caller]
fn told(lab: &Lab, source: IpAddr, family: Family, port: u16, words: &str) {
    let answer = answer(lab, source, family, port);
    assert!(is_told(&answer, words), "{source} is to be told {words:?}, and got {answer:?}");
}

/// Comes again and again, until it hears nothing any more.
#[track_caller]
fn insist(lab: &Lab, source: IpAddr, family: Family, port: u16) {
    eventually(&format!("{source} is banned"), SOON, || match answer(lab, source, family, port) {
        Answer::Silence => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
}

#[test]
fn an_office_behind_one_address_gets_the_limit_it_needs_and_nobody_else_does() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nmax_connections = 5\n\
         [[rule]]\nnetwork = \"198.51.100.7\"\ncomment = \"office\"\nmax_connections = { imap = 30 }\n\
         [[rule]]\nnetwork = \"2001:db8:7::/48\"\ncomment = \"office\"\nmax_connections = { imap = 30 }\n",
    );
    for family in [V4, V6] {
        let [office, other, _] = family.sources;
        let mut held = sessions(&lab, office, family, 143, 30);
        told(&lab, office, family, 143, "Too many connections (30 of 30) from this IP");
        // More people, more phones: at once, and nobody is cut.
        limiter.ok(&["limit", &office.to_string(), "33", "--service", "imap"]);
        held.extend(sessions(&lab, office, family, 143, 3));
        told(&lab, office, family, 143, "Too many connections (33 of 33) from this IP");
        // For IMAP only, and for them only.
        let pop3 = sessions(&lab, office, family, 110, 5);
        told(&lab, office, family, 110, "Too many connections (5 of 5) from this IP");
        let others = sessions(&lab, other, family, 143, 5);
        told(&lab, other, family, 143, "Too many connections (5 of 5) from this IP");
        drop((held, pop3, others));
        sockets::agree(&lab.host, &limiter, ("imap", 143), office, 0);
    }
    sockets::settled(&lab.host, &limiter, 143);
}

#[test]
fn a_webmail_host_gets_in_when_the_service_is_full() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter = Limiter::start_with(
        &lab,
        "[service.imap]\nmax_connections = 10\nmax_total = 10\nreserve = 20\n\
         [[rule]]\nnetwork = \"198.51.100.8\"\nallow = true\n[[rule]]\nnetwork = \"2001:db8:8::/48\"\nallow = true\n",
    );
    for family in [V4, V6] {
        let [people, webmail, late] = family.sources;
        let crowd = sessions(&lab, people, family, 143, 10);
        told(&lab, late, family, 143, "to this service");
        // One address, many people: the limit of a source is not for it.
        let of_webmail = sessions(&lab, webmail, family, 143, 20);
        told(&lab, webmail, family, 143, "to this service");
        drop((crowd, of_webmail));
        sockets::agree(&lab.host, &limiter, ("imap", 143), webmail, 0);
        sockets::agree(&lab.host, &limiter, ("imap", 143), people, 0);
    }
    sockets::settled(&lab.host, &limiter, 143);
}

#[test]
fn an_abuser_with_a_whole_64_is_one_source_and_is_banned_as_one() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let postfix = postfix::start(&lab);
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 4\n[ladder]\nreplies = \"none\"\nban_after = \"10 in 10min\"\n",
    );
    let (one, other) = (V6.source(), V6_NEIGHBOUR);
    let held = [sessions(&lab, one, V6, 25, 2), sessions(&lab, other, V6, 25, 2)];
    for _ in 0..5 {
        told(&lab, one, V6, 25, "Too many connections (4 of 4) from this IP");
        told(&lab, other, V6, 25, "Too many connections (4 of 4) from this IP");
    }
    insist(&lab, one, V6, 25);
    assert_eq!(answer(&lab, other, V6, 25), Answer::Silence, "the whole /64 is banned");
    assert!(limiter.ok(&["bans"]).contains("2001:db8:7::/64"));
    // Who lives elsewhere, in either family, knows nothing of it.
    drop((lab.served(V6.sources[1], V6.port(25)), lab.served(V4.source(), V4.port(25))));
    drop(held);
    sockets::agree(&lab.host, &limiter, ("smtp", 25), one, 0);
    // Postfix has seen the four that were served, and not one of those that were not.
    for source in [one, other] {
        assert_eq!(postfix.lines(&[" connect from ", &format!("[{source}]")]).len(), 2);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_neighbour_in_the_same_48_is_not_banned_with_the_abuser() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _postfix = postfix::start(&lab);
    // In the /48 of the first source, and in another /64.
    let neighbour: IpAddr = "2001:db8:7:1::7".parse().unwrap();
    for (netns, line) in [
        (&lab.client, "addr add 2001:db8:7:1::7/128 dev wire nodad"),
        (&lab.host, "route add 2001:db8:7:1::7 dev wire"),
    ] {
        let status = netns.command("ip").args(line.split(' ')).status().unwrap();
        assert!(status.success(), "ip {line}");
    }
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 4\nnetwork = { max_connections = 6 }\n\
         [ladder]\nreplies = \"none\"\nban_after = \"10 in 10min\"\n",
    );
    let abuser = V6.source();
    let held = sessions(&lab, abuser, V6, 25, 4);
    // The network has room for two more, and they are the neighbour's.
    let neighbours = sessions(&lab, neighbour, V6, 25, 2);
    drop(neighbours);
    sockets::agree(&lab.host, &limiter, ("smtp", 25), neighbour, 0);
    insist(&lab, abuser, V6, 25);
    let neighbours = sessions(&lab, neighbour, V6, 25, 2);
    // Refused for what others hold, as often as it likes: that is nothing to ban it for.
    for _ in 0..20 {
        told(&lab, neighbour, V6, 25, "from the network of this IP");
    }
    drop(held);
    sockets::agree(&lab.host, &limiter, ("smtp", 25), abuser, 0);
    let more = sessions(&lab, neighbour, V6, 25, 2);
    assert_eq!(answer(&lab, abuser, V6, 25), Answer::Silence, "it is banned all the same");
    drop((neighbours, more));
    sockets::agree(&lab.host, &limiter, ("smtp", 25), neighbour, 0);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_monitoring_host_banned_by_mistake_is_allowed_and_postfix_serves_it_at_once() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _postfix = postfix::start(&lab);
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 2\n[ladder]\nreplies = \"none\"\nban_after = \"10 in 10min\"\n",
    );
    for family in [V4, V6] {
        let probe = family.source();
        let held = sessions(&lab, probe, family, 25, 2);
        insist(&lab, probe, family, 25);
        let explained = limiter.ok(&["explain", &probe.to_string()]);
        assert!(explained.contains(&format!(" unban {probe}")), "it says what to do: {explained}");
        limiter.ok(&["allow", &probe.to_string()]);
        let more = sessions(&lab, probe, family, 25, 10);
        drop((held, more));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), probe, 0);
        // Taken back, the ban that is still there holds again; ended, it does not.
        limiter.ok(&["forget", &probe.to_string()]);
        assert_eq!(answer(&lab, probe, family, 25), Answer::Silence);
        limiter.ok(&["unban", &probe.to_string()]);
        drop(lab.served(probe, family.port(25)));
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_server_that_talks_to_itself_is_never_limited_and_cannot_be_banned() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _postfix = postfix::start(&lab);
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 1\nrate = \"1/min\"\nnetwork = { max_connections = 1 }\n\
         [ladder]\nreplies = \"none\"\nban_after = \"1 in 10min\"\n",
    );
    for own in [V4.host, V6.host, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let served = || {
            let (stream, answer) = lab.host.run(|| client::answer(own, SocketAddr::new(own, 25), SOON));
            assert!(answer.is_service(), "{own}: {answer:?}");
            stream.expect("it is served")
        };
        let held: Vec<TcpStream> = (0..20).map(|_| served()).collect();
        let outcome = limiter.cli(&["ban", &own.to_string()]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains("a local address of this host"), "{outcome:?}");
        drop(held);
    }
    sockets::settled(&lab.host, &limiter, 25);
}
