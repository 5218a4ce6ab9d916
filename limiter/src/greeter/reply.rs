// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How a connection ends: with a reply the client can read to its end, or with a reset.

use std::{
    io::{ErrorKind, Read as _},
    net::Shutdown,
    time::{Duration, Instant},
};

use mio::net::TcpStream;
use socket2::SockRef;

use super::{
    bounds::Bounds,
    seats::Seat,
    tls::{Budget, End, Handshake, Step},
};

/// Closes at once: with nothing to linger for, the kernel sends RST instead of FIN (socket(7)).
pub fn reset(stream: TcpStream) {
    will_reset(&stream);
    drop(stream);
}

/// Has the kernel send RST when the stream is closed.
fn will_reset(stream: &TcpStream) {
    // Without it the stream is closed all the same, only more politely.
    let _failure_is_harmless = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A connection that is told why, and then heard until it closes. Dropped, it is closed.
///
/// Closing with something unread, or before something arrives, makes the kernel send RST, and a client
/// that gets one may throw away the reply unread (RFC 1122, 4.2.2.13).
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// What comes first, where TLS does; none once everything was said.
    handshake: Option<Box<Handshake>>,
    /// How many bytes are read, and discarded, after that.
    left: usize,
    until: Instant,
    /// Given back after the stream is closed, as fields are dropped in their order.
    _seat: Seat,
}

/// Says `line` and half-closes. Then the client has its time to say something and to close.
///
/// It is not asked first whether the socket is writable: a new connection's buffer holds any line. If
/// the kernel will not take it whole (no memory, or the client is gone), the stream comes back.
pub fn send(
    stream: TcpStream,
    line: &[u8],
    bounds: &Bounds,
    now: Instant,
    seat: Seat,
) -> Result<Client, TcpStream> {
    if !say_last(&stream, line) {
        return Err(stream);
    }
    let until = now + bounds.time;
    Ok(Client { stream, handshake: None, left: bounds.bytes, until, _seat: seat })
}

/// Begins a handshake, at whose end the client is told.
pub fn shake(stream: TcpStream, handshake: Handshake, bounds: &Bounds, now: Instant, seat: Seat) -> Client {
    let until = now + bounds.handshake_time;
    Client { stream, handshake: Some(Box::new(handshake)), left: bounds.bytes, until, _seat: seat }
}

/// Says the last thing, so the end of it and the FIN travel in one segment; whether the kernel took it whole. From then on
/// the end of the process is an orderly one for the client, too.
fn say_last(stream: &TcpStream, bytes: &[u8]) -> bool {
    let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let socket = SockRef::from(stream);
    let whole =
        bytes.is_empty() || socket.send_with_flags(bytes, flags).is_ok_and(|sent| sent == bytes.len());
    if !whole || socket.shutdown(Shutdown::Write).is_err() {
        return false;
    }
    // What came from the listener would be reset when it is closed, and may not have been read.
    let _reset_at_worst = socket.set_linger(None);
    true
}

impl Client {
    /// Goes on with the handshake, then reads and discards what there is; whether nothing more is to come, or to be
    /// read. `ended` is told how the handshake ends.
    pub fn is_over(
        &mut self,
        budget: &mut Budget,
        bounds: &Bounds,
        now: Instant,
        ended: impl FnOnce(End),
    ) -> bool {
        if let Some(handshake) = &mut self.handshake {
            let step = handshake.step(&self.stream, budget, now);
            if matches!(step, Step::Waits) {
                return false;
            }
            if !self.ends(step, bounds, now, ended) {
                return true;
            }
        }
        self.has_closed()
    }

    /// Its time is up; whether it has some more, to hear that.
    pub fn gives_up(&mut self, bounds: &Bounds, now: Instant, ended: impl FnOnce(End)) -> bool {
        let Some(handshake) = &self.handshake else { return false };
        let step = handshake.give_up();
        self.ends(step, bounds, now, ended)
    }

    /// Ends the handshake; whether there is anything to wait for.
    fn ends(&mut self, step: Step, bounds: &Bounds, now: Instant, ended: impl FnOnce(End)) -> bool {
        self.handshake = None;
        let end = match step {
            Step::Ends(last, end) if say_last(&self.stream, &last) => Some(end),
            _ => None,
        };
        ended(end.unwrap_or(End::Failed));
        if end.is_none() {
            will_reset(&self.stream);
        }
        (self.left, self.until) = (bounds.bytes, now + bounds.time);
        end.is_some()
    }

    fn has_closed(&mut self) -> bool {
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

    /// Its time is up at the latest at `until`.
    pub fn hurry(&mut self, until: Instant) {
        self.until = self.until.min(until);
    }

    /// Whether not everything was said.
    pub const fn is_in_handshake(&self) -> bool {
        self.handshake.is_some()
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
