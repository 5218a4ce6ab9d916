// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The loop that all clients of a crowd share.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::record::End;
use super::{Caller, Crowd, Manner, Record};
use limiter_lab::Answer;
use limiter_lab::client::{begin, bound};

/// How long who was told why not waits for the host to close.
const FOR_THE_END: Duration = Duration::from_secs(3);

/// A connection under way.
struct Seat {
    stream: TcpStream,
    record: Record,
    line: Vec<u8>,
    /// Unlike that of any other connection: a timer may outlive its own.
    call: u64,
}

/// When to look again at which caller's connection.
type Timer = Reverse<(Instant, usize, u64)>;

pub struct Engine<'a> {
    crowd: &'a Crowd<'a>,
    poll: Poll,
    seats: Vec<Option<Seat>>,
    timers: BinaryHeap<Timer>,
    /// Who is to connect now.
    next: Vec<usize>,
    calls: u64,
    records: Vec<Record>,
    /// Where the last record of each is.
    last: Vec<Option<usize>>,
}

impl<'a> Engine<'a> {
    pub fn new(crowd: &'a Crowd<'a>) -> Self {
        Self {
            crowd,
            poll: Poll::new().expect("epoll"),
            seats: crowd.callers.iter().map(|_| None).collect(),
            timers: BinaryHeap::new(),
            next: (0..crowd.callers.len()).collect(),
            calls: 0,
            records: Vec::new(),
            last: vec![None; crowd.callers.len()],
        }
    }

    pub fn run(mut self) -> Vec<Record> {
        let mut events = Events::with_capacity(512);
        loop {
            for who in std::mem::take(&mut self.next) {
                self.start(who);
            }
            if self.next.is_empty() && self.seats.iter().all(Option::is_none) {
                return self.records;
            }
            let pause = match self.timers.peek() {
                _ if !self.next.is_empty() => Duration::ZERO,
                Some(Reverse((at, ..))) => at.saturating_duration_since(Instant::now()),
                None => Duration::ZERO,
            };
            match self.poll.poll(&mut events, Some(pause)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => panic!("epoll: {error}"),
                _ => {}
            }
            for event in &events {
                self.ready(event.token().0);
            }
            let now = Instant::now();
            while let Some(Reverse((at, who, call))) = self.timers.peek().copied() {
                if at > now {
                    break;
                }
                self.timers.pop();
                self.due(who, call, now);
            }
        }
    }

    /// Sends the SYN of one client.
    fn start(&mut self, who: usize) {
        let Caller { source, to, manner, .. } = self.crowd.callers[who];
        let socket = bound(SocketAddr::new(source, 0)).expect("an address of the client host");
        let mut record = Record::new(who, SocketAddr::new(source, 0));
        if let Err(error) = begin(&socket, to) {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "a client cannot connect: {error}");
            (record.answer, record.end) = (Answer::Reset, Some(End::Reset));
            record.heard = Some(Instant::now());
            return self.done(record);
        }
        let local = socket.local_addr().ok().and_then(|address| address.as_socket());
        record.local = local.expect("it is bound by now");
        if manner == Manner::NeverAnswers {
            self.crowd.link.expect("a link to be mute on").mute(record.local);
        }
        let mut stream = TcpStream::from_std(StdStream::from(socket));
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(who), both).expect("epoll");
        self.calls += 1;
        let called = record.called;
        self.seats[who] = Some(Seat { stream, record, line: Vec::new(), call: self.calls });
        self.look_at(who, called + self.crowd.patience);
        if let Manner::Closes(after) | Manner::Resets(after) | Manner::Vanishes(after) = manner {
            self.look_at(who, called + after);
        }
    }

    /// Has [`Self::due`] called for the connection that `who` has now.
    fn look_at(&mut self, who: usize, when: Instant) {
        if let Some(seat) = &self.seats[who] {
            self.timers.push(Reverse((when, who, seat.call)));
        }
    }

    /// Something happened to a client's connection.
    fn ready(&mut self, who: usize) {
        let Some(seat) = &mut self.seats[who] else { return };
        let now = Instant::now();
        let record = &mut seat.record;
        if record.connected.is_none() && seat.stream.peer_addr().is_ok() {
            record.connected = Some(now);
        }
        let mut words = [0; 512];
        let end = loop {
            match seat.stream.read(&mut words) {
                Ok(0) => break Some(End::Fin),
                Ok(n) => {
                    record.heard.get_or_insert(now);
                    seat.line.extend(&words[..n]);
                }
                Err(error) => match error.kind() {
                    // Not connected yet.
                    ErrorKind::WouldBlock | ErrorKind::NotConnected => break None,
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                        break Some(End::Reset);
                    }
                    ErrorKind::TimedOut => return self.leave(who),
                    _ => panic!("client {who} hears what no one expects: {error}"),
                },
            }
        };
        if record.answer == Answer::Silence
            && let Some(length) = seat.line.iter().position(|byte| *byte == b'\n')
        {
            let line = String::from_utf8_lossy(&seat.line[..length]);
            record.answer = Answer::Line(line.trim_end().to_owned());
            let stay = if record.served() { self.crowd.callers[who].stay } else { FOR_THE_END };
            let until = record.heard.unwrap_or(now) + stay;
            self.look_at(who, until);
        }
        if end.is_some()
            && let Some(seat) = &mut self.seats[who]
        {
            seat.record.end = end;
            seat.record.heard.get_or_insert(now);
            if seat.record.answer == Answer::Silence {
                seat.record.answer = if end == Some(End::Fin) { Answer::Closed } else { Answer::Reset };
            }
            self.leave(who);
        }
    }

    /// The time has come for a client to do something.
    fn due(&mut self, who: usize, call: u64, now: Instant) {
        let Some(seat) = self.seats[who].as_mut().filter(|seat| seat.call == call) else { return };
        let waited = now - seat.record.called;
        if let Some(heard) = seat.record.heard {
            let stay = if seat.record.served() { self.crowd.callers[who].stay } else { FOR_THE_END };
            if now - heard >= stay {
                self.leave(who);
            }
            return;
        }
        match self.crowd.callers[who].manner {
            Manner::Closes(after) if waited >= after => self.leave(who),
            Manner::Vanishes(after) if waited >= after => {
                self.crowd.link.expect("a link to vanish from").silence(seat.record.local);
                self.reset(who);
            }
            Manner::Resets(after) if waited >= after => self.reset(who),
            _ if waited >= self.crowd.patience => self.reset(who),
            _ => {}
        }
    }

    /// A client closes with a reset.
    fn reset(&mut self, who: usize) {
        if let Some(seat) = &self.seats[who] {
            SockRef::from(&seat.stream).set_linger(Some(Duration::ZERO)).expect("a socket can linger");
        }
        self.leave(who);
    }

    /// A client closes.
    fn leave(&mut self, who: usize) {
        if let Some(seat) = self.seats[who].take() {
            drop(seat.stream);
            self.done(seat.record);
        }
    }

    /// Notes what came of a connection.
    fn done(&mut self, mut record: Record) {
        record.left = Instant::now();
        if self.crowd.again.is_some_and(|until| record.left < until) {
            self.next.push(record.who);
        }
        // Who never pauses is turned away a hundred thousand times a second.
        let last = self.last[record.who].and_then(|last| self.records.get_mut(last));
        if let Some(last) = last.filter(|last| last.turned_away() && record.turned_away()) {
            record.times = last.times + 1;
            if record.silence() < last.silence() {
                last.times += 1;
            } else {
                *last = record;
            }
            return;
        }
        self.last[record.who] = Some(self.records.len());
        self.records.push(record);
    }
}
