// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The loop of the greeter's process: accepts, tells, and listens until each client has heard.
//!
//! One thread and one epoll of its own serve all, so that a connection needs no task and no timer, and
//! is not taken from epoll before it is closed, which does that as well.

use std::{
    io,
    net::{self, IpAddr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use limiter_common::Reason;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
    unix::SourceFd,
};
use rustix::net::RecvFlags;

use super::{
    bounds::Bounds,
    channel::{self, Reader},
    clients::Clients,
    log::{Answer, Refused},
    messages::{Noted, Notice, Order},
    notes::Notes,
    refusal::{self, Refusal, Services},
    reply,
    seats::{Seat, Seats},
    setup::Setup,
    tls::{self, Asker, Common, Handshake, Ports, Speaks},
    totals::Totals,
    words::{Dues as _, NAMELESS, Words},
};
use crate::wording::{self, Placeholder, Retry, Text, Wording};

/// Rest after `accept` failed for want of something; shorter would be spinning.
const REST: Duration = Duration::from_millis(100);
/// The least time between two notices that `accept` fails.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How many are accepted before the others are listened to again.
const AT_ONCE: usize = 64;
/// How many sources a message tells of.
const NOTED_AT_ONCE: usize = 256;

/// What the kernel tells of, apart from clients, which have the numbers from 0.
const LISTENER: Token = Token(usize::MAX);
const ORDERS: Token = Token(usize::MAX - 1);

/// What it says.
#[derive(Debug)]
struct Says {
    services: Services,
    words: Words,
    /// Where TLS starts at once.
    ports: Ports,
    /// Whether the daemon's log has each refusal.
    tells_each: bool,
}

/// Where the daemon is.
#[derive(Debug)]
pub struct Daemon {
    /// It gives orders here, and is told what happens.
    pub orders: OwnedFd,
    pub reader: Reader,
    /// It answers questions.
    pub asker: Asker,
}

/// The loop's state.
#[derive(Debug)]
pub struct EventLoop {
    poll: Poll,
    /// None once it was told to stop.
    listener: Option<TcpListener>,
    /// When to accept again; none until the kernel tells.
    accept_at: Option<Instant>,
    daemon: Daemon,
    clients: Clients,
    seats: Seats,
    /// A descriptor that does nothing but be there: closed, it lets one client be accepted when there is no other,
    /// to be reset.
    spare: Option<OwnedFd>,
    says: Says,
    /// What all TLS handshakes have in common.
    common: Common,
    notes: Notes,
    bounds: Bounds,
    totals: Totals,
    told: Option<Instant>,
}

impl EventLoop {
    /// An event loop.
    ///
    /// # Errors
    /// For want of a descriptor, or of random numbers.
    pub fn new(
        listener: net::TcpListener,
        daemon: Daemon,
        setup: &Setup,
        totals: Totals,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry().register(&mut SourceFd(&daemon.orders.as_raw_fd()), ORDERS, Interest::READABLE)?;
        let (bounds, common) = (setup.bounds, Common::new()?);
        let says = Says::of(setup, &common, &daemon.asker);
        Ok(Self {
            poll,
            listener: Some(listener),
            accept_at: None,
            clients: Clients::new(bounds, totals.clone()),
            seats: Seats::new(bounds.connections, bounds.per_source),
            spare: Some(spare()?),
            daemon,
            says,
            common,
            notes: Notes::default(),
            bounds,
            totals,
            told: None,
        })
    }

    /// Serves until the daemon orders it to stop; then until everyone has heard, or there is no daemon any more.
    ///
    /// # Errors
    /// If the kernel does not tell any more of what happens, or the daemon says what cannot be understood.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(2 * AT_ONCE);
        let mut now = Instant::now();
        while self.listener.is_some() || self.clients.len() > 0 {
            let wake_at =
                [self.accept_at, self.clients.look_at(), self.notes.due()].into_iter().flatten().min();
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
                        if !self.obey(now)? {
                            return Ok(());
                        }
                    }
                    Token(client) => self.clients.hear(client, now),
                }
            }
            if self.accept_at.is_some_and(|at| at <= now) {
                self.accept_at = self.accept(now);
            }
            self.clients.settle(self.poll.registry(), now);
            self.clients.dismiss(now);
            if self.notes.due().is_some_and(|due| due <= now) {
                self.tell_noted(now);
            }
        }
        self.tell_noted(now);
        Ok(())
    }

    /// Does what the daemon has ordered; whether there is still one.
    fn obey(&mut self, now: Instant) -> io::Result<bool> {
        loop {
            let order = self.daemon.reader.receive::<Order>(&self.daemon.orders, RecvFlags::DONTWAIT);
            let (order, mut files) = match order {
                Ok(Some(order)) => order,
                Ok(None) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match (order, files.pop()) {
                (Order::Say, Some(file)) => {
                    self.says = Says::of(&Setup::read(&file)?, &self.common, &self.daemon.asker);
                }
                (Order::Tell, Some(client)) => self.take_handed(client, now),
                (Order::Live, _) => self.tell(&Notice::Alive),
                (Order::Stop, _) => {
                    (self.listener, self.accept_at) = (None, None);
                    self.clients.hurry(now);
                }
                (Order::Say | Order::Tell, None) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Tells the daemon, if it has room to read.
    fn tell(&self, notice: &Notice) {
        let _unheard = channel::send(&self.daemon.orders, notice, &[]);
    }

    /// Tells the daemon who was refused.
    fn tell_noted(&mut self, now: Instant) {
        let (sources, mut others) = self.notes.take();
        for sources in sources.chunks(NOTED_AT_ONCE) {
            if channel::send(&self.daemon.orders, &Notice::Refused(sources.to_vec()), &[]).is_err() {
                others += sources.iter().map(|noted| u64::from(noted.times)).sum::<u64>();
            }
        }
        if others > 0 && channel::send(&self.daemon.orders, &Notice::Others(others), &[]).is_err() {
            self.notes.put_back(others, now);
        }
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
                    let waits = match &turned_away {
                        Ok(()) => false,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                        Err(_) => true,
                    };
                    self.totals.count_accept_error();
                    if self.told.is_none_or(|at| now.duration_since(at) >= TELL_EVERY) {
                        let errno = error.raw_os_error().unwrap_or_default();
                        self.tell(&Notice::CannotAccept { waits, errno });
                        self.told = Some(now);
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

    /// Tells one that the daemon has handed over. Its socket does not wait, as none does that is accepted.
    fn take_handed(&mut self, client: OwnedFd, now: Instant) {
        let stream = TcpStream::from_std(client.into());
        let Ok(peer) = stream.peer_addr() else { return };
        self.take(stream, peer, now);
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr, now: Instant) {
        // Where there are too many, nobody is asked why.
        let Some(seat) = self.seats.take(peer.ip()) else {
            self.totals.count_dropped_full();
            return reply::reset(stream);
        };
        self.say(stream, peer.ip(), now, seat);
    }

    /// Says why, if there is something that can be said, in the way in which it is heard at the client's port.
    fn say(&mut self, stream: TcpStream, remote: IpAddr, now: Instant, seat: Seat) {
        let Some((port, refusal)) = self.refusal(&stream) else {
            self.totals.count_reset();
            return reply::reset(stream);
        };
        let line = self.compose(refusal, port, remote.to_canonical());
        let answer = match self.says.ports.at(port) {
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
        let service = self.says.services.at(port)?;
        let Some(grounds) = refusal::grounds(stream) else {
            self.totals.count_unexplained();
            return None;
        };
        Some((port, service.refusal(grounds)))
    }

    /// Notes for the log what a client got.
    fn note(&mut self, refusal: Refusal, port: u16, remote: IpAddr, answer: Answer, now: Instant) {
        let Refusal { protocol, reason, count, limit } = refusal;
        let service = self.says.words.name(port, protocol);
        let refused = Refused { service, remote, reason, count, limit, answer };
        if self.says.tells_each {
            self.tell(&Notice::Each { port, noted: Noted::of(&refused, 1) });
        }
        self.notes.note(refused, now);
    }

    fn compose(&self, refusal: Refusal, port: u16, remote: IpAddr) -> String {
        let Refusal { protocol, reason, count, limit } = refusal;
        let words = &self.says.words;
        let service = words.at(port, protocol);
        let wording = service.map_or(&Wording::NONE, |service| &service.wording);
        // Hardly anybody asks for it, and the daemon has to be asked.
        let is_told = reason == Reason::Rate && wording.has(reason, Placeholder::Retry);
        let due = if is_told { self.daemon.asker.due(port, remote) } else { None };
        let text = Text {
            hostname: &words.hostname,
            service: service.map_or(NAMELESS, |service| &service.name),
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

impl Says {
    fn of(setup: &Setup, common: &Common, asker: &Asker) -> Self {
        Self {
            services: setup.services(),
            words: setup.words(),
            ports: setup.speaks(common, asker),
            tells_each: setup.tells_each,
        }
    }
}

/// A descriptor that does nothing. The process cannot open a file.
fn spare() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
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
