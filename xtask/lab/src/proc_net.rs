// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What `/proc/net` says of a network namespace: its TCP sockets, and what its TCP has counted.
//!
//! Not `/proc/net` itself: that is the namespace of the process's first thread.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};

use crate::Namespace;

/// `TCP_LISTEN` (`include/net/tcp_states.h`).
pub const LISTEN: u8 = 0x0a;

/// A TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its own end.
    pub local: SocketAddr,
    /// The other one.
    pub remote: SocketAddr,
    /// One of `include/net/tcp_states.h`.
    pub state: u8,
    /// That of its file; 0 while nobody has accepted it.
    pub inode: u64,
}

/// The TCP sockets of a host.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn tcp(host: &Namespace) -> Result<Vec<Socket>> {
    let tables = ["tcp", "tcp6"].map(|table| format!("/proc/thread-self/net/{table}"));
    let tables = host.run(|| tables.map(fs::read_to_string));
    let mut sockets = Vec::new();
    for table in tables {
        sockets.extend(table?.lines().skip(1).filter_map(parse));
    }
    Ok(sockets)
}

/// Whether something listens on a port, as the kernel tells; to connect would be counted.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn listens(host: &Namespace, port: u16) -> Result<bool> {
    Ok(tcp(host)?.iter().any(|socket| socket.state == LISTEN && socket.local.port() == port))
}

/// A line of `/proc/net/tcp` or `tcp6`: see `get_tcp4_sock` in `net/ipv4/tcp_ipv4.c`.
fn parse(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    Some(Socket {
        local: end(fields.get(1)?)?,
        remote: end(fields.get(2)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// An address in words of the host's byte order, and a port: `0100007F:0019`.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |i: usize| u32::from_str_radix(address.get(8 * i..8 * i + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = if address.len() == 8 {
        IpAddr::from(word(0)?)
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?];
        let octets: [u8; 16] = words.concat().try_into().ok()?;
        IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// A counter of a host's TCP, by its name in `/proc/net/snmp` or `/proc/net/netstat`.
///
/// # Errors
///
/// When the kernel has none of that name.
pub fn counter(host: &Namespace, name: &str) -> Result<u64> {
    let tables = ["snmp", "netstat"].map(|table| format!("/proc/thread-self/net/{table}"));
    for table in host.run(|| tables.map(fs::read_to_string)) {
        if let Some(count) = find(&table?, name) {
            return Ok(count);
        }
    }
    None.with_context(|| format!("the kernel has no TCP counter {name}"))
}

/// A counter in a table of pairs of lines: of names, of values.
fn find(table: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = table.lines().collect();
    lines.chunks_exact(2).find_map(|pair| {
        let names = pair[0].strip_prefix("Tcp")?.split_whitespace();
        names.zip(pair[1].split_whitespace()).find(|(found, _)| *found == name)?.1.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_table_is_read_as_the_kernel_writes_it() {
        let v4 = "   0: 010200C0:0019 076433C6:C350 01 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 20 4";
        let expected = Socket {
            local: "192.0.2.1:25".parse().unwrap(),
            remote: "198.51.100.7:50000".parse().unwrap(),
            state: 1,
            inode: 12345,
        };
        assert_eq!(parse(v4), Some(expected));
        assert_eq!(parse(&v4.replace(" 01 ", " 06 ")).unwrap().state, 6, "TIME_WAIT");
        let mapped = "   1: 0000000000000000FFFF0000010200C0:0019 0000000000000000FFFF0000076433C6:C350 08 0:0 00:0 0 0 0 7 1";
        assert_eq!(parse(mapped), Some(Socket { state: 8, inode: 7, ..expected }));
    }

    #[test]
    fn a_counter_is_found_by_its_name() {
        let table =
            "Tcp: CurrEstab ActiveOpens PassiveOpens\nTcp: 200 3 47990\nTcpExt: SyncookiesSent\nTcpExt: 5\n";
        assert_eq!((find(table, "PassiveOpens"), find(table, "SyncookiesSent")), (Some(47990), Some(5)));
        assert_eq!(find(table, "Drift"), None);
    }
}
