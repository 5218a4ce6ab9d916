//! Finding one socket in the kernel's table, and ending it: `sock_diag(7)`.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use bytemuck::{Pod, Zeroable};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, SockProtocol, recv, send},
};

use super::held::Held;
use crate::netlink::{self, number};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY`, `include/uapi/linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// Each half of `INET_DIAG_NOCOOKIE`, `include/uapi/linux/inet_diag.h`: whatever socket is found.
const NO_COOKIE: u32 = u32::MAX;
/// `TCP_LISTEN`, `include/net/tcp_states.h`.
const LISTEN: u8 = 10;

/// `struct inet_diag_req_v2` with its `struct inet_diag_sockid`, `include/uapi/linux/inet_diag.h`. Ports and
/// addresses are in network order.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    local_port: [u8; 2],
    remote_port: [u8; 2],
    local: [u8; 16],
    remote: [u8; 16],
    ifindex: u32,
    cookie: [u32; 2],
}

const _: () = assert!(size_of::<Request>() == 56);

/// Where `struct inet_diag_msg` has the socket's cookie.
const COOKIE: usize = 44;

/// A socket that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its state (`include/net/tcp_states.h)`: 3, `TCP_SYN_RECV`, of a handshake that is not complete.
    pub state: u8,
    /// What tells it from every other socket since the host was started. A connection has the cookie of the
    /// request it came of (`inet_csk_clone_lock`, `net/ipv4/inet_connection_sock.c`).
    pub cookie: [u32; 2],
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
        let nothing =
            Request { family: libc::AF_INET as u8, protocol: libc::IPPROTO_TCP as u8, ..Zeroable::zeroed() };
        diag.ask(BY_FAMILY, libc::NLM_F_DUMP, &nothing, |_| ())?;
        Ok(diag)
    }

    /// The socket with exactly these four numbers: a connection, or a handshake that is not complete.
    ///
    /// # Errors
    /// What the kernel says, but for that there is none.
    pub fn find(&self, held: &Held) -> io::Result<Option<Found>> {
        // Without another socket the listener is found (`inet_lookup`, include/net/inet_hashtables.h).
        Ok(self.find_any(held)?.filter(|found| found.state != LISTEN))
    }

    /// Whether, without another socket with these four numbers, somebody listens where the client wanted to.
    ///
    /// # Errors
    /// As of [`Self::find`].
    pub fn listens(&self, held: &Held) -> io::Result<bool> {
        Ok(self.find_any(held)?.is_some_and(|found| found.state == LISTEN))
    }

    fn find_any(&self, held: &Held) -> io::Result<Option<Found>> {
        let request = request(held, [NO_COOKIE; 2]);
        let found = self.ask(BY_FAMILY, 0, &request, |body| {
            let cookie = [number(body, COOKIE)?, number(body, COOKIE + 4)?];
            Some(Found { state: *body.get(1)?, cookie })
        });
        match found {
            Ok(found) => Ok(found.flatten()),
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
    pub fn destroy(&self, held: &Held, cookie: [u32; 2]) -> io::Result<bool> {
        if cookie == [NO_COOKIE; 2] {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match self.ask(DESTROY, libc::NLM_F_ACK, &request(held, cookie), |_| ()) {
            Ok(_) => Ok(true),
            // ESTALE: another socket has been found, by its cookie.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks, and reads the one message of the answer; `None` for one that only says that all went well.
    fn ask<T>(
        &self,
        kind: u16,
        flags: i32,
        request: &Request,
        read: impl FnOnce(&[u8]) -> T,
    ) -> io::Result<Option<T>> {
        let message = netlink::request(kind, flags, bytemuck::bytes_of(request));
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut buffer = [0_u8; 4096];
        let len = loop {
            // The answer is there by now; left there, it would be taken for that to the next question.
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                received => break received?,
            }
        };
        let (kind, body) = netlink::each(&buffer[..len]).next().ok_or(io::ErrorKind::UnexpectedEof)?;
        if !matches!(i32::from(kind), libc::NLMSG_ERROR | libc::NLMSG_DONE) {
            return Ok(Some(read(body)));
        }
        match number(body, 0).unwrap_or_default() as i32 {
            0 => Ok(None),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    }
}

/// The question for the socket of `held`.
fn request(held: &Held, cookie: [u32; 2]) -> Request {
    let (family, local, remote) = match (held.local, held.remote) {
        (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
            (libc::AF_INET, v4(local.ip().octets()), v4(remote.ip().octets()))
        }
        (local, remote) => (libc::AF_INET6, v6(local), v6(remote)),
    };
    Request {
        family: family as u8,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: 0,
        padding: 0,
        states: u32::MAX,
        local_port: held.local.port().to_be_bytes(),
        remote_port: held.remote.port().to_be_bytes(),
        local,
        remote,
        ifindex: held.ifindex(),
        cookie,
    }
}

fn v4(octets: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&octets);
    address
}

fn v6(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(v6) => v6.ip().octets(),
    }
}
