// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Connections that a local process makes *from* a mail port. They came to no service, and nobody is limited by them.

use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::json;
use socket2::SockRef;

use limiter_lab::client::{begin, bound};
use limiter_lab::{Family, Lab, Limiter, SOON, Sink, V4, V6, sockets};

/// Whom the mail host connects to, at the client host.
fn listener(lab: &Lab, family: Family) -> TcpListener {
    lab.client.run(|| TcpListener::bind(SocketAddr::new(family.source(), 0))).unwrap()
}

/// From a port that the process has chosen.
fn chosen(lab: &Lab, family: Family, port: u16) -> (TcpStream, TcpStream) {
    let listener = listener(lab, family);
    let to = listener.local_addr().unwrap();
    let socket = lab.host.run(|| {
        let socket = bound(family.port(port)).unwrap();
        begin(&socket, to).unwrap();
        socket
    });
    let (there, from) = listener.accept().unwrap();
    assert_eq!(from, family.port(port));
    (socket.into(), there)
}

/// From a port that the kernel has chosen, which has no other left.
fn by_chance(lab: &Lab, family: Family, port: u16) -> (TcpStream, TcpStream) {
    lab.host.sysctl("ipv4/ip_local_port_range", &format!("{port} {port}")).unwrap();
    let listener = listener(lab, family);
    let to = listener.local_addr().unwrap();
    let stream = lab.host.run(|| TcpStream::connect_timeout(&to, SOON)).unwrap();
    let (there, from) = listener.accept().unwrap();
    assert_eq!(from, family.port(port));
    (stream, there)
}

#[test]
fn what_a_local_process_connects_from_a_mail_port_is_neither_counted_nor_changed() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let incoming: Vec<TcpStream> = [V4, V6].map(|family| lab.served(family.source(), family.port(25))).into();
    let mut outgoing = Vec::new();
    for family in [V4, V6] {
        outgoing.extend([chosen(&lab, family, 993), by_chance(&lab, family, 4190)]);
    }
    let config = "reconcile_seconds = 86400\n[defaults]\nmax_connections = 3\nkeepalive = \"30s\"\n";
    let limiter = Limiter::start_with(&lab, config);
    // And while it is there.
    outgoing.extend([V4, V6].map(|family| chosen(&lab, family, 995)));
    for _ in 0..2 {
        let verified = limiter.json(&["status", "--verify"])["verified"].clone();
        assert_eq!(verified["differences"], json!([]), "{verified:#}");
        assert_eq!(verified["connections"], 2, "{verified:#}");
    }
    let adopted = ["smtp", "imap", "sieve", "pop3"].map(|service| limiter.counter(service, "adopted"));
    assert_eq!(adopted, [2, 0, 0, 0], "{:#}", limiter.json(&["list"]));
    for family in [V4, V6] {
        let counted =
            ["smtp", "imap", "sieve", "pop3"].map(|name| limiter.source(name, family.source()).connections);
        assert_eq!(counted, [1, 0, 0, 0], "{}", family.source());
    }
    for (ours, _) in &outgoing {
        let socket = SockRef::from(ours);
        let options = (socket.keepalive().unwrap(), socket.tcp_user_timeout().unwrap());
        assert_eq!(options, (false, None), "of {:?}", ours.local_addr());
    }
    drop((incoming, outgoing));
    sockets::settled(&lab.host, &limiter, 25);
}
