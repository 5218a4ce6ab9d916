// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The greeter's thread: accepts, tells, and listens until each client has heard.
//!
//! One thread and one epoll of its own serve all, so that a connection needs no task and no timer, and
//! is not taken from epoll before it is closed, which does that as well.

use std::{
    fs::File,
    io,
    net::{self, IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

use limiter_common::Reason;
use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{
    Listener, Totals,
    bounds::Bounds,
    clients::Clients,
    log::{Answer, RefusalLog, Refused},
    refusal::{self, Refusal, Services},
    reply,
    seats::{Seat, Seats},
    tls::{self, Handshake, Ports, Speaks},
    words::{Dues, Words},
};
use crate::wording::{self, Placeholder, Retry, Text, Wording};

/// A client that did not come to the listener, and its seat.
pub type Handed = (net::TcpStream, Seat);

/// Rest after `accept` failed for want of something; shorter would be spinning.
const REST: Duration = Duration::from_millis(100);
/// The least time between two warnings that `accept` fails.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// How many are accepted before the others are listened to again.
const AT_ONCE: usize = 64;

/// What the kernel tells of, apart from clients, which have the numbers from 0.
const LISTENER: Token = Token(usize::MAX);
const ORDERS: Token = Token(usize::MAX - 1);

/// The thread's state.
#[derive(Debug)]
pub struct EventLoop {
    poll: Poll,
    /// None once it was told to stop.
    listener: Option<TcpListener>,
    /// When to accept again; none until the kernel tells.
    accept_at: Option<Instant>,
    /// Clients that did not come to the listener.
    handed: Receiver<Handed>,
    clients: Clients,
    seats: Seats,
    /// A descriptor that does nothing but be there: closed, it lets one client be accepted when there is no other,
    /// to be reset.
    spare: Option<OwnedFd>,
    services: watch::Receiver<Services>,
    /// Where TLS starts at once.
    ports: Ports,
    words: watch::Receiver<Words>,
    log: RefusalLog,
    dues: Box<dyn Dues>,
    bounds: Bounds,
    totals: Totals,
    warned: Option<Instant>,
}

impl EventLoop {
    /// An event loop, and what wakes it up to look for orders.
    pub fn new(
        listener: Listener,
        services: watch::Receiver<Services>,
        ports: Ports,
        words: watch::Receiver<Words>,
        dues: Box<dyn Dues>,
        bounds: Bounds,
        handed: Receiver<Handed>,
    ) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), ORDERS)?;
        let mut listener = TcpListener::from_std(listener.into());
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let totals = Totals::default();
        let event_loop = Self {
            poll,
            listener: Some(listener),
            accept_at: None,
            handed,
            clients: Clients::new(bounds, totals.clone()),
            seats: Seats::new(bounds.connections, bounds.per_source),
            spare: Some(spare()?),
            services,
            ports,
            words,
            log: RefusalLog::new(),
            dues,
            bounds,
            totals,
            warned: None,
        };
        Ok((event_loop, waker))
    }

    /// What is counted, live.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What is served at which port.
    pub const fn services(&self) -> &watch::Receiver<Services> {
        &self.services
    }

    /// Who was refused, for whoever writes the log.
    pub const fn log(&self) -> &RefusalLog {
        &self.log
    }

    /// What it has to say.
    pub const fn words(&self) -> &watch::Receiver<Words> {
        &self.words
    }

    /// Who may have its attention.
    pub const fn seats(&self) -> &Seats {
        &self.seats
    }

    /// Serves until it is ordered to stop; then until everyone has heard, or nobody is left to give
    /// orders.
    pub fn run(mut self, orders: &Receiver<()>) -> io::Result<()> {
        let mut events = Events::with_capacity(2 * AT_ONCE);
        let mut now = Instant::now();
        while self.listener.is_some() || self.clients.len() > 0 {
            let wake_at = [self.accept_at, self.clients.look_at()].into_iter().flatten().min();
            match self.poll.poll(&mut events, wake_at.map(|at| at.saturating_duration_since(now))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            now = Instant::now();
            for event in &events {
                match event.token() {
                    // During a rest the rest counts.
                    LISTENER => drop(self.accept_at.get_or_insert(now)),
                    ORDERS => {
                        match orders.try_recv() {
                            Ok(()) => {
                                (self.listener, self.accept_at) = (None, None);
                                self.clients.hurry(now);
                            }
                            Err(TryRecvError::Disconnected) => return Ok(()),
                            Err(TryRecvError::Empty) => {}
                        }
                        self.take_handed(now);
                    }
                    Token(client) => self.clients.hear(client, now),
                }
            }
            if self.accept_at.is_some_and(|at| at <= now) {
                self.accept_at = self.accept(now);
            }
            self.clients.settle(self.poll.registry(), now);
            self.clients.dismiss(now);
        }
        Ok(())
    }

    /// Accepts some of those that wait, and says when to accept again.
    fn accept(&mut self, now: Instant) -> Option<Instant> {
        for _ in 0..AT_ONCE {
            match self.listener.as_ref()?.accept() {
                Ok((stream, peer)) => self.take(stream, peer, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if is_the_connections_own(&error) => {}
                Err(error) => {
                    let turned_away =
                        if is_out_of_files(&error) { self.turn_away() } else { Err(error.kind().into()) };
                    let what = match turned_away {
                        Ok(()) => "get a reset",
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                        Err(_) => "wait",
                    };
                    self.totals.count_accept_error();
                    if self.warned.is_none_or(|at| now.duration_since(at) >= WARN_EVERY) {
                        warn!("the greeter cannot accept connections, so refused clients {what}: {error}");
                        self.warned = Some(now);
                    }
                    if turned_away.is_err() {
                        return Some(now + REST);
                    }
                }
            }
        }
        Some(now)
    }

    /// Resets one of those that wait, by the spare descriptor.
    ///
    /// # Errors
    /// `WouldBlock` if nobody waits, which the kernel says only where there is a descriptor; what it says otherwise if
    /// there is no spare one, or another thread was faster to take it.
    fn turn_away(&mut self) -> io::Result<()> {
        drop(self.spare.take());
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        let accepted = listener.accept().map(|(stream, _)| reply::reset(stream));
        self.spare = spare().ok();
        accepted
    }

    /// Tells those that were handed over.
    fn take_handed(&mut self, now: Instant) {
        while let Ok((stream, seat)) = self.handed.try_recv() {
            let Ok(peer) = stream.peer_addr() else { continue };
            // As what is accepted is; without it, one that reads slowly would be waited for.
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let stream = TcpStream::from_std(stream);
            self.tell(stream, peer.ip(), now, seat);
        }
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr, now: Instant) {
        // Where there are too many, nobody is asked why.
        let Some(seat) = self.seats.take(peer.ip()) else {
            self.totals.count_dropped_full();
            return reply::reset(stream);
        };
        self.tell(stream, peer.ip(), now, seat);
    }

    /// Says why, if there is something that can be said, in the way in which it is heard at the client's port.
    fn tell(&mut self, stream: TcpStream, remote: IpAddr, now: Instant, seat: Seat) {
        let Some((port, refusal)) = self.refusal(&stream) else {
            self.totals.count_reset();
            return reply::reset(stream);
        };
        let line = self.compose(refusal, port, remote.to_canonical());
        let answer = match self.ports.at(port) {
            Speaks::Plain => {
                self.send(stream, line.as_bytes(), now, seat, Totals::count_greeted, Answer::Reply)
            }
            Speaks::Alert => self.send(stream, &tls::REFUSED, now, seat, Totals::count_alert, Answer::Alert),
            Speaks::Tls(config) => match self.clients.budget().place(remote) {
                Some(place) => {
                    let handshake = Handshake::new(config, line, self.bounds.handshake_bytes, place);
                    self.clients.join(reply::shake(stream, handshake, &self.bounds, now, seat));
                    Answer::Reply
                }
                None => self.send(stream, &tls::REFUSED, now, seat, Totals::count_over_budget, Answer::Alert),
            },
        };
        self.note(refusal, port, remote.to_canonical(), answer, now);
    }

    /// Says this, and nothing more; that is `answer`, unless it is a reset.
    fn send(
        &mut self,
        stream: TcpStream,
        bytes: &[u8],
        now: Instant,
        seat: Seat,
        count: fn(&Totals),
        answer: Answer,
    ) -> Answer {
        match reply::send(stream, bytes, &self.bounds, now, seat) {
            Ok(client) => {
                count(&self.totals);
                self.clients.join(client);
                answer
            }
            Err(stream) => {
                reply::reset(stream);
                self.totals.count_reset();
                Answer::Reset
            }
        }
    }

    /// At which port the client is refused, and why, if that is known.
    fn refusal(&self, stream: &TcpStream) -> Option<(u16, Refusal)> {
        let port = stream.local_addr().ok()?.port();
        let service = self.services.borrow().at(port)?;
        let Some(grounds) = refusal::grounds(stream) else {
            self.totals.count_unexplained();
            return None;
        };
        Some((port, service.refusal(grounds)))
    }

    /// Notes for the log what a client got.
    fn note(&self, refusal: Refusal, port: u16, remote: IpAddr, answer: Answer, now: Instant) {
        let Refusal { protocol, reason, count, limit } = refusal;
        debug!("refused {remote} at port {port}: {}, {}", reason.name(), answer.name());
        let service = self.words.borrow().name(port, protocol);
        self.log.note(Refused { service, remote, reason, count, limit, answer }, now);
    }

    fn compose(&self, refusal: Refusal, port: u16, remote: IpAddr) -> String {
        let Refusal { protocol, reason, count, limit } = refusal;
        let words = self.words.borrow();
        let service = words.at(port, protocol);
        let wording = service.map_or(&Wording::NONE, |service| &service.wording);
        // Hardly anybody asks for it, and it takes several system calls.
        let is_told = reason == Reason::Rate && wording.has(reason, Placeholder::Retry);
        let due = if is_told { self.dues.due(port, remote) } else { None };
        let text = Text {
            hostname: &words.hostname,
            service: service.map_or("mail", |service| &service.name),
            reason,
            count,
            limit,
            remote,
            retry: due.map_or(Retry::Later, Retry::In),
            wording,
        };
        wording::line(&text, protocol)
    }
}

/// A descriptor that does nothing.
fn spare() -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
}

/// Whether neither the process nor the system has a descriptor left.
fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Whether `accept` reports what became of one connection: accept(2) passes pending network errors on
/// and asks to be called again.
fn is_the_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | Interrupted | NetworkDown | NetworkUnreachable | HostUnreachable
    )
}
