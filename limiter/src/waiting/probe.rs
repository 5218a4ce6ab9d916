// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Single segments to a client whose handshake is held back, in the name of the host.

use std::{
    io::{self, IoSlice},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd as _,
};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader, TcpOptionElement};
use nix::{
    libc,
    sys::socket::{ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, sendmsg},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::held::Held;

/// Hops a packet may take, as the kernel's own by default (`IPDEFTTL`, include/uapi/linux/ip.h).
const HOPS: u8 = 64;

/// Raw sockets to send from.
#[derive(Debug)]
pub struct Prober {
    v4: Socket,
    /// None where the kernel has no IPv6.
    v6: Option<Socket>,
}

impl Prober {
    /// Opens them, in the network namespace this thread is in.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_RAW` and `CAP_NET_ADMIN`, and what else the kernel says, but for
    /// that it has no IPv6.
    pub fn open() -> io::Result<Self> {
        // IPPROTO_RAW: headers come from us, and nothing is received (raw(7)); a raw socket for TCP would get a
        // copy of every segment of the host.
        let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
        let v6 = match raw(Domain::IPV6) {
            Ok(socket) => {
                // As with IPv4, where who makes the header may send from any address.
                socket.set_ip_transparent_v6(true)?;
                Some(socket)
            }
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4: raw(Domain::IPV4)?, v6 })
    }

    /// Asks the client for the ACK that completes its handshake: one byte of what it has got already, as a
    /// keepalive probe is (RFC 9293, 3.8.4). It has to be answered with an ACK, and one with data is answered
    /// without a limit on the rate (`tcp_oow_rate_limited`, `net/ipv4/tcp_input.c`).
    ///
    /// Its timestamp is that of the SYN-ACK once more. A newer one would come back in the client's ACK, and
    /// Linux 6.14 and later take no ACK that completes a handshake with one that no SYN-ACK had
    /// (`tsecr_reject` in `tcp_check_req`, `net/ipv4/tcp_minisocks.c`).
    ///
    /// # Errors
    /// What the kernel says; `Unsupported` for an IPv6 client where it has no IPv6.
    pub fn probe(&self, held: &Held) -> io::Result<()> {
        let mut segment = Segment::new(held, held.snt_isn);
        if held.tstamp_ok {
            segment.options = [
                TcpOptionElement::Noop,
                TcpOptionElement::Noop,
                TcpOptionElement::Timestamp(held.snt_tsval, held.ts_recent),
            ]
            .into();
        }
        segment.payload = &[0];
        self.send(held, &segment)
    }

    /// Ends the connection that the client believes to have, with a reset at exactly the number it expects
    /// (RFC 5961, 3.2). The request stays; whoever removes it first gets no ACK of it.
    ///
    /// # Errors
    /// As of [`Self::probe`].
    pub fn reset(&self, held: &Held) -> io::Result<()> {
        self.send(held, &Segment { reset: true, ..Segment::new(held, held.snt_isn.wrapping_add(1)) })
    }

    fn send(&self, held: &Held, segment: &Segment) -> io::Result<()> {
        let packet = segment.packet(held)?;
        let slices = [IoSlice::new(&packet)];
        // Who sends waits for nobody: where there is no room for a segment it is lost, as it may be on the way.
        // The headers say where from and where to; this is for the kernel's choice of the way, which may depend
        // on the source address and on the mark as well (ip-rule(8)). It cannot depend on the ports, which a raw socket has
        // none of, nor on the protocol.
        match (held.local, held.remote) {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
                let info = from_v4(local, held.ifindex());
                let to = SockaddrIn::from(SocketAddrV4::new(*remote.ip(), 0));
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                self.v4.set_mark(held.mark)?;
                sendmsg(self.v4.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
            }
            (SocketAddr::V6(local), SocketAddr::V6(remote)) => {
                let socket = self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                socket.set_mark(held.mark)?;
                let info = from_v6(local, held.ifindex());
                // With a port it would be a protocol (`rawv6_sendmsg`, net/ipv6/raw.c).
                let to = SockaddrIn6::from(SocketAddrV6::new(*remote.ip(), 0, 0, remote.scope_id()));
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
            }
            _ => return Err(two_families()),
        }
        Ok(())
    }
}

fn two_families() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the addresses have different families")
}

fn from_v4(local: SocketAddrV4, ifindex: u32) -> libc::in_pktinfo {
    let source = libc::in_addr { s_addr: u32::from_ne_bytes(local.ip().octets()) };
    libc::in_pktinfo { ipi_ifindex: ifindex as i32, ipi_spec_dst: source, ipi_addr: source }
}

fn from_v6(local: SocketAddrV6, ifindex: u32) -> libc::in6_pktinfo {
    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.ip().octets() }, ipi6_ifindex: ifindex }
}

/// A segment of the host, but for what all have in common.
struct Segment {
    seq: u32,
    window: u16,
    reset: bool,
    options: Vec<TcpOptionElement>,
    payload: &'static [u8],
}

impl Segment {
    fn new(held: &Held, seq: u32) -> Self {
        let window = u16::try_from(held.rcv_wnd >> held.scales().1).unwrap_or(u16::MAX);
        Self { seq, window, reset: false, options: Vec::new(), payload: &[] }
    }

    /// With its headers and checksums.
    fn packet(&self, held: &Held) -> io::Result<Vec<u8>> {
        let ip = match (held.local, held.remote) {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
                PacketBuilder::ipv4(local.ip().octets(), remote.ip().octets(), HOPS)
            }
            (SocketAddr::V6(local), SocketAddr::V6(remote)) => {
                PacketBuilder::ipv6(local.ip().octets(), remote.ip().octets(), HOPS)
            }
            _ => return Err(two_families()),
        };
        let tcp: PacketBuilderStep<TcpHeader> = ip
            .tcp(held.local.port(), held.remote.port(), self.seq, self.window)
            .ack(held.rcv_isn.wrapping_add(1))
            .options(&self.options)
            .map_err(io::Error::other)?;
        let tcp = if self.reset { tcp.rst() } else { tcp };
        let mut packet = Vec::with_capacity(tcp.size(self.payload.len()));
        tcp.write(&mut packet, self.payload).map_err(io::Error::other)?;
        Ok(packet)
    }
}
