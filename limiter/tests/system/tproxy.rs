// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Firewall rules that hand what is for one port to a listener at another. With transparent proxying the port that
//! counts is the one that the client has asked for; after a translation nobody knows it.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{SockRef, Socket};

use limiter_lab::command::feed;
use limiter_lab::sink::listener;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, same, sockets};

/// Long enough for a SYN that is repeated once.
const A_WHILE: Duration = Duration::from_millis(1500);
/// The port that is asked for, and the one where the proxy listens.
const ASKED: u16 = 143;
const LISTENS: u16 = 1143;

/// A mail proxy behind rules that hand it what is for port 143.
struct Proxy {
    listener: TcpListener,
}

impl Proxy {
    fn start(lab: &Lab) -> Self {
        let rules = format!(
            "table inet proxy {{\nchain in {{\ntype filter hook prerouting priority mangle\n\
             tcp dport {ASKED} meta nfproto ipv4 tproxy ip to :{LISTENS} accept\n\
             tcp dport {ASKED} meta nfproto ipv6 tproxy ip6 to :{LISTENS} accept\n}}\n}}\n"
        );
        firewall(lab, &rules);

        let listener = listener(lab, SocketAddr::from(([0_u16; 8], LISTENS)), 512);
        let socket = Socket::from(listener);
        socket.set_ip_transparent_v6(true).expect("root may");
        let listener = TcpListener::from(socket);
        let accepts = listener.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepts.accept() {
                std::thread::spawn(move || {
                    let _ = stream.write_all(b"* OK ready\r\n");
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                });
            }
        });
        Self { listener }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
    }
}

/// Puts these rules in force on the mail host.
pub fn firewall(lab: &Lab, rules: &str) {
    let mut command = lab.host.command("nft");
    command.args(["-f", "-"]);
    feed(command, rules).unwrap();
}

fn answer(lab: &Lab, source: IpAddr, to: SocketAddr) -> Answer {
    lab.client.run(|| client::answer(source, to, A_WHILE).1)
}

fn served(lab: &Lab, source: IpAddr, to: SocketAddr, n: usize) -> Vec<TcpStream> {
    (0..n).map(|_| lab.served(source, to)).collect()
}

#[test]
fn behind_a_tproxy_rule_the_limit_is_that_of_the_port_that_was_asked_for() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _proxy = Proxy::start(&lab);
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nmax_connections = 3\nwait = \"0s\"\n[ladder]\nreplies = \"none\"\n",
    );
    for family in [V4, V6] {
        let (source, imap) = (family.source(), family.port(ASKED));
        let held = served(&lab, source, imap, 3);
        for _ in 0..3 {
            let Answer::Line(line) = answer(&lab, source, imap) else { panic!("it is not told why") };
            assert!(line.starts_with("* BYE [UNAVAILABLE] Too many connections (3 of 3)"), "{line}");
        }
        sockets::agree(&lab.host, &limiter, ("imap", ASKED), source, 3);
        assert_eq!(limiter.source("imap", source).refused, 3);
        assert!(limiter.ok(&["status", "--verify"]).contains("all counts match"));
        drop(held);
        sockets::settled(&lab.host, &limiter, ASKED);
    }
}

#[test]
fn behind_a_tproxy_rule_who_is_denied_or_banned_gets_nothing() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _proxy = Proxy::start(&lab);
    let limiter = Limiter::start(&lab, 3, "reply");
    for family in [V4, V6] {
        let (source, imap) = (family.source(), family.port(ASKED));
        let name = source.to_string();
        for (refuse, end, reason) in [("deny", "forget", "denied"), ("ban", "unban", "banned")] {
            let refused = || limiter.counter("imap", &format!("refused_{reason}"));
            let before = refused();
            limiter.ok(&[refuse, &name]);
            assert_eq!(answer(&lab, source, imap), Answer::Silence, "{refuse}");
            assert!(refused() > before, "{refuse}");
            limiter.ok(&[end, &name]);
            drop(lab.served(source, imap));
        }
    }
    sockets::settled(&lab.host, &limiter, ASKED);
}

#[test]
fn behind_a_tproxy_rule_who_waits_gets_in_when_a_place_is_free_or_is_told_in_the_end() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _proxy = Proxy::start(&lab);
    let limiter = Limiter::start_with(&lab, "[defaults]\nmax_connections = 3\nwait = \"3s\"\n");
    for family in [V4, V6] {
        let (source, imap) = (family.source(), family.port(ASKED));
        let mut held = served(&lab, source, imap, 3);
        let before = limiter.counter("imap", "let_in");
        let waiting: Vec<_> =
            (0..2).map(|_| lab.dial(source, imap).expect("it believes it is connected")).collect();
        eventually("two are half open", SOON, || {
            same("half open", &sockets::half_open(&lab.host, ASKED).len(), &2)
        });
        drop(held.pop());
        let mut lines: Vec<Answer> = waiting.iter().map(|client| client::first_line(client, SOON)).collect();
        lines.sort_by_key(|line| !line.is_service());
        assert!(lines[0].is_service(), "{lines:?}");
        assert!(matches!(&lines[1], Answer::Line(line) if line.starts_with("* BYE ")), "{lines:?}");
        assert_eq!(limiter.counter("imap", "let_in") - before, 1);
        drop((held, waiting));
        sockets::settled(&lab.host, &limiter, ASKED);
    }
}

/// Nobody listens at the port that was asked for, whatever has become of the handshake: that says nothing about the
/// proxy.
#[test]
fn behind_a_tproxy_rule_who_waits_longer_than_the_kernel_keeps_the_handshake_is_told_and_counted() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _proxy = Proxy::start(&lab);
    lab.host.sysctl("ipv4/tcp_synack_retries", "0").unwrap();
    let limiter = Limiter::start_with(&lab, "[defaults]\nmax_connections = 3\nwait = \"60s\"\n");
    for family in [V4, V6] {
        let (source, imap) = (family.source(), family.port(ASKED));
        let held = served(&lab, source, imap, 3);
        let said = lab.answer(source, imap);
        assert!(matches!(&said, Answer::Line(line) if line.starts_with("* BYE ")), "{said:?}");
        assert_eq!(limiter.source("imap", source).refused, 1);
        drop(held);
        sockets::settled(&lab.host, &limiter, ASKED);
    }
}

#[test]
fn a_port_that_is_translated_to_one_of_no_service_is_warned_of_until_it_is_the_services() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    firewall(
        &lab,
        "table inet translate {\nchain in {\ntype nat hook prerouting priority dstnat\ntcp dport 143 redirect to :1143\n}\n}\n",
    );
    let _sink = Sink::start(&lab, LISTENS);
    let limiter = Limiter::start(&lab, 3, "reply");
    let warned = || limiter.ok(&["status"]).contains("imap: a firewall translates port 143 to 1143");
    assert!(!warned(), "of what nobody has used");
    for family in [V4, V6] {
        let _held = lab.served(family.source(), family.port(ASKED));
        assert!(warned());
        assert_eq!(limiter.source("imap", family.source()).connections, 0);
    }
    let config = std::fs::read_to_string(limiter.config_path()).unwrap();
    limiter.configure_all(&format!("{config}\n[service.imap]\nports = [143, 993, {LISTENS}]\n"));
    limiter.ok(&["reload", "--config", &limiter.config_path().display().to_string()]);
    assert!(!warned());
    for family in [V4, V6] {
        let held = served(&lab, family.source(), family.port(ASKED), 3);
        // At once, or after it has waited: that somebody listens at the new port is known within two seconds.
        let said = lab.answer(family.source(), family.port(ASKED));
        assert!(matches!(&said, Answer::Line(line) if line.starts_with("* BYE ")), "{said:?}");
        drop(held);
    }
    sockets::settled(&lab.host, &limiter, LISTENS);
}
