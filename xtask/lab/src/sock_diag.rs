// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel's own socket table, through `sock_diag`: the same as `ss` shows, in one
//! system call instead of a process.
#![expect(clippy::expect_used, clippy::panic, reason = "the test fails, and says where")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Namespace;

/// States of a TCP socket (`include/net/tcp_states.h`).
pub const ESTABLISHED: u8 = 1;
/// Also what the kernel shows for a request: a handshake without a socket of its own.
pub const SYN_RECV: u8 = 3;
/// Over, its port kept for a minute.
pub const TIME_WAIT: u8 = 6;
/// Closed by the peer, not yet by the process.
pub const CLOSE_WAIT: u8 = 8;

/// What counts by the design: established, or closed by the peer while the mail daemon still pays.
pub const COUNTED: [u8; 2] = [ESTABLISHED, CLOSE_WAIT];

/// A connection of the mail host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The client's end.
    pub remote: SocketAddr,
    /// One of the states above.
    pub state: u8,
    /// Unlike that of any other socket.
    pub cookie: [u8; 8],
}

/// Reads the table of the mail host.
pub struct Sockets {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Sockets {
    /// That of `host`.
    pub fn of(host: &Namespace) -> Self {
        let netlink = Domain::from(libc::AF_NETLINK);
        let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
        let socket = host.run(|| Socket::new(netlink, Type::RAW, Some(protocol)));
        Self { socket: socket.expect("the kernel has sock_diag"), buffer: vec![0; 1 << 16] }
    }

    /// The connections to `port`, of a dual-stack listener, in any of `states`.
    pub fn connections(&mut self, port: u16, states: &[u8]) -> Vec<Connection> {
        let mut found = Vec::new();
        // Its sockets are all IPv6's, whatever the peer; its requests are of the family of the peer. Each
        // family takes a walk through the whole table.
        let families: &[i32] =
            if states.contains(&SYN_RECV) { &[libc::AF_INET, libc::AF_INET6] } else { &[libc::AF_INET6] };
        for family in families {
            self.socket.write_all(&request(*family as u8, port, states)).expect("netlink takes a request");
            while !self.read(&mut found) {}
        }
        found
    }

    /// Reads one datagram of the dump; `true` if it was the last.
    fn read(&mut self, found: &mut Vec<Connection>) -> bool {
        const ERROR: u16 = 2;
        const DONE: u16 = 3;
        let len = self.socket.read(&mut self.buffer).expect("netlink answers");
        let mut rest = &self.buffer[..len];
        // A message: length in 4 bytes, type in 2, and more to 16 (struct nlmsghdr).
        while rest.len() >= 16 {
            let len = u32::from_ne_bytes(rest[..4].try_into().expect("4 bytes")) as usize;
            match u16::from_ne_bytes(rest[4..6].try_into().expect("2 bytes")) {
                DONE => return true,
                ERROR => panic!("sock_diag refuses: {:?}", &rest[..len]),
                _ => found.push(parse(&rest[16..len])),
            }
            rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        }
        false
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (`include/uapi/linux/inet_diag.h`).
fn request(family: u8, port: u16, states: &[u8]) -> Vec<u8> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_AND_DUMP: u16 = 0x301;
    let states: u32 = states.iter().map(|state| 1 << state).sum();
    let mut request = Vec::with_capacity(72);
    request.extend(72_u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_AND_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, libc::IPPROTO_TCP as u8, 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(port.to_be_bytes());
    request.resize(72, 0);
    request
}

/// `struct inet_diag_msg`.
fn parse(message: &[u8]) -> Connection {
    let (family, state, remote_port) = (message[0], message[1], [message[6], message[7]]);
    let address: [u8; 16] = message[24..40].try_into().expect("16 bytes");
    let ip = if i32::from(family) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3]))
    } else {
        // A dual-stack listener has its IPv4 peers as mapped addresses.
        IpAddr::V6(Ipv6Addr::from(address)).to_canonical()
    };
    Connection {
        remote: SocketAddr::new(ip, u16::from_be_bytes(remote_port)),
        state,
        cookie: message[44..52].try_into().expect("8 bytes"),
    }
}
