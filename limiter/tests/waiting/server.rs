// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A mail server that keeps a journal: who came when, and when it had let go of them.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use limiter_lab::Lab;
use limiter_lab::sink::listener;

/// What the server says first.
const GREETING: &[u8] = b"220 mx.example.net ESMTP\r\n";
/// How soon it notices that it is to end.
const BREATH: Duration = Duration::from_millis(50);
const LISTENER: Token = Token(usize::MAX);

/// A connection that was served.
#[derive(Debug, Clone, Copy)]
pub struct Visit {
    pub remote: SocketAddr,
    pub arrived: Instant,
    /// When the server closed, and so the place was free.
    pub left: Option<Instant>,
    /// The kernel's name of the socket.
    pub cookie: u64,
}

#[derive(Default)]
struct Shared {
    journal: Mutex<Vec<Visit>>,
    done: AtomicBool,
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Vec<Visit>> {
        self.journal.lock().expect("no panic holds it")
    }
}

/// Serves until it is dropped: greets at once, and closes as soon as the client does.
///
/// One thread, so that a greeting waits for no other.
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A dual-stack server at `port` of the mail host, whose queues hold `backlog`.
    pub fn start(lab: &Lab, port: u16, backlog: i32) -> Self {
        let listener = listener(lab, SocketAddr::from(([0_u16; 8], port)), backlog);
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let mut service = Service::new(TcpListener::from_std(listener), theirs).expect("epoll");
        Self { shared, thread: Some(std::thread::spawn(move || service.run().expect("epoll works"))) }
    }

    /// Who came so far, in this order.
    pub fn visits(&self) -> Vec<Visit> {
        self.shared.journal().clone()
    }

    /// The sockets it has accepted so far, as the kernel names them.
    pub fn cookies(&self) -> HashSet<u64> {
        self.shared.journal().iter().map(|visit| visit.cookie).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What runs in the thread. A connection is known by its place in the journal.
struct Service {
    listener: TcpListener,
    poll: Poll,
    open: HashMap<usize, TcpStream>,
    shared: Arc<Shared>,
}

impl Service {
    fn new(mut listener: TcpListener, shared: Arc<Shared>) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self { listener, poll, open: HashMap::new(), shared })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        while !self.shared.done.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, Some(BREATH)) {
                // A machine that was stopped for a moment goes on.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(visit) => self.listen(visit),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (mut stream, remote) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let arrived = Instant::now();
            let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
            let cookie = SockRef::from(&stream).cookie()?;
            let mut journal = self.shared.journal();
            journal.push(Visit { remote, arrived, left: None, cookie });
            let visit = journal.len() - 1;
            drop(journal);
            self.poll.registry().register(&mut stream, Token(visit), Interest::READABLE)?;
            // Who is gone already is no fault of the server; the next read tells.
            let _ = stream.write(GREETING);
            self.open.insert(visit, stream);
        }
    }

    /// Hears a client, and closes when it has.
    fn listen(&mut self, visit: usize) {
        let Some(stream) = self.open.get_mut(&visit) else { return };
        let mut words = [0; 512];
        let gone = loop {
            match stream.read(&mut words) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        if gone && let Some(stream) = self.open.remove(&visit) {
            let left = Instant::now();
            drop(StdStream::from(stream));
            self.shared.journal()[visit].left = Some(left);
        }
    }
}
