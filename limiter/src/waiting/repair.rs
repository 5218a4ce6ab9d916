// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A connection made of a handshake's numbers, without a packet: `TCP_REPAIR` (tcp(7), and CRIU, which it was
//! made for).
//!
//! While a socket is in repair its numbers may be set, connecting says nothing to the other side, and
//! neither does closing. So whatever fails here, the client hears nothing of it.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    num::NonZeroU32,
    os::fd::{AsFd, BorrowedFd},
};

use nix::sys::socket::{GetSockOpt as _, SetSockOpt, sockopt::TcpRepair};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    held::Held,
    options::{Agreed, Options, Queue, Sequence, Timestamp, Window, Windows},
};

/// `TCP_REPAIR_ON` and `TCP_REPAIR_OFF_NO_WP` (-1: without a window probe, the one packet that leaving repair
/// would send), include/uapi/linux/tcp.h.
const ON: u32 = 1;
const OFF_WITHOUT_PROBE: u32 = u32::MAX;
/// `TCP_RECV_QUEUE` and `TCP_SEND_QUEUE` of the same.
const RECEIVE: u32 = 1;
const SEND: u32 = 2;
/// Kinds of TCP options (RFC 9293, 3.2; RFC 7323; RFC 2018).
const MSS: u32 = 2;
const WINDOW_SCALE: u32 = 3;
const SACK_PERMITTED: u32 = 4;
const TIMESTAMP: u32 = 8;
/// What `TCP_MAXSEG` takes: `TCP_MIN_MSS` to `MAX_TCP_WINDOW`, include/net/tcp.h.
const MSS_RANGE: (u16, u16) = (88, 32767);

/// What has failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
struct Failed {
    step: &'static str,
    source: io::Error,
}

/// The error of a step, of the same kind.
fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let source = error.into();
        io::Error::new(source.kind(), Failed { step, source })
    }
}

/// Makes the connection of a handshake whose request is gone.
///
/// # Errors
/// Those of [`Takeover::prepare`] and [`Takeover::finish`].
#[cfg(test)]
pub fn take_over(held: &Held) -> io::Result<TcpStream> {
    Takeover::prepare(held)?.finish()
}

/// A socket in repair that only has to be connected. To prepare it before the request is removed keeps the
/// time short in which a packet of the client finds no socket, and is answered with a reset.
#[derive(Debug)]
pub struct Takeover {
    socket: Socket,
    held: Held,
}

impl AsFd for Takeover {
    /// To set up what has to be so from the moment the socket is in the kernel's table: marks, buffers.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Takeover {
    /// Makes the socket, with the local address and the numbers of `held`. The request may still be there.
    ///
    /// # Errors
    /// What the kernel says, and to which step: `PermissionDenied` without `CAP_NET_ADMIN`.
    pub fn prepare(held: &Held) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(held.local), Type::STREAM, Some(Protocol::TCP))
            .map_err(failed("make a socket"))?;
        // It also lets the port be shared with the listener (`SK_FORCE_REUSE`).
        set(&socket, &TcpRepair, &ON, "put a socket into repair mode")?;
        // More than IP_FREEBIND: an address that is not the host's may be connected from, too, as behind a
        // TPROXY rule (`ip_route_output_key_hash_rcu`, net/ipv4/route.c).
        match held.local {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
        }
        .map_err(failed("use any local address"))?;
        // SO_BINDTOIFINDEX is of the socket, whatever its family.
        socket
            .bind_device_by_index_v4(NonZeroU32::new(held.bound_ifindex))
            .map_err(failed("bind to the interface"))?;
        socket.set_mark(held.mark).map_err(failed("set the mark"))?;
        // Connecting takes the length of segments from here; TCP_REPAIR_OPTIONS, which has to come later,
        // only sets the bound for the next change of the path's MTU.
        let mss = held.mss.clamp(MSS_RANGE.0, MSS_RANGE.1);
        socket.set_tcp_mss(mss.into()).map_err(failed("set the segment size"))?;
        for (queue, isn) in [(SEND, held.snt_isn), (RECEIVE, held.rcv_isn)] {
            set(&socket, &Queue, &queue, "choose a queue")?;
            set(&socket, &Sequence, &isn.wrapping_add(1), "set the sequence number of a queue")?;
        }
        socket.bind(&held.local.into()).map_err(failed("bind to the local address"))?;
        Ok(Self { socket, held: *held })
    }

    /// Connects it, without a packet, as the two sides have agreed. The client hears what is written to it.
    ///
    /// # Errors
    /// `AddrNotAvailable` while the request or a connection with these numbers is there, and what else the
    /// kernel says, and to which step. The client has heard nothing then.
    pub fn finish(self) -> io::Result<TcpStream> {
        let Self { socket, held } = self;
        socket.connect(&held.remote.into()).map_err(failed("connect"))?;
        for option in agreed(&held) {
            set(&socket, &Options, &option, "set the negotiated options")?;
        }
        if held.tstamp_ok {
            let clock = Timestamp.get(&socket).map_err(failed("read the timestamp clock"))?;
            set(&socket, &Timestamp, &timestamp(clock, held.ts_off), "set the timestamp")?;
        }
        set(&socket, &Window, &windows(&held), "set the windows")?;
        set(&socket, &TcpRepair, &OFF_WITHOUT_PROBE, "leave repair mode")?;
        // Leaving repair forbids to share the port (`SK_NO_REUSE`): no mail daemon could be started again
        // while this connection is there, or in TIME_WAIT.
        socket.set_reuse_address(true).map_err(failed("share the port"))?;
        Ok(socket.into())
    }
}

fn set<O: SetSockOpt>(socket: &Socket, option: &O, value: &O::Val, step: &'static str) -> io::Result<()>
where
    O::Val: Sized,
{
    option.set(socket, value).map_err(failed(step))
}

/// What was agreed on. Without window scaling the scale has to be said to be 0: connecting has chosen one.
fn agreed(held: &Held) -> impl Iterator<Item = Agreed> {
    let (send, receive) = held.scales();
    [
        Some((MSS, held.mss.into())),
        Some((WINDOW_SCALE, u32::from(send) | u32::from(receive) << 16)),
        held.sack_ok.then_some((SACK_PERMITTED, 0)),
        held.tstamp_ok.then_some((TIMESTAMP, 0)),
    ]
    .into_iter()
    .flatten()
    .map(|(kind, value)| Agreed { kind, value })
}

/// The client takes no timestamp below the last one (RFC 7323, 5). Reading the clock clears its lowest bit
/// since Linux 6.7, and when the value is set it means microseconds: one more than read, rounded up to an even
/// number, is never less than the true one, and 2 ms more at most.
fn timestamp(clock: u32, offset: u32) -> u32 {
    clock.wrapping_add(offset).wrapping_add(2) & !1
}

fn windows(held: &Held) -> Windows {
    let snd_wnd = u32::from(held.window) << held.scales().0;
    Windows {
        // As after a handshake: whatever the client sends next, its window counts.
        snd_wl1: held.rcv_isn,
        snd_wnd,
        max_window: snd_wnd,
        rcv_wnd: held.rcv_wnd,
        rcv_wup: held.rcv_isn.wrapping_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn a_timestamp_is_even_and_never_before_the_true_one() {
        for clock in [0, 2, 1000, u32::MAX - 1] {
            for offset in [0, 1, 7, u32::MAX] {
                let set = timestamp(clock, offset);
                assert_eq!(set & 1, 0);
                // What was read as `clock` may have been one more.
                let ahead = set.wrapping_sub(clock.wrapping_add(1).wrapping_add(offset));
                assert!(ahead <= 1, "{clock} + {offset}: {ahead} ahead");
            }
        }
    }
}
