// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A port where nobody listens is closed for a source at its limit as for everyone: a reset by the kernel, nothing
//! counted, nothing on the ladder.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use limiter_common::listening::MAX_ENDPOINTS;
use limiter_lab::lab::Family;
use limiter_lab::sink::listener;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, command, eventually, same, sockets};

/// Long enough for a SYN that is repeated once.
const A_WHILE: Duration = Duration::from_millis(1500);

/// Other addresses of the mail host.
const OTHER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2))];

fn answer(lab: &Lab, source: IpAddr, to: SocketAddr) -> Answer {
    lab.client.run(|| client::answer(source, to, A_WHILE).1)
}

/// Gives the mail host the other addresses.
fn with_two_addresses(lab: &Lab) {
    for address in OTHER {
        let address = address.to_string();
        lab.host_ip(&["addr", "add", &address, "dev", "wire"]);
        let neighbour =
            ["neigh", "replace", &address, "lladdr", "02:00:00:00:00:01", "dev", "wire", "nud", "permanent"];
        for arguments in [&neighbour[..], &["route", "add", &address, "dev", "wire"]] {
            let mut command = lab.client.command("ip");
            command.args(arguments);
            command::run(command).unwrap();
        }
    }
}

/// What is counted of refusals at a service, and who is on the ladder.
fn refused(limiter: &Limiter, service: &str) -> (u64, u64) {
    (limiter.counter(service, "refused_concurrency"), limiter.counter(service, "replied"))
}

/// Requires that `to` is closed for `source`, and that nothing is counted of it.
#[track_caller]
fn is_closed(lab: &Lab, limiter: &Limiter, service: &str, source: IpAddr, to: SocketAddr) {
    let before = (refused(limiter, service), limiter.source(service, source).refused);
    for _ in 0..3 {
        assert_eq!(answer(lab, source, to), Answer::Reset, "{to}");
    }
    assert_eq!((refused(limiter, service), limiter.source(service, source).refused), before, "{to}");
}

/// Requires that `source` is told at `to` that it is at its limit.
#[track_caller]
fn is_told(lab: &Lab, limiter: &Limiter, service: &str, source: IpAddr, to: SocketAddr) {
    let before = refused(limiter, service).0;
    let said = answer(lab, source, to);
    assert!(matches!(&said, Answer::Line(line) if line.contains("Too many connections")), "{to}: {said:?}");
    // At once, by admission: who is told after the handshake has waited for it.
    assert_eq!(refused(limiter, service).0, before + 1);
}

fn patient(lab: &Lab, response: &str) -> Limiter {
    let config = format!(
        "[defaults]\nmax_connections = 2\nresponse = \"{response}\"\nwait = \"60s\"\n[ladder]\nreplies = \"none\"\n"
    );
    Limiter::start_with(lab, &config)
}

fn held(lab: &Lab, source: IpAddr, to: SocketAddr) -> Vec<TcpStream> {
    (0..2).map(|_| lab.served(source, to)).collect()
}

#[test]
fn an_address_where_nobody_listens_is_closed_whatever_listens_at_another() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    with_two_addresses(&lab);
    let limiter = patient(&lab, "reply");
    for (family, other) in [V4, V6].into_iter().zip(OTHER) {
        let (source, smtp) = (family.source(), family.port(25));
        // Listens after the limiter has begun.
        let only = listener(&lab, smtp, 16);
        let held: Vec<_> = (0..2).map(|_| lab.dial(source, smtp).unwrap()).collect();
        is_told(&lab, &limiter, "smtp", source, smtp);
        is_closed(&lab, &limiter, "smtp", source, SocketAddr::new(other, 25));
        drop((held, only));
        sockets::settled(&lab.host, &limiter, 25);
    }
}

/// A TLS record with the fatal alert `access_denied` (RFC 8446, 6).
const ACCESS_DENIED: &str = "\u{15}\u{3}\u{3}\0\u{2}\u{2}1";

#[test]
fn a_port_where_nobody_listens_is_closed_whatever_is_held_at_another_of_the_service() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    for response in ["reply", "reset", "drop"] {
        let _sink = Sink::start(&lab, 993);
        let limiter = patient(&lab, response);
        for family in [V4, V6] {
            let (source, imaps) = (family.source(), family.port(993));
            let held = (0..2).map(|_| lab.served(source, imaps)).collect::<Vec<_>>();
            is_closed(&lab, &limiter, "imap", source, family.port(143));
            // Without a certificate, which is the default, an alert.
            let expected = match response {
                "reply" => Answer::Line(ACCESS_DENIED.to_owned()),
                "reset" => Answer::Reset,
                _ => Answer::Silence,
            };
            assert_eq!(answer(&lab, source, imaps), expected, "implicit TLS");
            assert!(refused(&limiter, "imap").0 > 0);
            drop(held);
            sockets::settled(&lab.host, &limiter, 993);
        }
        assert_eq!(limiter.counter("imap", "drift"), 0);
    }
}

#[test]
fn a_mail_daemon_that_is_stopped_is_closed_at_once_and_refuses_again_when_it_is_back() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let before = Sink::start(&lab, 25);
    let limiter = patient(&lab, "reply");
    let held: Vec<_> =
        [V4, V6].into_iter().map(|family| held(&lab, family.source(), family.port(25))).collect();
    let each = |check: fn(&Lab, &Limiter, &str, IpAddr, SocketAddr)| {
        for family in [V4, V6] {
            check(&lab, &limiter, "smtp", family.source(), family.port(25));
        }
    };
    each(is_told);
    // It listened before the limiter was there: before Linux 6.12 the daemon notices its end, within seconds.
    drop(before);
    for family in [V4, V6] {
        eventually("it is closed", SOON, || {
            same("answer", &answer(&lab, family.source(), family.port(25)), &Answer::Reset)
        });
    }
    each(is_closed);
    // Now it begins and ends before the limiter's eyes.
    for _ in 0..3 {
        let sink = Sink::start(&lab, 25);
        each(is_told);
        drop(sink);
        each(is_closed);
    }
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_family_that_no_listener_takes_is_closed() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 993);
    let limiter = patient(&lab, "reply");
    let held: Vec<_> =
        [V4, V6].into_iter().map(|family| held(&lab, family.source(), family.port(993))).collect();
    let at = |family: Family, check: fn(&Lab, &Limiter, &str, IpAddr, SocketAddr)| {
        check(&lab, &limiter, "imap", family.source(), family.port(143));
    };
    for (takes, leaves) in [(V4, V6), (V6, V4)] {
        let any: IpAddr =
            if takes.host.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let one = bound(&lab, SocketAddr::new(any, 143), true, |_| ());
        at(takes, is_told);
        at(leaves, is_closed);
        drop(one);
        at(takes, is_closed);
    }
    drop(held);
    sockets::settled(&lab.host, &limiter, 993);
}

#[test]
fn of_two_listeners_that_share_a_port_one_may_end() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 993);
    let limiter = patient(&lab, "reply");
    let any = SocketAddr::from(([0_u16; 8], 143));
    let share = |socket: &Socket| socket.set_reuse_port(true).unwrap();
    let one = bound(&lab, any, false, share);
    let two = bound(&lab, any, false, share);
    for (family, gone) in [(V4, one), (V6, two)] {
        let held = held(&lab, family.source(), family.port(993));
        is_told(&lab, &limiter, "imap", family.source(), family.port(143));
        drop(gone);
        if family.host.is_ipv4() {
            is_told(&lab, &limiter, "imap", family.source(), family.port(143));
        } else {
            is_closed(&lab, &limiter, "imap", family.source(), family.port(143));
        }
        drop(held);
        sockets::settled(&lab.host, &limiter, 993);
    }
}

#[test]
fn a_listener_on_another_interface_leaves_a_port_closed() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 993);
    let limiter = patient(&lab, "reply");
    let any = SocketAddr::from(([0_u16; 8], 143));
    for family in [V4, V6] {
        let held = held(&lab, family.source(), family.port(993));
        let bound = bound(&lab, any, false, |socket| socket.bind_device(Some(b"lo")).unwrap());
        is_closed(&lab, &limiter, "imap", family.source(), family.port(143));
        drop((bound, held));
        sockets::settled(&lab.host, &limiter, 993);
    }
}

/// Only who is bound to the interface has a way back to the clients: what answers for it has to take it, too.
#[test]
fn who_is_refused_at_a_listener_on_an_interface_is_told_by_way_of_it() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    for response in ["reply", "reset"] {
        let config = format!(
            "[defaults]\nmax_connections = 2\nresponse = \"{response}\"\nwait = \"1s\"\n[ladder]\nreplies = \"none\"\n"
        );
        let limiter = Limiter::start_with(&lab, &config);
        for family in [V4, V6] {
            let source = family.source().to_string();
            let version = if family.host.is_ipv4() { "-4" } else { "-6" };
            let ip = |arguments: &[&str]| lab.host_ip(&[&[version], arguments].concat());
            ip(&["route", "del", &source, "dev", "wire"]);
            ip(&["route", "add", &source, "dev", "wire", "table", "100"]);
            ip(&["route", "add", "blackhole", &source]);
            ip(&["rule", "add", "oif", "wire", "lookup", "100"]);
            let only = bound(&lab, SocketAddr::new(family.host, 143), true, |socket| {
                socket.bind_device(Some(b"wire")).unwrap();
            });
            let held: Vec<_> = (0..2).map(|_| lab.dial(family.source(), family.port(143)).unwrap()).collect();
            sockets::agree(&lab.host, &limiter, ("imap", 143), family.source(), 2);
            for _ in 0..2 {
                let said = lab.answer(family.source(), family.port(143));
                match response {
                    "reply" => {
                        assert!(
                            matches!(&said, Answer::Line(line) if line.starts_with("* BYE ")),
                            "{said:?}"
                        );
                    }
                    _ => assert_eq!(said, Answer::Reset),
                }
            }
            assert_eq!(limiter.source("imap", family.source()).refused, 2);
            drop((only, held));
            sockets::settled(&lab.host, &limiter, 143);
            ip(&["rule", "del", "oif", "wire", "lookup", "100"]);
            ip(&["route", "del", "blackhole", &source]);
            ip(&["route", "del", &source, "dev", "wire", "table", "100"]);
            ip(&["route", "add", &source, "dev", "wire"]);
        }
    }
}

/// A listener of the mail host with options of its own.
fn bound(lab: &Lab, at: SocketAddr, only_v6: bool, set: impl Fn(&Socket) + Send + Sync) -> TcpListener {
    lab.host.run(|| {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
        if at.is_ipv6() {
            socket.set_only_v6(only_v6).unwrap();
        }
        socket.set_reuse_address(true).unwrap();
        set(&socket);
        socket.bind(&at.into()).unwrap();
        socket.listen(16).unwrap();
        socket.into()
    })
}

/// What was known is what is there, also of ports that have come to a service since.
#[test]
fn a_port_that_comes_to_a_service_is_known_within_seconds() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let (_imap, _other) = (Sink::start(&lab, 143), Sink::start(&lab, 1143));
    let limiter = patient(&lab, "reply");
    let held: Vec<_> =
        [V4, V6].into_iter().map(|family| held(&lab, family.source(), family.port(143))).collect();
    let config = std::fs::read_to_string(limiter.config_path()).unwrap();
    limiter.configure_all(&format!("{config}\n[service.imap]\nports = [143, 1143]\n"));
    limiter.ok(&["reload", "--config", &limiter.config_path().display().to_string()]);
    for family in [V4, V6] {
        // Until then it waits for a place.
        eventually("it is told at once", SOON, || {
            let said = answer(&lab, family.source(), family.port(1143));
            if matches!(said, Answer::Line(_)) { Ok(()) } else { Err(format!("{said:?}")) }
        });
        is_told(&lab, &limiter, "imap", family.source(), family.port(1143));
    }
    drop(held);
    sockets::settled(&lab.host, &limiter, 143);
}

/// A user that binds every address of the loopback at a mail port, before the mail daemon starts.
#[test]
fn where_more_listen_than_can_be_known_the_log_says_so_and_the_limit_holds() {
    const LISTENERS: u32 = MAX_ENDPOINTS + 100;
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut command = std::process::Command::new("prlimit");
    command.args(["--pid", &std::process::id().to_string(), "--nofile=16384:"]);
    command::run(command).unwrap();
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nmax_connections = 2\nwait = \"3s\"\n[ladder]\nreplies = \"none\"\n",
    );
    let many: Vec<TcpListener> = lab.host.run(|| {
        let address = |n: u32| Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + n);
        (0..LISTENERS).map(|n| TcpListener::bind((address(n), 4190)).unwrap()).collect()
    });
    let _sink = Sink::start(&lab, 143);
    eventually("the log says so", SOON, || {
        let log = limiter.log();
        let says = log.contains(&format!("listen at more than {MAX_ENDPOINTS} addresses and ports"));
        if says { Ok(()) } else { Err(log) }
    });
    for family in [V4, V6] {
        let (source, to) = (family.source(), family.port(143));
        let held = held(&lab, source, to);
        let asked = Instant::now();
        let said = lab.answer(source, to);
        assert!(matches!(&said, Answer::Line(line) if line.contains("Too many connections")), "{said:?}");
        assert!(asked.elapsed() > A_WHILE, "who is not known to listen does not refuse at once");
        drop(held);
    }
    drop(many);
    eventually("it is known again", SOON, || {
        let said = {
            let _held = held(&lab, V4.source(), V4.port(143));
            answer(&lab, V4.source(), V4.port(143))
        };
        if matches!(said, Answer::Line(_)) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    assert_eq!(limiter.log().matches("listen at more than").count(), 1, "once");
}
