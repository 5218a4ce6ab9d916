// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Policy routing: the way back to a client goes by the mark that the firewall has given its packets (`fwmark` of
//! ip-rule(8)), as on a host with two providers.

use std::fmt::Write as _;
use std::net::TcpStream;

use crate::tproxy::firewall;
use limiter_lab::client::{first_line, knock};
use limiter_lab::{Answer, Family, Lab, Limiter, SOON, Sink, V4, V6, eventually, same, sockets};

/// From now on the mail host finds nobody at the other end of the wire without the mark.
fn only_by_mark(lab: &Lab) {
    let mut ways = String::new();
    for family in [V4, V6] {
        for source in family.sources {
            let _ = writeln!(ways, "route del {source} dev wire");
            let _ = writeln!(ways, "route add {source} dev wire src {} table 100", family.host);
        }
    }
    lab.host.ip_batch(&ways).unwrap();
    for version in ["-4", "-6"] {
        lab.host_ip(&[version, "rule", "add", "fwmark", "7", "table", "100"]);
    }
    for (sysctl, value) in [
        ("ipv4/tcp_fwmark_accept", "1"),
        ("ipv4/fwmark_reflect", "1"),
        ("ipv6/fwmark_reflect", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/wire/rp_filter", "0"),
    ] {
        lab.host.sysctl(sysctl, value).unwrap();
    }
    let chain =
        "chain in {\n type filter hook prerouting priority mangle\n iifname \"wire\" meta mark set 7\n}";
    firewall(lab, &format!("table inet marks {{\n{chain}\n}}\n"));
}

/// Handshakes of one source that begin before any of them is complete: three are served, and the others wait.
fn burst(lab: &Lab, limiter: &Limiter, family: Family) -> Vec<TcpStream> {
    let source = family.source();
    lab.deafen(source);
    let clients: Vec<_> = (0..5).map(|_| lab.client.run(|| knock(source, family.port(25)))).collect();
    eventually("the SYNs are there", SOON, || {
        same("half open", &sockets::half_open(&lab.host, 25).len(), &5)
    });
    lab.undeafen(source);
    sockets::agree(&lab.host, limiter, ("smtp", 25), source, 3);
    eventually("two wait", SOON, || {
        let list = limiter.json(&["list"]);
        let waiting =
            list["sources"].as_array().into_iter().flatten().filter_map(|of| of["waiting"].as_u64());
        same("waiting", &waiting.sum::<u64>(), &2)
    });
    clients
}

#[test]
fn where_the_way_back_goes_by_mark_waiters_get_in_at_once_are_told_and_are_reset() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    only_by_mark(&lab);
    let limiter = Limiter::start_with(&lab, "[service.smtp]\nmax_connections = 3\nwait = \"60s\"\n");
    let (mut let_in, mut lost) = (0, 0);
    for family in [V4, V6] {
        let source = family.source();
        let mut clients = burst(&lab, &limiter, family);
        // Whoever is served has been greeted.
        let is_served = |client: &TcpStream| first_line(client, SOON / 50).is_service();
        let at = clients.iter().position(is_served).expect("three are served");
        drop(clients.remove(at));
        let_in += 1;
        eventually("the next gets in", SOON, || same("let in", &limiter.counter("smtp", "let_in"), &let_in));
        lost += limiter.counter("smtp", "lost_turn");
        limiter.ok(&["set", "smtp", "wait=0s"]);
        let said: Vec<Answer> = clients.iter().map(|client| first_line(client, SOON)).collect();
        let told = Answer::Line(Limiter::smtp_reply(3, source));
        assert_eq!(said.iter().filter(|said| **said == told).count(), 1, "{source}: {said:?}");
        drop(clients);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
        limiter.ok(&["set", "smtp", "wait=60s"]);

        let clients = burst(&lab, &limiter, family);
        limiter.ok(&["set", "smtp", "wait=0s", "response=reset"]);
        let said: Vec<Answer> = clients.iter().map(|client| first_line(client, SOON)).collect();
        assert_eq!(said.iter().filter(|said| **said == Answer::Reset).count(), 2, "{source}: {said:?}");
        drop(clients);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
        limiter.ok(&["set", "smtp", "wait=60s", "response=reply"]);
    }
    assert_eq!(lost, 0, "a probe that does not arrive costs a turn");
    sockets::settled(&lab.host, &limiter, 25);
}
