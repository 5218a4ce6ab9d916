// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! More sources than the ledger has room for: those that are gone make room, and those that are there do not lift the
//! limits of others.

use std::net::{IpAddr, Ipv6Addr, TcpStream};

use serde_json::Value;

use limiter_lab::{Lab, Limiter, SOON, Sink, V4, V6, client, eventually, sockets};

/// What an IPv6 customer has of addresses.
const CROWD: &str = "2001:db8:c::/48";
/// The smallest ledger there is.
const ROOM: u16 = 1024;

fn of_crowd(nth: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc, nth, 0, 0, 0, 7))
}

/// One connection after the other from each of the first sources of the crowd.
fn come(lab: &Lab, sources: std::ops::Range<u16>) -> Vec<TcpStream> {
    lab.client.run(|| {
        sources.map(|nth| client::dial(of_crowd(nth), V6.port(25), SOON).expect("it is served")).collect()
    })
}

/// How many of nine connections a source is served.
fn served_of_nine(lab: &Lab, source: IpAddr) -> Vec<TcpStream> {
    let to = if source.is_ipv4() { V4.port(25) } else { V6.port(25) };
    let one = |_| lab.client.run(|| client::answer(source, to, SOON));
    (0..9).map(one).filter(|(_, answer)| answer.is_service()).filter_map(|(stream, _)| stream).collect()
}

/// Three connections, and no more.
#[track_caller]
fn served_exactly(lab: &Lab, limiter: &Limiter, source: IpAddr) -> Vec<TcpStream> {
    let held = served_of_nine(lab, source);
    assert_eq!(held.len(), 3, "{source}");
    sockets::agree(&lab.host, limiter, ("smtp", 25), source, 3);
    held
}

fn config(max_sources: u16) -> String {
    format!("max_sources = {max_sources}\nremember_seconds = 86400\n[service.smtp]\nmax_connections = 3\n")
}

fn start(lab: &Lab) -> Limiter {
    lab.take_network(CROWD);
    Limiter::start_with(lab, &config(ROOM))
}

fn warnings(limiter: &Limiter) -> String {
    limiter.json(&["status"])["warnings"].to_string()
}

#[test]
fn a_network_that_came_and_went_leaves_every_newcomer_its_limit_and_no_more() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = start(&lab);
    for (has_daemon, families) in
        [(true, [V4.sources[0], V6.sources[0]]), (false, [V4.sources[1], V6.sources[1]])]
    {
        if !has_daemon {
            limiter.kill();
        }
        lab.client.run(|| {
            for nth in 0..1200 {
                drop(client::dial(of_crowd(nth), V6.port(25), SOON).expect("it is served"));
            }
        });
        eventually("the crowd is gone", SOON, || match sockets::established(&lab.host, 25).len() {
            0 => Ok(()),
            live => Err(format!("{live} are there")),
        });
        for source in families {
            drop(served_exactly(&lab, &limiter, source));
            sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
        }
        assert_eq!(limiter.counter("smtp", "uncounted") + limiter.counter("smtp", "shared"), 0);
        assert!(!warnings(&limiter).contains("in the ledger"), "{}", warnings(&limiter));
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn when_every_entry_is_in_use_a_newcomer_is_served_and_limited_with_its_network_until_there_is_room() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = start(&lab);
    let mut crowd = come(&lab, 0..ROOM);
    for (family, has_daemon) in [(V4, true), (V6, false)] {
        if !has_daemon {
            limiter.kill();
        }
        let [source, other, far] = family.sources;
        // Four times the limit for those around it: the third is of another /24, and of another /48.
        let held = served_of_nine(&lab, source);
        assert_eq!(held.len(), 9, "{source}");
        let beside = served_of_nine(&lab, other);
        assert_eq!(beside.len(), if family.host.is_ipv4() { 3 } else { 9 }, "{other}");
        let apart = served_of_nine(&lab, far);
        assert_eq!(apart.len(), 9, "{far}");
        if family.host.is_ipv4() {
            let explained = limiter.ok(&["explain", &source.to_string()]);
            assert!(
                explained.contains("198.51.100.0/24") && explained.contains("refused: network"),
                "{explained}"
            );
        }
        assert!(warnings(&limiter).contains("raise max_sources"), "{}", warnings(&limiter));
        assert!(limiter.ok(&["list"]).contains(" (shared)"));
        assert_eq!(limiter.counter("smtp", "shared"), if has_daemon { 21 } else { 48 });
        if has_daemon {
            let live = limiter.json(&["status", "--verify"])["verified"].clone();
            assert_eq!(live["differences"].as_array().map(Vec::len), Some(0), "{live}");
        }
        drop((held, beside, apart));
        eventually("nothing is shared any more", SOON, || {
            let list = limiter.json(&["list"]);
            let shared = |source: &Value| source["tier"] == "shared" && source["connections"] != 0;
            match list["sources"].as_array().unwrap().iter().filter(|source| shared(source)).count() {
                0 => Ok(()),
                _ => Err(list.to_string()),
            }
        });
    }
    assert_eq!(limiter.counter("smtp", "uncounted"), 0);
    // Some leave, and there is room for sources of their own again.
    drop(crowd.drain(..8));
    for source in [V4.source(), V6.source()] {
        eventually("there is room", SOON, || match served_of_nine(&lab, source).len() {
            3 => Ok(()),
            n => Err(format!("{n} served")),
        });
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
    }
    // The warning's advice ends it, and loses nobody.
    limiter.configure(&config(2 * ROOM));
    limiter.run();
    assert!(limiter.log().contains("max_sources was 1024, and is now 2048"), "{}", limiter.log());
    assert!(!warnings(&limiter).contains("in the ledger"), "{}", warnings(&limiter));
    assert_eq!(limiter.counter("smtp", "adopted"), u64::from(ROOM) - 8);
    drop(served_exactly(&lab, &limiter, V4.sources[1]));
    drop(crowd);
    sockets::settled(&lab.host, &limiter, 25);
}
