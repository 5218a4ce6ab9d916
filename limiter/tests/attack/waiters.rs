// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Handshakes that wait, of clients that want no place: what is kept for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use limiter_lab::sock_diag::{ESTABLISHED, SYN_RECV, Sockets};
use limiter_lab::{Family, Limiter, SOON, Sink, V4, V6, eventually, proc_net, same};

use crate::lab::AttackLab;
use crate::raw::{ACK, Caller, Crowd, RST, SYN, Segment};

/// The most connections of the service.
const TOTAL: u16 = 10;
const BACKLOG: i32 = 4_096;
const PORT: u16 = 20_001;

/// The `n`th address of the `network`th network that nobody lives in.
fn address(family: Family, network: u16, n: u16) -> IpAddr {
    match family.host {
        IpAddr::V4(_) => Ipv4Addr::from_bits(0xc612_0000 | u32::from(network) << 8 | u32::from(n)).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 2, 0, network << 8 | n, 0, 0, 0, 7).into(),
    }
}

/// One caller at each address, with its SYN-ACK.
fn half_open(lab: &AttackLab, family: Family, addresses: impl Iterator<Item = IpAddr>) -> Vec<Crowd> {
    let crowd = |address| {
        let mut crowd = Crowd::new(lab, address, PORT..=PORT, family.port(25));
        crowd.call();
        crowd
    };
    addresses.map(crowd).collect()
}

/// How many connections and waiters the service has, by the sum of its sources.
fn counted(limiter: &Limiter) -> (u64, u64) {
    let list = limiter.json(&["list"]);
    let sources = list["sources"].as_array().expect("a list of sources");
    let of_sources = sources.iter().filter(|source| source["tier"] == "source");
    of_sources.fold((0, 0), |(connections, waiting), source| {
        let number = |key: &str| source[key].as_u64().expect("a number");
        (connections + number("connections"), waiting + number("waiting"))
    })
}

#[track_caller]
fn becomes(limiter: &Limiter, expected: (u64, u64)) {
    eventually("connections and waiters", SOON, || same("counted", &counted(limiter), &expected));
}

/// A service that is full for a moment, with a crowd that waits and never answers: when it is not full any more, `while_they_wait`
/// looks what is left for others.
fn a_crowd_that_waits(
    config: &str,
    crowd: impl Fn(Family, u16) -> IpAddr,
    while_they_wait: impl Fn(&AttackLab, Family),
) {
    const CROWD: u16 = 30;
    let Some(lab) = AttackLab::new() else { return };
    let _server = Sink::with_backlog(&lab, 25, BACKLOG);
    let limiter = Limiter::start_with(
        &lab,
        &format!(
            "[defaults]\nmax_connections = 3\nwait = \"30s\"\n[service.smtp]\nmax_total = {TOTAL}\n{config}"
        ),
    );
    for family in [V4, V6] {
        // All SYNs are judged while there is room.
        let crowd = half_open(&lab, family, (1..=CROWD).map(|n| crowd(family, n)));
        let others = half_open(&lab, family, (1..=TOTAL).map(|n| address(family, 100 + n, 1)));
        others.iter().for_each(Crowd::complete);
        becomes(&limiter, (TOTAL.into(), 0));
        crowd.iter().for_each(Crowd::complete);
        becomes(&limiter, (TOTAL.into(), CROWD.into()));
        others.iter().for_each(Crowd::hang_up);
        becomes(&limiter, (0, CROWD.into()));
        while_they_wait(&lab, family);
        eventually("they wait, or hold nothing", SOON, || same("connections", &counted(&limiter).0, &0));
        assert_eq!(counted(&limiter).1, u64::from(CROWD), "all of them wait still");
        crowd.iter().for_each(Crowd::hang_up);
        becomes(&limiter, (0, 0));
        let verified = limiter.json(&["status", "--verify"]);
        assert_eq!(verified["verified"]["differences"], serde_json::json!([]), "{verified:#}");
    }
}

#[test]
fn a_crowd_of_one_network_that_waits_keeps_no_more_of_a_service_than_the_network_may_have() {
    let config = "network = { max_connections = 4, ipv6_prefix = 56 }\n";
    a_crowd_that_waits(
        config,
        |family, n| address(family, 1, n),
        |lab, family| {
            // At once, whether the crowd has had its turn or not: six places are nobody's, and as many as their network may have for the others.
            let held: Vec<_> = (0..2)
                .flat_map(|n| (0..2).map(move |_| family.sources[n]))
                .map(|source| lab.served(source, family.port(25)))
                .collect();
            assert_eq!(held.len(), 4);
        },
    );
}

/// Each of them may have a place, and as many are kept. Who does not answer in its turn loses it, and what was kept.
#[test]
fn who_has_missed_its_turn_keeps_no_place_from_others() {
    a_crowd_that_waits(
        "",
        |family, n| address(family, n, 1),
        |lab, family| {
            let mut held = Vec::new();
            eventually("all places are for others, while the crowd waits", SOON, || {
                for source in family.sources {
                    let free = (0..3).map_while(|_| {
                        let (stream, answer) =
                            lab.client.run(|| limiter_lab::answer(source, family.port(25), SOON));
                        stream.filter(|_| answer.is_service())
                    });
                    held.extend(free.collect::<Vec<_>>());
                }
                if held.len() >= 9 { Ok(()) } else { Err(format!("{} are served", held.len())) }
            });
        },
    );
}

/// Segments of a client that waits, and whether a kernel gives up its handshake because of them.
fn last_words(caller: &Caller) -> [(&'static str, bool, Segment); 10] {
    let words = [b'x'; 40];
    let of = |flags, offset: i32| {
        let mut segment = caller.segment(flags);
        segment.seq = segment.seq.wrapping_add_signed(offset);
        segment
    };
    // Older kernels keep the handshake.
    let mut wrong = of(RST | ACK, 0);
    wrong.ack = wrong.ack.wrapping_add(7);
    [
        ("a reset", true, of(RST, 0)),
        ("a reset later in the window", true, of(RST, 1_000)),
        ("a reset whose data reaches into the window", true, of(RST, -20).with_payload(&words)),
        ("a reset before the window", false, of(RST, -20)),
        ("a reset behind the window", false, of(RST, 100_000)),
        ("a reset with another ACK number", true, wrong),
        ("a SYN in the window", true, of(SYN, 1_000)),
        ("a SYN whose data reaches into the window", true, of(SYN, -20).with_payload(&words)),
        ("the first SYN again, with data", false, of(SYN, -1).with_payload(&words)),
        ("a SYN outside of the window", false, of(SYN, 100_000)),
    ]
}

/// A record without a handshake would keep a place for nobody.
#[test]
fn a_handshake_that_the_kernel_gives_up_waits_no_longer() {
    const LIMIT: u16 = 2;
    let Some(lab) = AttackLab::new() else { return };
    let _server = Sink::with_backlog(&lab, 25, BACKLOG);
    let limiter = Limiter::start_with(&lab, "[defaults]\nmax_connections = 2\nwait = \"30s\"\n");
    let mut sockets = Sockets::of(&lab.host);
    for family in [V4, V6] {
        let source = address(family, 1, 1);
        for nth in 0..10 {
            let mut crowd = Crowd::new(&lab, source, PORT..=PORT + LIMIT, family.port(25));
            crowd.call();
            crowd.complete();
            becomes(&limiter, (LIMIT.into(), 1));
            let in_state = |sockets: &mut Sockets, state| sockets.connections(25, &[state]);
            assert_eq!(in_state(&mut sockets, ESTABLISHED).len(), usize::from(LIMIT));
            let waiting = in_state(&mut sockets, SYN_RECV);
            let [waiting] = waiting.as_slice() else { panic!("{} wait", waiting.len()) };
            let (what, ends, segment) = last_words(&crowd.callers[&waiting.remote.port()])[nth].clone();
            let arrived = || proc_net::counter(&lab.host, "InSegs").unwrap();
            let before = arrived();
            crowd.wire.send(&segment);
            eventually(
                "it has arrived",
                SOON,
                || if arrived() > before { Ok(()) } else { Err(String::new()) },
            );
            eventually(what, SOON, || {
                let kept = in_state(&mut sockets, SYN_RECV).len();
                let waiting = counted(&limiter).1;
                // Newer kernels keep one that is reset by another number than the next (RFC 5961, 3.2).
                let as_expected = if ends { waiting == 0 } else { (waiting, kept) == (1, 1) };
                if as_expected { Ok(()) } else { Err(format!("{waiting} wait, the kernel has {kept}")) }
            });
            crowd.hang_up();
            becomes(&limiter, (0, 0));
        }
    }
    // Whom the daemon finds without a handshake, it tells.
    assert_eq!(limiter.counter("smtp", "told"), 0);
}
