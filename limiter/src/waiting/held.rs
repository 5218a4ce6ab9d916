// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A handshake that is held back.

use std::net::SocketAddr;

use crate::sock_diag::FourTuple;

/// What the kernel's request (`struct tcp_request_sock`, include/linux/tcp.h) knows of a handshake, and the
/// ACK that was to complete it.
///
/// `remote` and `local` are of one family, plain IPv4 where the client is IPv4, also where the listener is a
/// dual-stack one. The scope of a link-local IPv6 address is set in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The client.
    pub remote: SocketAddr,
    /// The address it has called.
    pub local: SocketAddr,
    /// The number of our SYN-ACK; our first byte is one above.
    pub snt_isn: u32,
    /// The number of the client's SYN; its first byte is one above.
    pub rcv_isn: u32,
    /// What is added to the kernel's clock of timestamps for this client, in milliseconds.
    pub ts_off: u32,
    /// `TSval` of the SYN-ACK that the client has answered, which is the `TSecr` of its ACK. Only with
    /// `tstamp_ok`.
    pub snt_tsval: u32,
    /// `TSval` of the client's SYN. Only with `tstamp_ok`.
    pub ts_recent: u32,
    /// The longest segment the client takes, in bytes, without options.
    pub mss: u16,
    /// The window field of the client's ACK, not scaled.
    pub window: u16,
    /// The receive window we have offered, in bytes (`rsk_rcv_wnd`).
    pub rcv_wnd: u32,
    /// How many bits the client's windows are shifted by, 0 to 14. Only with `wscale_ok`.
    pub snd_wscale: u8,
    /// How many bits our windows are shifted by, 0 to 14. Only with `wscale_ok`.
    pub rcv_wscale: u8,
    /// Both have offered to scale windows (RFC 7323, 2).
    pub wscale_ok: bool,
    /// Both may acknowledge selectively (RFC 2018).
    pub sack_ok: bool,
    /// Both send timestamps (RFC 7323, 3).
    pub tstamp_ok: bool,
    /// The interface or VRF that the request is bound to (`ir_iif`), as its listener is; 0: none.
    pub bound_ifindex: u32,
    /// The firewall mark of its packets, by which the way to the client may go (`fwmark` of ip-rule(8)), as far as it is
    /// known: [`crate::sock_diag`] finds it as long as the request is there.
    pub mark: u32,
}

impl Held {
    /// By which the kernel finds it.
    pub fn tuple(&self) -> FourTuple {
        FourTuple { remote: self.remote, local: self.local, ifindex: self.ifindex() }
    }

    /// The interface or VRF that its packets have to take; 0: any.
    pub fn ifindex(&self) -> u32 {
        match self.remote {
            SocketAddr::V6(remote) if self.bound_ifindex == 0 => remote.scope_id(),
            _ => self.bound_ifindex,
        }
    }

    /// How far the client's and our windows are shifted, in bits.
    pub fn scales(&self) -> (u8, u8) {
        if self.wscale_ok { (self.snd_wscale, self.rcv_wscale) } else { (0, 0) }
    }
}
