// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The clients: two threads with epoll, each with many connections under way. Nothing is allocated for a
//! connection, and it takes seven system calls, so that the clients are not what is measured.

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use limiter_lab::{client, interrupt};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use socket2::Socket;

use super::lab::{Lab, Place};

/// As many as the machine that this is made for has processors.
const THREADS: usize = 2;

/// Connections under way in each thread.
const CONCURRENCY: usize = 32;

/// Ports of the clients, apart from those of what is [held](super::hold).
const PORTS: std::ops::Range<u16> = 2048..42048;

/// Ports that a source takes by turns, when there are many: so that there are no more connections in
/// `TIME_WAIT`, or known to a firewall, than with one source.
const PORTS_OF_ONE_OF_MANY: usize = 40;

/// A connection that is not over after this has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who connects to what.
#[derive(Clone, Copy)]
pub struct Load {
    /// The contestant.
    pub place: Place,
    /// The port there.
    pub port: u16,
    /// How many sources.
    pub sources: usize,
    /// Whether the server wants to hear QUIT before it closes.
    pub says_quit: bool,
    /// What is to become of a connection.
    pub expect: Expect,
}

/// What is to become of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A banner, and the end.
    Banner,
    /// The end, by a reset or without a word.
    Reset,
    /// A 421, and the end.
    Reply,
}

/// What all threads count together.
#[derive(Default)]
pub struct Tally {
    /// Connections that went as they should.
    pub done: AtomicU64,
    /// Those that did not.
    pub failed: AtomicU64,
    /// What became of the last of those.
    pub failure: Mutex<Option<String>>,
    /// Whether times are noted.
    pub noting: AtomicBool,
    times: Mutex<Vec<u32>>,
    over: AtomicBool,
}

impl Load {
    /// Runs it, and `during` meanwhile. With what that returns come the times from connect to the end, in
    /// microseconds, of the connections that went as they should, as long as they were noted.
    ///
    /// # Errors
    ///
    /// When the clients cannot run, or what `during` returns.
    pub fn run<T>(&self, lab: &Lab, during: impl FnOnce(&Tally) -> Result<T>) -> Result<(T, Vec<u32>)> {
        let tally = Tally::default();
        let outcome = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|index| {
                    let (tally, clients) = (&tally, lab.clients());
                    scope.spawn(move || {
                        clients.enter();
                        let result = Client::new(*self, index, tally)?.run();
                        tally.over.store(true, Ordering::Relaxed);
                        result
                    })
                })
                .collect();
            let outcome = during(&tally);
            tally.over.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a client died"))??;
            }
            outcome
        })?;
        Ok((outcome, tally.times.into_inner().unwrap_or_default()))
    }
}

/// One thread.
struct Client<'a> {
    load: Load,
    index: usize,
    tally: &'a Tally,
    epoll: Epoll,
    slots: Vec<Slot>,
    /// Connections begun.
    begun: usize,
    done: u64,
    times: Vec<u32>,
}

/// One connection under way.
struct Slot {
    socket: Option<Socket>,
    begun: Instant,
    spoke: Option<[u8; 3]>,
}

impl<'a> Client<'a> {
    fn new(load: Load, index: usize, tally: &'a Tally) -> Result<Self> {
        let slot = || Slot { socket: None, begun: Instant::now(), spoke: None };
        Ok(Self {
            load,
            index,
            tally,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            slots: std::iter::repeat_with(slot).take(CONCURRENCY).collect(),
            begun: 0,
            done: 0,
            times: Vec::new(),
        })
    }

    fn run(mut self) -> Result<()> {
        for slot in 0..CONCURRENCY {
            self.begin(slot)?;
        }
        let mut events = [EpollEvent::empty(); CONCURRENCY];
        let mut looked = Instant::now();
        while !self.tally.over.load(Ordering::Relaxed) {
            let count = match self.epoll.wait(&mut events, EpollTimeout::from(50_u8)) {
                Err(Errno::EINTR) => continue,
                count => count?,
            };
            for event in events.iter().take(count) {
                self.heard(event.data() as usize, event.events())?;
            }
            self.tally.done.fetch_add(std::mem::take(&mut self.done), Ordering::Relaxed);
            if looked.elapsed() > PATIENCE / 10 {
                looked = Instant::now();
                self.give_up_on_silence()?;
                interrupt::check()?;
            }
        }
        if let Ok(mut times) = self.tally.times.lock() {
            times.append(&mut self.times);
        }
        for slot in &mut self.slots {
            if let Some(socket) = slot.socket.take() {
                client::reset(socket);
            }
        }
        Ok(())
    }

    /// Source, and port there, of the connection number so and so.
    fn from(&self, number: usize) -> (IpAddr, u16) {
        let sources = self.load.sources;
        let ports = PORTS.len() / THREADS;
        let (source, port) = if sources == 1 {
            (0, number % ports)
        } else {
            let (source, turn) = (number % sources, number / sources % PORTS_OF_ONE_OF_MANY);
            (source, (source * PORTS_OF_ONE_OF_MANY + turn) % ports)
        };
        (self.load.place.source(source), PORTS.start + (self.index * ports + port) as u16)
    }

    /// Begins the next connection.
    fn begin(&mut self, slot: usize) -> Result<()> {
        // A refusal may be known at once; not for ever, or the others would starve.
        for _ in 0..64 {
            let (source, port) = self.from(self.begun);
            self.begun += 1;
            let begun = Instant::now();
            match connect(source, port, self.load.place.address(source.is_ipv4(), self.load.port)) {
                Ok(socket) => {
                    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
                    self.epoll.add(&socket, EpollEvent::new(flags, slot as u64))?;
                    self.slots[slot] = Slot { socket: Some(socket), begun, spoke: None };
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.ended(begun, Expect::Reset, || "refused by a reset".into());
                }
                Err(error) => {
                    self.failed(format!("cannot connect from {source}: {error}"));
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        Ok(())
    }

    /// Something came for a connection.
    fn heard(&mut self, number: usize, flags: EpollFlags) -> Result<()> {
        let slot = &mut self.slots[number];
        let Some(socket) = &slot.socket else { return Ok(()) };
        let mut buffer = [0; 512];
        let outcome = match (&*socket).read(&mut buffer) {
            Ok(0) => Some(None),
            Ok(read) => {
                if slot.spoke.is_none() && read >= 3 {
                    slot.spoke = Some([buffer[0], buffer[1], buffer[2]]);
                    if self.load.says_quit && buffer[0] == b'2' {
                        // A server that is gone will be seen to be.
                        let _gone = socket.send(b"QUIT\r\n");
                    }
                }
                // What came with the end was all.
                flags.contains(EpollFlags::EPOLLRDHUP).then_some(None)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(Some(error)),
        };
        let Some(error) = outcome else { return Ok(()) };
        let (begun, spoke) = (slot.begun, slot.spoke);
        slot.socket = None;
        let what = match spoke {
            Some([b'2', ..]) => Expect::Banner,
            Some([b'4', ..]) => Expect::Reply,
            _ => Expect::Reset,
        };
        self.ended(begun, what, || match (what, &error) {
            (Expect::Banner, _) => "admitted".into(),
            (Expect::Reply, _) => "refused with a reply".into(),
            (Expect::Reset, Some(error)) => error.to_string(),
            (Expect::Reset, None) => "closed without a reply".into(),
        });
        self.begin(number)
    }

    fn ended(&mut self, begun: Instant, what: Expect, words: impl FnOnce() -> String) {
        if what != self.load.expect {
            return self.failed(words());
        }
        self.done += 1;
        if self.tally.noting.load(Ordering::Relaxed) {
            self.times.push(begun.elapsed().as_micros() as u32);
        }
    }

    fn failed(&self, words: String) {
        self.tally.failed.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut failure) = self.tally.failure.lock() {
            *failure = Some(words);
        }
    }

    fn give_up_on_silence(&mut self) -> Result<()> {
        for number in 0..CONCURRENCY {
            let slot = &mut self.slots[number];
            if slot.socket.is_none() || slot.begun.elapsed() > PATIENCE {
                if let Some(socket) = slot.socket.take() {
                    client::reset(socket);
                    self.failed(format!("no reply within {PATIENCE:?}"));
                }
                self.begin(number)?;
            }
        }
        Ok(())
    }
}

/// A connection under way from a source and a port of ours.
///
/// # Errors
///
/// When it is refused already, or cannot be begun.
pub fn connect(source: IpAddr, port: u16, to: SocketAddr) -> std::io::Result<Socket> {
    // The same port serves other connections, to other contestants.
    let socket = client::bound(SocketAddr::new(source, port))?;
    client::begin(&socket, to)?;
    Ok(socket)
}

/// Whether something comes within this time.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn wait_readable(socket: &Socket, patience: Duration) -> Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut polled, PollTimeout::try_from(patience)?)? > 0)
}
