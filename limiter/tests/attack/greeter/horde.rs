// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Thousands of clients that keep the greeter busy, each in the same manner, and come again when they are let go.

use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::full::{family, source};
use crate::lab::AttackLab;
use limiter_lab::client::{begin, bound};
use limiter_lab::let_time_pass;

/// How often they are looked at.
const TICK: Duration = Duration::from_millis(20);
/// What a client that floods says in all.
const FLOOD: usize = 1 << 20;
/// And at once.
const GUSH: usize = 16 << 10;

/// What each of them does.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Reads a byte a second.
    Slow,
    /// Neither reads nor says anything.
    NeverReads,
    /// Says this, and reads nothing.
    Says(Vec<u8>),
    /// Sends a megabyte.
    Floods,
    /// Says this byte by byte.
    Drips(Vec<u8>),
}

impl Manner {
    /// How often a client does something.
    fn pace(&self) -> Duration {
        match self {
            Self::Floods => TICK,
            Self::Drips(_) => Duration::from_millis(100),
            _ => Duration::from_secs(1),
        }
    }
}

/// What became of them.
#[derive(Default)]
pub struct Tally {
    pub begun: AtomicU64,
    pub reset: AtomicU64,
    over: AtomicBool,
}

/// They go on until this is dropped.
pub struct Horde {
    pub tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

struct Client {
    stream: TcpStream,
    begun: Instant,
    said: usize,
}

/// So many of each of the first `sources`.
#[derive(Clone, Copy)]
pub struct Size {
    pub sources: u16,
    pub of_each: usize,
}

impl Horde {
    /// Calls at `port`; each client stays for `life`, or until it is reset.
    pub fn start(lab: &AttackLab, manner: Manner, size: Size, port: u16, life: Duration) -> Self {
        let tally = Arc::new(Tally::default());
        let theirs = Arc::clone(&tally);
        // A thread is where the one is that started it.
        let thread = lab.client.run(|| {
            std::thread::spawn(move || {
                // They are other machines: this one is the mail host's.
                let _as_it_is = rustix::process::setpriority_process(None, 15);
                run(&theirs, &manner, size, port, life);
            })
        });
        Self { tally, thread: Some(thread) }
    }
}

impl Drop for Horde {
    fn drop(&mut self) {
        self.tally.over.store(true, Ordering::Relaxed);
        let died = self.thread.take().is_some_and(|thread| thread.join().is_err());
        assert!(!died || std::thread::panicking(), "the horde died");
    }
}

fn run(tally: &Tally, manner: &Manner, size: Size, port: u16, life: Duration) {
    let now = Instant::now();
    let pace = manner.pace();
    let all = size.of_each * usize::from(size.sources);
    // Not all in the same moment.
    let mut slots: Vec<(Instant, Option<Client>)> =
        (0..all).map(|n| (now + pace * n as u32 / all as u32, None)).collect();
    while !tally.over.load(Ordering::Relaxed) {
        let now = Instant::now();
        for (number, (due, place)) in slots.iter_mut().enumerate().filter(|(_, (due, _))| *due <= now) {
            *due = now + pace;
            let is_there = place.as_mut().is_some_and(|client| {
                let is_there = client.goes_on(manner);
                tally.reset.fetch_add(u64::from(!is_there), Ordering::Relaxed);
                is_there && client.begun.elapsed() < life
            });
            if !is_there {
                let source = source((number % usize::from(size.sources)) as u16);
                *place = Client::begin(SocketAddr::new(source, 0), family(source).port(port));
                tally.begun.fetch_add(1, Ordering::Relaxed);
            }
        }
        let_time_pass(TICK.saturating_sub(now.elapsed()), "the pace of the horde");
    }
}

impl Client {
    /// `None` where every port is taken, for the moment.
    fn begin(from: SocketAddr, to: SocketAddr) -> Option<Self> {
        let socket = bound(from).ok()?;
        begin(&socket, to).ok()?;
        Some(Self { stream: socket.into(), begun: Instant::now(), said: 0 })
    }

    /// Does what it does; whether it is still connected, or on its way.
    fn goes_on(&mut self, manner: &Manner) -> bool {
        if !matches!(self.stream.take_error(), Ok(None)) {
            return false;
        }
        let done = match manner {
            Manner::NeverReads => return true,
            Manner::Slow => self.stream.read(&mut [0]).map(drop),
            Manner::Says(words) => self.say(&words[self.said.min(words.len())..]),
            Manner::Drips(words) => self.say(words.get(self.said..=self.said).unwrap_or_default()),
            Manner::Floods if self.said < FLOOD => self.say(&[b'x'; GUSH]),
            Manner::Floods => Ok(()),
        };
        done.map_or_else(|error| matches!(error.kind(), WouldBlock | Interrupted), |()| true)
    }

    fn say(&mut self, words: &[u8]) -> std::io::Result<()> {
        if !words.is_empty() {
            self.said += self.stream.write(words)?;
        }
        Ok(())
    }
}
