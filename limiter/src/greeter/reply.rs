//! How a connection ends: with a reply the client can read to its end, or with a reset.

use std::{io, net::Shutdown, ops::ControlFlow, time::Duration};

use socket2::SockRef;
use tokio::net::TcpStream;

use super::Limits;

/// Closes at once: with nothing to linger for, the kernel sends RST instead of FIN (socket(7)).
pub fn reset(stream: TcpStream) {
    // Without it the stream is closed all the same, only more politely.
    let _failure_is_harmless = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// A connection to which everything was said.
#[derive(Debug)]
pub struct Said(TcpStream);

/// Says `line` and half-closes: the last thing said, so the line and the FIN travel in one segment.
///
/// It is not asked first whether the socket is writable: a new connection's buffer holds any line. If the kernel will not take it whole (no memory, or the
/// client is gone), the stream comes back.
pub fn say(stream: TcpStream, line: &[u8]) -> Result<Said, TcpStream> {
    let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let socket = SockRef::from(&stream);
    let whole = socket.send_with_flags(line, flags).is_ok_and(|sent| sent == line.len());
    if whole && socket.shutdown(Shutdown::Write).is_ok() { Ok(Said(stream)) } else { Err(stream) }
}

impl Said {
    /// Reads and discards until the client closes, within the limits, and closes.
    ///
    /// Closing with something unread, or before something arrives, makes the kernel send RST, and a
    /// client that gets one may throw away the reply unread (RFC 1122, 4.2.2.13).
    pub async fn wait_until_read(self, limits: Limits) {
        let discard = async {
            let mut left = limits.bytes;
            while left > 0 {
                self.0.readable().await?;
                match discard(&self.0, left) {
                    ControlFlow::Continue(read) => left -= read,
                    ControlFlow::Break(()) => break,
                }
            }
            io::Result::Ok(())
        };
        // However it ends, the stream is closed.
        let _end = tokio::time::timeout(limits.time, discard).await;
    }
}

/// Reads once, at most `left` bytes, and says how many; breaks when there is nothing more to come.
fn discard(stream: &TcpStream, left: usize) -> ControlFlow<(), usize> {
    let mut bytes = [0; 4096];
    let most = left.min(bytes.len());
    match stream.try_read(&mut bytes[..most]) {
        Ok(0) => ControlFlow::Break(()),
        Ok(read) => ControlFlow::Continue(read),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => ControlFlow::Continue(0),
        Err(_) => ControlFlow::Break(()),
    }
}
