// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel's table of sockets: finding one and ending it, and listing connections. `sock_diag(7)`.

mod connections;
mod filter;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NetlinkMessage, NetlinkPayload, NetlinkSerializable};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagDestroy, SockDiagMessage, TCP_LISTEN,
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags, nlas::Nla},
};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, SockProtocol, recv, send},
};

pub use self::connections::{Connection, Tcp, Waits, connections};
use crate::netlink;

/// Each half of `INET_DIAG_NOCOOKIE`, `include/uapi/linux/inet_diag.h`: whatever socket is found.
const NO_COOKIE: u32 = u32::MAX;

/// What tells a connection from every other one at a time. Both addresses are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FourTuple {
    /// The peer.
    pub remote: SocketAddr,
    /// The address it has called.
    pub local: SocketAddr,
    /// The interface or VRF that the socket is bound to; 0: none.
    pub ifindex: u32,
}

/// A socket that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its state (`include/net/tcp_states.h)`: 3, `TCP_SYN_RECV`, of a handshake that is not complete.
    pub state: u8,
    /// What tells it from every other socket since the host was started. A connection has the cookie of the
    /// request it came of (`inet_csk_clone_lock`, `net/ipv4/inet_connection_sock.c`).
    pub cookie: [u32; 2],
    /// The firewall mark of its packets: of a handshake with `net.ipv4.tcp_fwmark_accept` that of the SYN, otherwise that
    /// of the listener (`inet_request_mark`, `include/net/inet_sock.h`). 0 without `CAP_NET_ADMIN`, which nobody has here
    /// who gets that far.
    pub mark: u32,
}

/// A socket to ask with.
#[derive(Debug)]
pub struct Diag(OwnedFd);

impl Diag {
    /// Opens one, in the network namespace this thread is in.
    ///
    /// # Errors
    /// `NotFound` where the kernel has no TCP diagnosis (module `tcp_diag`), and what else it says.
    pub fn open() -> io::Result<Self> {
        let diag = Self(netlink::open(SockProtocol::NetlinkSockDiag)?);
        // Every socket in one of no states: of what is missing, a look-up for one socket would only say that it
        // has found nothing.
        let nothing = InetRequest {
            family: AF_INET,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::empty(),
            socket_id: SocketId::new_v4(),
        };
        diag.ask(NLM_F_DUMP, SockDiagMessage::InetRequest(nothing))?;
        Ok(diag)
    }

    /// The socket with exactly these four numbers: a connection, or a handshake that is not complete.
    ///
    /// # Errors
    /// What the kernel says, but for that there is none.
    pub fn find(&self, tuple: &FourTuple) -> io::Result<Option<Found>> {
        // Without another socket the listener is found (`inet_lookup`, include/net/inet_hashtables.h).
        Ok(self.find_any(tuple)?.filter(|found| found.state != TCP_LISTEN))
    }

    /// Whether, without another socket with these four numbers, somebody listens where the client wanted to.
    ///
    /// # Errors
    /// As of [`Self::find`].
    pub fn listens(&self, tuple: &FourTuple) -> io::Result<bool> {
        Ok(self.find_any(tuple)?.is_some_and(|found| found.state == TCP_LISTEN))
    }

    fn find_any(&self, tuple: &FourTuple) -> io::Result<Option<Found>> {
        let request = request(tuple, [NO_COOKIE; 2]);
        match self.ask(0, request) {
            Ok(Some(SockDiagMessage::InetResponse(found))) => {
                let InetResponseHeader { state, socket_id, .. } = found.header;
                let mark = found.nlas.iter().find_map(|one| match one {
                    Nla::Mark(mark) => Some(*mark),
                    _ => None,
                });
                let mark = mark.unwrap_or_default();
                Ok(Some(Found { state, cookie: bytemuck::cast(socket_id.cookie), mark }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends the socket that [`Self::find`] has found: a handshake without a word to the client, a connection
    /// with a reset. `false` when it is gone.
    ///
    /// # Errors
    /// `InvalidInput` for the cookie that stands for any socket: it could be the listener. `Unsupported`
    /// where the kernel is built without `CONFIG_INET_DIAG_DESTROY`, and what else it says.
    pub fn destroy(&self, tuple: &FourTuple, cookie: [u32; 2]) -> io::Result<bool> {
        if cookie == [NO_COOKIE; 2] {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match self.ask(NLM_F_ACK, SockDiagDestroy::new(request(tuple, cookie))) {
            Ok(_) => Ok(true),
            // ESTALE: another socket has been found, by its cookie.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The same of a connection that has this cookie.
    ///
    /// # Errors
    /// As of [`Self::destroy`].
    pub fn close(&self, tuple: &FourTuple, cookie: u64) -> io::Result<bool> {
        self.destroy(tuple, [cookie as u32, (cookie >> 32) as u32])
    }

    /// Asks, and reads the one message of the answer; `None` for one that only says that all went well.
    fn ask(&self, flags: u16, request: impl NetlinkSerializable) -> io::Result<Option<SockDiagMessage>> {
        send(self.0.as_raw_fd(), &netlink::request(flags, request), MsgFlags::empty())?;
        let mut buffer = [0_u8; 4096];
        let len = loop {
            // The answer is there by now; left there, it would be taken for that to the next question.
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                received => break received?,
            }
        };
        let answer = NetlinkMessage::deserialize(&buffer[..len]).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(answer) => Ok(Some(answer)),
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.into()),
            NetlinkPayload::Done(done) if done.code != 0 => Err(io::Error::from_raw_os_error(-done.code)),
            _ => Ok(None),
        }
    }
}

/// The question for the socket of this `tuple`.
fn request(tuple: &FourTuple, cookie: [u32; 2]) -> SockDiagMessage {
    let (family, source_address, destination_address) = match (tuple.local.ip(), tuple.remote.ip()) {
        (local @ IpAddr::V4(_), remote @ IpAddr::V4(_)) => (AF_INET, local, remote),
        (local, remote) => (AF_INET6, v6(local), v6(remote)),
    };
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::from_bits_retain(u32::MAX),
        socket_id: SocketId {
            source_port: tuple.local.port(),
            destination_port: tuple.remote.port(),
            source_address,
            destination_address,
            interface_id: tuple.ifindex,
            cookie: bytemuck::cast(cookie),
        },
    })
}

fn v6(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        v6 @ IpAddr::V6(_) => v6,
    }
}
