//! Listeners that speak Multipath TCP (RFC 8684). What the limiter counts is a connection of TCP, a subflow: a
//! client may end the only one and keep its session, and begin another in its place later.

use anyhow::Result;
use nix::{libc, sys::socket::SockProtocol};

use crate::netlink::{self, Message};

/// `SOCK_DIAG_BY_FAMILY`, `include/uapi/linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `TCP_LISTEN`, `include/net/tcp_states.h`.
const LISTEN: u32 = 10;
/// `struct inet_diag_req_v2`, `include/uapi/linux/inet_diag.h`.
const REQUEST: usize = 56;
/// `struct inet_diag_msg`, which has the local port in network order at 4.
const MESSAGE: usize = 72;
const LOCAL_PORT: usize = 4;
/// `INET_DIAG_INFO`: the kernel tells of the upper layer to who asks for this (`inet_sk_diag_fill`,
/// `net/ipv4/inet_diag.c`).
const INFO: u8 = 2;
/// `INET_DIAG_ULP_INFO`, and in it `INET_ULP_INFO_NAME`.
const ULP_INFO: u16 = 19;
const ULP_NAME: u16 = 1;

/// The ports on which somebody listens for Multipath TCP, in the network namespace this thread is in.
///
/// # Errors
/// What the kernel says.
pub fn ports() -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0; REQUEST];
        request[0] = family as u8;
        request[1] = libc::IPPROTO_TCP as u8;
        request[2] = 1 << (INFO - 1);
        request[4..8].copy_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
        let listeners = netlink::dump_of(SockProtocol::NetlinkSockDiag, BY_FAMILY, &request)?;
        ports.extend(listeners.iter().filter_map(port));
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

/// The port of a listener, if it is one of Multipath TCP: those are sockets of TCP with an upper layer (ULP) of this
/// name (`net/mptcp/subflow.c`).
fn port(listener: &Message) -> Option<u16> {
    let (fixed, attributes) = listener.split(MESSAGE)?;
    let (_, info) = netlink::attributes(attributes).find(|(kind, _)| *kind == ULP_INFO)?;
    let (_, name) = netlink::attributes(info).find(|(kind, _)| *kind == ULP_NAME)?;
    let is_mptcp = name.split(|byte| *byte == 0).next() == Some(b"mptcp");
    is_mptcp.then(|| u16::from_be_bytes([fixed[LOCAL_PORT], fixed[LOCAL_PORT + 1]]))
}
