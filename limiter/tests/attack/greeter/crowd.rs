// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Many refused clients, of which each reads what it is told to the end.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Registry, Token, net::TcpStream};
use rustls::{ClientConfig, ClientConnection};

use limiter_lab::client::{begin, bound};
use limiter_lab::limiter::HOSTNAME;

/// How often the crowd looks who has waited for too long.
const LOOK: Duration = Duration::from_millis(100);

/// One client.
pub struct Call {
    /// Its address, without a port.
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// What it says before it hears anything.
    pub first: &'static [u8],
    /// What it has to hear.
    pub line: String,
}

/// Clients, and how they come.
pub struct Crowd<'a> {
    pub clients: u32,
    /// Those under way at a time.
    pub at_once: usize,
    /// Those that come in a second at most.
    pub a_second: Option<u32>,
    /// How long one waits for the end.
    pub patience: Duration,
    pub tls: Option<&'a Arc<ClientConfig>>,
    /// The client of a number.
    pub call: &'a (dyn Fn(u32) -> Call + Sync),
}

/// What became of them.
#[derive(Default)]
pub struct Told {
    /// Those who heard the whole line, and then the end.
    pub whole: u32,
    /// What became of the others, and of how many of them.
    pub faults: BTreeMap<String, u32>,
    /// From the SYN to the end, of those who heard it all.
    times: Vec<Duration>,
    took: Duration,
}

/// A client under way.
struct Client {
    call: Call,
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    begun: Instant,
    is_connected: bool,
    heard: Vec<u8>,
}

/// How a client heard the end.
enum End {
    /// As it should.
    Closed,
    /// Otherwise.
    Fault(String),
}

impl Crowd<'_> {
    /// Has all of them call, from the calling thread's network namespace, and waits for the last.
    pub fn run(&self) -> io::Result<Told> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1024);
        let mut slots: Vec<Option<Client>> = (0..self.at_once).map(|_| None).collect();
        let mut free: Vec<usize> = (0..self.at_once).collect();
        let (mut told, mut begun) = (Told::default(), 0);
        let start = Instant::now();
        let (mut looked, mut due) = (start, start);
        while begun < self.clients || free.len() < self.at_once {
            while begun < self.clients && due <= Instant::now() {
                let Some(slot) = free.pop() else { break };
                match Client::begin((self.call)(begun), self.tls, poll.registry(), Token(slot)) {
                    Ok(client) => slots[slot] = Some(client),
                    Err(error) => {
                        free.push(slot);
                        told.fault(format!("at its SYN: {error}"));
                    }
                }
                begun += 1;
                // Those that are late stay so: they do not come all at once.
                due = self.a_second.map_or(start, |rate| Instant::now() + Duration::from_secs(1) / rate);
            }
            match poll.poll(&mut events, Some(Duration::from_millis(5))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                let Token(slot) = event.token();
                // Of one that is over by now: the next one has its slot, which does no harm.
                let Some(client) = &mut slots[slot] else { continue };
                if let Some(end) = client.advance() {
                    told.ends(client, end);
                    slots[slot] = None;
                    free.push(slot);
                }
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                for (slot, place) in slots.iter_mut().enumerate() {
                    if let Some(client) = place.take_if(|client| client.begun.elapsed() > self.patience) {
                        told.ends(&client, End::Fault(format!("silence for {:?}", self.patience)));
                        free.push(slot);
                    }
                }
            }
        }
        told.took = start.elapsed();
        Ok(told)
    }
}

impl Client {
    fn begin(
        call: Call,
        tls: Option<&Arc<ClientConfig>>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let begun = Instant::now();
        let socket = bound(call.from)?;
        begin(&socket, call.to)?;
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls = tls.map(|config| {
            let name = HOSTNAME.try_into().expect("a name");
            let mut tls = ClientConnection::new(Arc::clone(config), name).expect("a client of TLS");
            // It goes with the end of the handshake.
            tls.writer().write_all(call.first).expect("memory");
            Box::new(tls)
        });
        Ok(Self { call, stream, tls, begun, is_connected: false, heard: Vec::new() })
    }

    /// Goes on as far as possible; how it ends, if it does.
    fn advance(&mut self) -> Option<End> {
        if !self.is_connected {
            match self.stream.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return Some(End::Fault(format!("at its SYN: {error}"))),
            }
            if self.stream.peer_addr().is_err() {
                return None;
            }
            self.is_connected = true;
            if self.tls.is_none()
                && !self.call.first.is_empty()
                && let Err(error) = self.stream.write_all(self.call.first)
            {
                return Some(End::Fault(format!("at its first words: {error}")));
            }
        }
        let ended = match &mut self.tls {
            None => hear(&mut self.stream, &mut self.heard),
            Some(tls) => hear_tls(&mut self.stream, tls, &mut self.heard),
        };
        match ended {
            Ok(()) => Some(End::Closed),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(End::Fault(error.to_string())),
        }
    }
}

/// Hears what there is: `Ok` at the end of it, `WouldBlock` where there is more to come.
fn hear(from: &mut impl io::Read, heard: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => heard.extend(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The same inside TLS, where the end is an alert of its own.
fn hear_tls(stream: &mut TcpStream, tls: &mut ClientConnection, heard: &mut Vec<u8>) -> io::Result<()> {
    loop {
        while tls.wants_write() {
            if tls.write_tls(stream)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        match hear(&mut tls.reader(), heard) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            ended => return ended,
        }
        if tls.read_tls(stream)? == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed in the midst of TLS"));
        }
        tls.process_new_packets().map_err(io::Error::other)?;
    }
}

impl Told {
    fn ends(&mut self, client: &Client, end: End) {
        let Client { call, heard, begun, .. } = client;
        let is_whole = *heard == call.line.as_bytes();
        match end {
            End::Closed if is_whole => {
                self.whole += 1;
                self.times.push(begun.elapsed());
            }
            End::Closed => self.fault(format!("closed after {:?}", String::from_utf8_lossy(heard))),
            End::Fault(fault) => {
                let what =
                    if is_whole { "the whole line".to_owned() } else { format!("{} bytes", heard.len()) };
                let connected = if client.is_connected { "connected, " } else { "" };
                self.fault(format!("{connected}{fault}, after {what}"));
            }
        }
    }

    /// With what became of some more.
    pub fn with(mut self, more: Self) -> Self {
        self.whole += more.whole;
        for (fault, number) in more.faults {
            *self.faults.entry(fault).or_default() += number;
        }
        self.times.extend(more.times);
        self.took += more.took;
        self
    }

    fn fault(&mut self, fault: String) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// So many out of a hundred took no longer; 100 is the slowest.
    pub fn within(&self, percent: usize) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times
            .get((times.len() * percent / 100).min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

impl fmt::Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.whole + self.faults.values().sum::<u32>();
        write!(
            out,
            "{} of {all} heard the whole line, within {:.1?} (median), {:.1?} (p99), {:.1?} (all); {:.1?} together",
            self.whole,
            self.within(50),
            self.within(99),
            self.within(100),
            self.took
        )?;
        self.faults.iter().try_for_each(|(fault, number)| write!(out, "\n  {number}: {fault}"))
    }
}
