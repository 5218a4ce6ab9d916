// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How a connection ends: with a reply the client can read to its end, or with a reset.

use std::{
    io::{ErrorKind, Read as _},
    net::Shutdown,
    time::{Duration, Instant},
};

use mio::net::TcpStream;
use socket2::SockRef;

use super::seats::Seat;

/// Closes at once: with nothing to linger for, the kernel sends RST instead of FIN (socket(7)).
pub fn reset(stream: TcpStream) {
    // Without it the stream is closed all the same, only more politely.
    let _failure_is_harmless = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// A connection to which everything was said. Dropped, it is closed.
///
/// Closing with something unread, or before something arrives, makes the kernel send RST, and a client
/// that gets one may throw away the reply unread (RFC 1122, 4.2.2.13).
#[derive(Debug)]
pub struct Sent {
    stream: TcpStream,
    /// How many bytes are read, and discarded.
    left: usize,
    until: Instant,
    /// Given back after the stream is closed, as fields are dropped in their order.
    _seat: Seat,
}

/// Says `line` and half-closes: the last thing said, so the line and the FIN travel in one segment. Then
/// the client has `bytes` and the time `until` then, to say something and to close.
///
/// It is not asked first whether the socket is writable: a new connection's buffer holds any line. If
/// the kernel will not take it whole (no memory, or the client is gone), the stream comes back.
pub fn send(
    stream: TcpStream,
    line: &[u8],
    bytes: usize,
    until: Instant,
    seat: Seat,
) -> Result<Sent, TcpStream> {
    let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let socket = SockRef::from(&stream);
    let whole = socket.send_with_flags(line, flags).is_ok_and(|sent| sent == line.len());
    if whole && socket.shutdown(Shutdown::Write).is_ok() {
        Ok(Sent { stream, left: bytes, until, _seat: seat })
    } else {
        Err(stream)
    }
}

impl Sent {
    /// Reads and discards what there is; whether nothing more is to come, or to be read.
    pub fn is_over(&mut self) -> bool {
        let mut bytes = [0; 4096];
        while self.left > 0 {
            let most = self.left.min(bytes.len());
            match self.stream.read(&mut bytes[..most]) {
                Ok(0) => return true,
                Ok(read) => self.left -= read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// When it is closed, whatever the client does.
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// For the kernel to tell when there is something to read.
    pub const fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}
