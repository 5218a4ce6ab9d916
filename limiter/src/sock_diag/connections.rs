// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Listing connections, with what the kernel knows of each (`struct tcp_info`, `include/uapi/linux/tcp.h`).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, Timer, nlas::Nla},
};
use nix::{errno::Errno, sys::socket::SockProtocol};

use super::{FourTuple, filter::Filtered};
use crate::netlink::{self, Message};

/// A connection in the kernel's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Its cookie, by which it has a record.
    pub cookie: u64,
    /// Its addresses, as plain IPv4 where the peer is.
    pub tuple: FourTuple,
    /// Its state (`include/net/tcp_states.h`).
    pub state: u8,
    /// The inode of its descriptor; 0: nobody has accepted it, or it was closed.
    pub inode: u32,
    /// Bytes that came and have not been read.
    pub unread: u32,
    /// Bytes that were written and are not acknowledged.
    pub unacknowledged: u32,
    /// What is waited for, where something is.
    pub timer: Option<Waits>,
    /// What TCP knows of it; none where the kernel does not tell.
    pub tcp: Option<Tcp>,
}

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// An acknowledgement, after so many repetitions.
    Acknowledgement(u8),
    /// The time for the next keepalive probe.
    Keepalive,
}

/// What TCP knows of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tcp {
    /// Since data was sent last, or the connection began.
    pub sent_ago: Duration,
    /// Since data came last, or the connection began.
    pub received_ago: Duration,
    /// Since anything came that acknowledges something.
    pub heard_ago: Duration,
    /// Bytes that the peer has acknowledged.
    pub sent: u64,
    /// Bytes that came.
    pub received: u64,
    /// Probes (keepalive, zero window) without an answer.
    pub probes: u8,
    /// Segments that were sent again, in all.
    pub retransmits: u32,
    /// The round trip, smoothed.
    pub rtt: Duration,
}

/// Shows each connection of the network namespace this thread is in, of peers in `remote` if that is given, to `see`.
///
/// # Errors
/// What the kernel says, which may lack the module `tcp_diag`.
pub fn connections(remote: Option<IpNet>, mut see: impl FnMut(Connection)) -> Result<()> {
    let states = StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING;
    for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::INFO,
            states: states.clone(),
            socket_id: any,
        };
        let asked = Filtered { request, remote };
        let shown = netlink::each_of_dump(SockProtocol::NetlinkSockDiag, asked, |message| {
            if let Some(connection) = connection(&message) {
                see(connection);
            }
        });
        match shown {
            // A kernel without IPv6 has no such sockets.
            Err(error) if family == AF_INET6 && error.downcast_ref() == Some(&Errno::ENOENT) => {}
            shown => shown.context("cannot list the connections")?,
        }
    }
    Ok(())
}

fn connection(message: &Message) -> Option<Connection> {
    let InetResponse { header, nlas } = message.whole()?;
    let SocketId { source_port, destination_port, source_address, destination_address, interface_id, cookie } =
        header.socket_id;
    let at = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
    let tcp = nlas.iter().find_map(|attribute| match attribute {
        Nla::TcpInfo(info) => Some(Tcp {
            sent_ago: Duration::from_millis(info.last_data_sent.into()),
            received_ago: Duration::from_millis(info.last_data_recv.into()),
            heard_ago: Duration::from_millis(info.last_ack_recv.into()),
            sent: info.bytes_acked,
            received: info.bytes_received,
            probes: info.probes,
            retransmits: info.total_retrans,
            rtt: Duration::from_micros(info.rtt.into()),
        }),
        _ => None,
    });
    // Its lower half first (`sock_diag_save_cookie`, net/core/sock_diag.c).
    let [low, high]: [u32; 2] = bytemuck::cast(cookie);
    Some(Connection {
        cookie: u64::from(high) << 32 | u64::from(low),
        tuple: FourTuple {
            remote: at(destination_address, destination_port),
            local: at(source_address, source_port),
            ifindex: interface_id,
        },
        state: header.state,
        inode: header.inode,
        unread: header.recv_queue,
        unacknowledged: header.send_queue,
        timer: header.timer.and_then(|timer| match timer {
            Timer::Retransmit(_, times) => Some(Waits::Acknowledgement(times)),
            Timer::KeepAlive(_) => Some(Waits::Keepalive),
            Timer::TimeWait | Timer::Probe(_) => None,
        }),
        tcp,
    })
}
