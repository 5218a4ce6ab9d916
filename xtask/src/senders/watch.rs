// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a sender sees on the wire: which of its connections was served, which was told why not, and which one heard
//! nothing. A passive look at its interface, apart from what anyone logs.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _},
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use limiter_lab::{
    Namespace,
    segment::{Segment, flag, parse},
};
use nix::sys::{
    socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt},
    time::TimeVal,
};

/// How long somebody may wait for a word before that counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a watch without packets looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// What became of the connections of a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// SYNs, those that were repeated once.
    pub tried: usize,
    /// Heard 220.
    pub served: usize,
    /// Heard 421.
    pub told: usize,
    /// Reset in answer to the SYN, or before a word.
    pub reset: usize,
    /// Heard nothing for more than [`PATIENCE`] after the handshake.
    pub hung: usize,
    /// The longest time from handshake to word, or to the end of a connection without one.
    pub longest: Duration,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
struct Connection {
    /// The number of its SYN: a port is used again.
    sequence: u32,
    /// When the handshake was done, for the sender.
    established: Option<Instant>,
    outcome: Option<(Instant, Outcome)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Served,
    Told,
    OtherWord,
    Reset,
    GivenUp,
}

/// All connections to one address and port.
struct Connections {
    server: SocketAddr,
    open: HashMap<u16, Connection>,
    done: Vec<Connection>,
}

impl Connections {
    fn new(server: SocketAddr) -> Self {
        Self { server, open: HashMap::new(), done: Vec::new() }
    }

    fn note(&mut self, now: Instant, segment: &Segment<'_>) {
        if segment.to == self.server {
            self.note_sent(now, segment);
        } else if segment.from == self.server {
            self.note_received(now, segment);
        }
    }

    fn note_sent(&mut self, now: Instant, segment: &Segment<'_>) {
        let port = segment.from.port();
        if segment.flags & (flag::SYN | flag::ACK) == flag::SYN {
            let is_repeated = self.open.get(&port).is_some_and(|known| known.sequence == segment.sequence);
            if !is_repeated {
                let new = Connection { sequence: segment.sequence, established: None, outcome: None };
                self.done.extend(self.open.insert(port, new));
            }
        } else if segment.flags & (flag::FIN | flag::RST) != 0 {
            self.end(now, port, Outcome::GivenUp);
        }
    }

    fn note_received(&mut self, now: Instant, segment: &Segment<'_>) {
        let port = segment.to.port();
        if segment.flags & flag::RST != 0 {
            return self.end(now, port, Outcome::Reset);
        }
        if segment.flags & flag::SYN != 0
            && let Some(connection) = self.open.get_mut(&port)
        {
            connection.established.get_or_insert(now);
        }
        if !segment.data.is_empty() && segment.flags & flag::SYN == 0 {
            let outcome = match segment.data.get(..3) {
                Some(b"220") => Outcome::Served,
                Some(b"421") => Outcome::Told,
                _ => Outcome::OtherWord,
            };
            self.end(now, port, outcome);
        }
    }

    /// What happens first is what counts.
    fn end(&mut self, now: Instant, port: u16, outcome: Outcome) {
        if let Some(connection) = self.open.get_mut(&port) {
            connection.outcome.get_or_insert((now, outcome));
        }
    }

    fn seen(&self, now: Instant) -> Seen {
        let mut seen = Seen::default();
        for connection in self.done.iter().chain(self.open.values()) {
            seen.tried += 1;
            let (end, outcome) = connection.outcome.map_or((now, None), |(at, what)| (at, Some(what)));
            match outcome {
                Some(Outcome::Served) => seen.served += 1,
                Some(Outcome::Told) => seen.told += 1,
                Some(Outcome::Reset) => seen.reset += 1,
                Some(Outcome::OtherWord | Outcome::GivenUp) | None => {}
            }
            if let Some(established) = connection.established {
                let silence = end.saturating_duration_since(established);
                seen.longest = seen.longest.max(silence);
                seen.hung += usize::from(silence > PATIENCE);
            }
        }
        seen
    }
}

/// A look at the connections of a host, as long as this lives.
pub struct Watch {
    connections: Arc<Mutex<Connections>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look at the connections of a host to a server.
    ///
    /// # Errors
    ///
    /// When the kernel does not show packets.
    pub fn begin(host: &Namespace, server: SocketAddr) -> Result<Self> {
        let socket = host.run(open)?;
        let connections = Arc::new(Mutex::new(Connections::new(server)));
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (connections, is_over) = (Arc::clone(&connections), Arc::clone(&is_over));
            thread::spawn(move || look(socket, &connections, &is_over))
        };
        Ok(Self { connections, is_over, thread: Some(thread) })
    }

    /// What became of the connections so far.
    pub fn seen(&self) -> Seen {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).seen(Instant::now())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the watch died");
        }
    }
}

/// A socket that gets every packet of this thread's network namespace, in and out, from its network header on
/// (packet(7)).
fn open() -> Result<OwnedFd> {
    let socket =
        socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::EthAll));
    let socket = socket.context("cannot watch packets")?;
    let look = i64::try_from(LOOK.as_micros()).map_err(|_| anyhow!("reading packets takes too long"))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, look))?;
    Ok(socket)
}

fn look(socket: OwnedFd, connections: &Mutex<Connections>, is_over: &AtomicBool) {
    // Whatever the family: reading from a socket is the same for all.
    let mut socket = UnixStream::from(socket);
    let mut packet = vec![0; 65_535];
    while !is_over.load(Ordering::Relaxed) {
        match socket.read(&mut packet) {
            Ok(length) => {
                if let Some(segment) = parse(&packet[..length]) {
                    let mut connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
                    connections.note(Instant::now(), &segment);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The interface went down, or up.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENETDOWN) => {}
            Err(error) => return eprintln!("the packet watch has failed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 4000);
    const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 25)), 25);

    /// What is seen of segments: when in seconds, whether the client sends it, flags and data.
    fn seen(segments: &[(u64, bool, u8, &[u8])], end: u64) -> Seen {
        let begin = Instant::now();
        let mut connections = Connections::new(SERVER);
        for &(at, is_client, flags, data) in segments {
            let (from, to) = if is_client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
            let segment = Segment { from, to, sequence: 1, flags, data };
            connections.note(begin + Duration::from_secs(at), &segment);
        }
        connections.seen(begin + Duration::from_secs(end))
    }

    const SYN: (u64, bool, u8, &[u8]) = (0, true, flag::SYN, b"");
    const SYN_ACK: (u64, bool, u8, &[u8]) = (0, false, flag::SYN | flag::ACK, b"");

    #[test]
    fn a_banner_after_eleven_seconds_of_silence_is_served_and_hung() {
        let seen = seen(&[SYN, SYN_ACK, (11, false, flag::ACK, b"220 mx"), (12, true, flag::FIN, b"")], 20);
        let expected =
            Seen { tried: 1, served: 1, hung: 1, longest: Duration::from_secs(11), ..Seen::default() };
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_repeated_syn_is_one_try_and_its_reset_is_no_silence() {
        let seen = seen(&[SYN, (1, true, flag::SYN, b""), (1, false, flag::RST | flag::ACK, b"")], 20);
        assert_eq!(seen, Seen { tried: 1, reset: 1, ..Seen::default() });
    }

    #[test]
    fn who_hears_nothing_until_the_end_hangs() {
        let seen = seen(&[SYN, SYN_ACK], 20);
        assert_eq!(seen, Seen { tried: 1, hung: 1, longest: Duration::from_secs(20), ..Seen::default() });
    }
}
