// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Frames and verdicts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::frame::{
    ACK, AUTHENTICATION, CUSTOMER, DESTINATION, ESP, FIN, Frame, HOP_BY_HOP, ROUTING, RST, SERVICE, SYN, UDP,
    authentication, extension, fragment,
};
use crate::setup::{Setup, Sources, Verdict};
use limiter_lab::{Answer, SOON, V4, V6, client, sockets};

use Verdict::{Drop, Pass};

const SMTP: u16 = 25;
const IMAP: u16 = 143;
const OBSERVED: u16 = 110;

type Case = (&'static str, Frame, Verdict);

/// Who it comes from, and what it is for.
fn of_standing(sources: &Sources) -> Vec<Case> {
    let syn = |from, port| Frame::syn(from, sources.host, port);
    let Sources { ordinary, denied, allowed, banned, .. } = *sources;
    let forwarded = match sources.host {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99)),
    };
    vec![
        ("an ordinary source", syn(ordinary, SMTP), Pass),
        ("a denied source", syn(denied, SMTP), Drop),
        ("a denied source, at another service", syn(denied, IMAP), Drop),
        ("a denied source, at a port of nobody", syn(denied, 80), Pass),
        ("a denied source, at port 0", syn(denied, 0), Pass),
        ("an allowed source in a denied network", syn(allowed, SMTP), Pass),
        ("a denied source, at a service that only observes", syn(denied, OBSERVED), Pass),
        ("a denied source, to be forwarded", Frame::syn(denied, forwarded, SMTP), Pass),
        ("a banned source", syn(banned, SMTP), Drop),
        ("a banned source, at another service", syn(banned, IMAP), Pass),
        ("a banned source, at a port of nobody", syn(banned, 80), Pass),
        ("a banned source, to be forwarded", Frame::syn(banned, forwarded, SMTP), Pass),
        ("a source whose ban is over", syn(sources.was_banned, SMTP), Pass),
        ("a source banned elsewhere", syn(sources.banned_elsewhere, SMTP), Pass),
        ("the same source, there", syn(sources.banned_elsewhere, IMAP), Drop),
        ("a source banned, and allowed since", syn(sources.banned_and_allowed, SMTP), Pass),
        ("the host itself", syn(sources.host, SMTP), Pass),
    ]
}

/// What kind of segment it is. Connections of denied and banned sources go on, and what belongs to one cannot be told
/// here.
fn of_flags(sources: &Sources) -> Vec<Case> {
    let segment = |from, flags| Frame::syn(from, sources.host, SMTP).with(|frame| frame.flags = flags);
    let Sources { denied, banned, ordinary, .. } = *sources;
    vec![
        ("SYN with ECN, denied", segment(denied, SYN | 0xc0), Drop),
        ("SYN+ACK, denied", segment(denied, SYN | ACK), Pass),
        ("ACK, denied", segment(denied, ACK), Pass),
        ("RST, denied", segment(denied, RST), Pass),
        ("FIN+ACK, denied", segment(denied, FIN | ACK), Pass),
        ("nothing at all, denied", segment(denied, 0), Pass),
        ("SYN+FIN, denied", segment(denied, SYN | FIN), Drop),
        ("SYN+ACK, banned", segment(banned, SYN | ACK), Pass),
        ("ACK, banned", segment(banned, ACK), Pass),
        ("RST, banned", segment(banned, RST), Pass),
        ("FIN+ACK, banned", segment(banned, FIN | ACK), Pass),
        ("SYN with ECN, banned", segment(banned, SYN | 0xc0), Drop),
        ("ACK, ordinary", segment(ordinary, ACK), Pass),
        ("RST, ordinary", segment(ordinary, RST), Pass),
    ]
}

/// What it is wrapped in.
fn of_wrapping(sources: &Sources) -> Vec<Case> {
    let syn = || Frame::syn(sources.denied, sources.host, SMTP);
    let tagged = |tags: &[u16]| syn().with(|frame| frame.tags = tags.to_vec());
    vec![
        ("a VLAN", tagged(&[CUSTOMER]), Drop),
        ("a service's VLAN", tagged(&[SERVICE]), Drop),
        ("QinQ", tagged(&[SERVICE, CUSTOMER]), Drop),
        ("two customers' tags", tagged(&[CUSTOMER, CUSTOMER]), Drop),
        ("three tags", tagged(&[SERVICE, CUSTOMER, CUSTOMER]), Pass),
        ("an EtherType of nobody", syn().with(|frame| frame.ether_type = Some(0x88b5)), Pass),
        ("ARP", syn().with(|frame| frame.ether_type = Some(0x0806)), Pass),
        ("a length (802.3)", syn().with(|frame| frame.ether_type = Some(60)), Pass),
        ("UDP", syn().with(|frame| frame.protocol = UDP), Pass),
        ("ESP", syn().with(|frame| frame.protocol = ESP), Pass),
        ("data in the SYN", syn().with(|frame| frame.payload = vec![7; 1000]), Drop),
        ("more than a page of it", syn().with(|frame| frame.payload = vec![7; 6000]), Drop),
    ]
}

fn of_v4(sources: &Sources) -> Vec<Case> {
    let syn = || Frame::syn(sources.denied, sources.host, SMTP);
    let options = |len: usize| syn().with(|frame| frame.options = vec![1; len]);
    let part = |offset, more| syn().with(|frame| frame.fragment = (offset, more));
    vec![
        ("one word of options", options(4), Drop),
        ("ten words of options", options(40), Drop),
        ("options of the same look as the ports", options(20).with(|frame| frame.ports.1 = 80), Pass),
        ("the first fragment", part(0, true), Drop),
        ("a later fragment", part(3, true), Pass),
        ("the last fragment", part(8191, false), Pass),
        ("IPv6 in the name of IPv4", syn().with(|frame| frame.ether_type = Some(0x86dd)), Pass),
    ]
}

fn of_v6(sources: &Sources) -> Vec<Case> {
    let behind = |extensions: Vec<(u8, Vec<u8>)>| {
        Frame::syn(sources.denied, sources.host, SMTP).with(|frame| frame.extensions = extensions)
    };
    let neighbour = |source: IpAddr| match source {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) ^ 0xffff_0000)),
        IpAddr::V4(_) => panic!("IPv6"),
    };
    let next_network = |source: IpAddr| match source {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) ^ 1 << 64)),
        IpAddr::V4(_) => panic!("IPv6"),
    };
    let syn = |from| Frame::syn(from, sources.host, SMTP);
    let (hop, route, options) = (extension(HOP_BY_HOP, 1), extension(ROUTING, 2), extension(DESTINATION, 1));
    vec![
        ("behind hop-by-hop options", behind(vec![hop.clone()]), Drop),
        ("behind a long extension header", behind(vec![extension(DESTINATION, 100)]), Drop),
        ("behind a routing header", behind(vec![route.clone()]), Drop),
        ("behind destination options", behind(vec![options.clone()]), Drop),
        ("behind an authentication header", behind(vec![authentication(6)]), Drop),
        ("behind an authentication header of an odd number of words", behind(vec![authentication(7)]), Drop),
        (
            "behind one of each",
            behind(vec![hop, options.clone(), route, fragment(0, true), authentication(6), options.clone()]),
            Drop,
        ),
        ("behind seven", behind(vec![options.clone(); 7]), Drop),
        ("behind eight", behind(vec![options.clone(); 8]), Pass),
        ("behind nine", behind(vec![options.clone(); 9]), Pass),
        ("behind ESP", behind(vec![(ESP, vec![0; 7])]), Pass),
        ("whole, with a fragment header", behind(vec![fragment(0, false)]), Drop),
        ("the first fragment", behind(vec![fragment(0, true)]), Drop),
        ("a later fragment", behind(vec![fragment(1, true)]), Pass),
        ("the last fragment", behind(vec![options, fragment(100, false)]), Pass),
        ("IPv4 in the name of IPv6", syn(sources.denied).with(|frame| frame.ether_type = Some(0x0800)), Pass),
        ("another of a banned /64", syn(neighbour(sources.banned)), Drop),
        ("the /64 beside a banned one", syn(next_network(sources.banned)), Pass),
        ("AUTHENTICATION is no number of an option", behind(vec![(AUTHENTICATION, vec![0xff; 7])]), Pass),
    ]
}

#[test]
fn every_frame_gets_its_verdict_and_every_drop_is_counted() {
    let Some(setup) = Setup::new() else { return };
    let mut wrong = Vec::new();
    let (mut tried, mut drops) = (0, 0);
    for sources in Sources::of_both() {
        let own = if sources.host.is_ipv4() { of_v4(&sources) } else { of_v6(&sources) };
        let cases = [of_standing(&sources), of_flags(&sources), of_wrapping(&sources), own].concat();
        for (description, frame, expected) in cases {
            tried += 1;
            // What was dropped once may be remembered.
            for time in 1..=3 {
                drops += u64::from(expected == Drop);
                let verdict = setup.verdict(&frame.bytes());
                if verdict != expected {
                    wrong.push(format!("{description}, {time}: {verdict:?}, not {expected:?}: {frame:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {tried} frames:\n{}", wrong.join("\n"));
    assert_eq!(setup.dropped(), drops);
}

#[test]
fn of_a_banned_source_what_begins_no_connection_passes() {
    let Some(setup) = Setup::new() else { return };
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(SMTP));
        // Denied is not banned.
        setup.limiter.ok(&["forget", if source.is_ipv4() { "198.51.100.0/24" } else { "2001:db8:7::/48" }]);
        let session = setup.lab.served(source, smtp);
        let port = session.local_addr().expect("it is connected").port();
        let frame = |port, flags| {
            Frame::syn(source, family.host, SMTP).with(|frame| {
                frame.ports.0 = port;
                frame.flags = flags;
            })
        };
        let verdict = |port, flags| setup.verdict(&frame(port, flags).bytes());
        setup.limiter.ok(&["ban", &source.to_string()]);
        // Of the connection, and of none that is known here.
        for port in [port, port ^ 1] {
            for flags in [ACK, FIN | ACK, RST, RST | ACK, SYN | ACK] {
                assert_eq!(verdict(port, flags), Pass, "{flags:#x}");
            }
            assert_eq!(verdict(port, SYN), Drop, "it would begin one");
        }
        let said = client::ask(&session, "QUIT", SOON);
        assert_eq!(said, Answer::Line("221 2.0.0 Bye".to_owned()));
        drop(session);
        sockets::agree(&setup.lab.host, &setup.limiter, ("smtp", SMTP), source, 0);
    }
}
