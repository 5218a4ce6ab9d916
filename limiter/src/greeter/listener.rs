// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The listener no one can address.
//!
//! It is bound to 192.0.0.8, the IPv4 dummy address (RFC 7600, 4.8), which is no host's own: only the
//! admission program brings handshakes to it. The socket is an IPv6 one and the address is written as
//! `::ffff:192.0.0.8`, because that is the one way to a listener that is bound and still takes both
//! families: binding to any other IPv6 address, such as one of the discard prefix `100::/64`, makes the
//! kernel set `IPV6_V6ONLY` whatever the option says (`__inet6_bind` in `net/ipv6/af_inet6.c`), and
//! `bpf_sk_assign` then refuses it for IPv4 (`EAFNOSUPPORT`). Where the kernel has no IPv6 at all, an
//! IPv4 socket does.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

/// The IPv4 dummy address.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Handshakes that may wait for `accept`.
const BACKLOG: i32 = 1024;
/// What the kernel may keep of what one client sends, in bytes; the kernel doubles it for its own
/// bookkeeping.
const RECEIVE_BUFFER: usize = 4096;

/// The greeter's listening socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Opens it.
    ///
    /// # Errors
    /// What the system says if there is neither IPv6 nor IPv4 to listen with.
    pub fn bind() -> io::Result<Self> {
        let mapped = SocketAddr::from((NOWHERE.to_ipv6_mapped(), 0));
        Self::at(mapped).or_else(|_| Self::at(SocketAddr::from((NOWHERE, 0))))
    }

    /// A listener at `address`, which need not be the host's.
    pub(super) fn at(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // One flag of the socket serves both families (`inet_sk(sk)->freebind`).
        socket.set_freebind_v4(true)?;
        // So that a TPROXY rule takes it, too, and it may answer as an address that is not the host's. Without
        // CAP_NET_ADMIN there are no such rules either.
        let _for_tproxy_alone = if address.is_ipv6() {
            socket.set_ip_transparent_v6(true)
        } else {
            socket.set_ip_transparent_v4(true)
        };
        // Accepted connections inherit it, and the mail port is theirs as well (`__inet_inherit_port`,
        // net/ipv4/inet_hashtables.c): without it no mail daemon could be started again for a minute after
        // someone was told why, as its port would be in use.
        socket.set_reuse_address(true)?;
        // Accepted connections inherit it, so that a client's flood fills no memory.
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        // Likewise: should the process end before it has spoken, its clients get a reset, not an end without a word.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self(socket.into()))
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[test]
    fn it_is_bound_to_nowhere_and_takes_both_families() {
        let listener = Listener::bind().unwrap();
        assert_eq!(listener.address().ip().to_canonical(), NOWHERE);
        // In a kernel without IPv6 there is nothing but IPv4 to take.
        if listener.address().is_ipv6() {
            assert!(!SockRef::from(&listener).only_v6().unwrap());
        }
    }

    #[test]
    fn ipv4_alone_will_do() {
        let listener = Listener::at(SocketAddr::from((NOWHERE, 0))).unwrap();
        assert_eq!(listener.address().ip(), NOWHERE);
    }
}
