// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A mail server that says little, and remembers who held how much of it at once.
#![expect(clippy::expect_used, reason = "the test fails, and says where")]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{Lab, SOON, eventually};

/// How many connections a source has had: at most at one time, and in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// At most at one time.
    pub peak: usize,
    /// In all.
    pub ever: usize,
}

/// What is known of one source.
#[derive(Default)]
struct Source {
    tally: Tally,
    live: Vec<Arc<TcpStream>>,
}

#[derive(Default)]
struct Ledger {
    sources: HashMap<IpAddr, Source>,
    cookies: HashSet<u64>,
}

/// Serves until it is dropped: greets, answers `NOOP`, and on `QUIT` closes first.
pub struct Sink {
    ledger: Arc<Mutex<Ledger>>,
    listener: Arc<TcpListener>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

/// A listener in the mail host that accepts nothing by itself. `::` is dual-stack.
///
/// One that was closed may stay for a moment: a process that another thread has begun to start holds it, until
/// it is executed.
#[track_caller]
pub fn listener(lab: &Lab, at: SocketAddr, backlog: i32) -> TcpListener {
    eventually(&format!("the mail host listens at {at}"), SOON, || {
        lab.host.run(|| listen(at, backlog)).map_err(|error| error.to_string())
    })
}

/// A listener in the calling thread's network namespace.
fn listen(at: SocketAddr, backlog: i32) -> std::io::Result<TcpListener> {
    let domain = if at.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    if at.is_ipv6() {
        let dual = at.ip().is_unspecified();
        socket.set_only_v6(!dual)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

impl Sink {
    /// A dual-stack server at `port` of the mail host.
    #[track_caller]
    pub fn start(lab: &Lab, port: u16) -> Self {
        Self::with_backlog(lab, port, 512)
    }

    /// The same, whose queues hold `backlog`.
    #[track_caller]
    pub fn with_backlog(lab: &Lab, port: u16, backlog: i32) -> Self {
        Self::serve(listener(lab, SocketAddr::from(([0_u16; 8], port)), backlog))
    }

    /// Serves what `listener` accepts.
    pub fn serve(listener: TcpListener) -> Self {
        let listener = Arc::new(listener);
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (open, shared) = (Arc::clone(&listener), Arc::clone(&ledger));
        let acceptor = std::thread::spawn(move || {
            while let Ok((stream, remote)) = open.accept() {
                let (stream, remote) = (Arc::new(stream), remote.ip().to_canonical());
                shared.lock().expect("no panic holds it").arrives(remote, &stream);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || converse_with(&shared, &stream, remote));
            }
        });
        Self { ledger, listener, acceptor: Some(acceptor) }
    }

    /// What `source` has and had.
    pub fn tally(&self, source: IpAddr) -> Tally {
        self.ledger
            .lock()
            .expect("no panic holds it")
            .sources
            .get(&source)
            .map_or_else(Tally::default, |source| source.tally)
    }

    /// Says `words` to everyone who is served.
    pub fn say(&self, words: &str) {
        let ledger = self.ledger.lock().expect("no panic holds it");
        for stream in ledger.sources.values().flat_map(|source| &source.live) {
            (&**stream).write_all(words.as_bytes()).expect("there is room in the socket's buffer");
        }
    }

    /// Whether the socket with this cookie is one that it accepted.
    pub fn accepted(&self, cookie: u64) -> bool {
        self.ledger.lock().expect("no panic holds it").cookies.contains(&cookie)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // The acceptor's `accept` fails, and it ends.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Ledger {
    fn arrives(&mut self, remote: IpAddr, stream: &Arc<TcpStream>) {
        self.cookies.insert(SockRef::from(&**stream).cookie().expect("each socket has one"));
        let Source { tally, live } = self.sources.entry(remote).or_default();
        live.push(Arc::clone(stream));
        // One that was reset has no peer any more. What has one now was there when the last one came, so
        // these were all there at one time.
        let at_once = live.iter().filter(|stream| stream.peer_addr().is_ok()).count();
        tally.peak = tally.peak.max(at_once);
        tally.ever += 1;
    }

    fn leaves(&mut self, remote: IpAddr, stream: &Arc<TcpStream>) {
        if let Some(source) = self.sources.get_mut(&remote) {
            source.live.retain(|other| !Arc::ptr_eq(other, stream));
        }
    }
}

fn converse_with(ledger: &Mutex<Ledger>, stream: &Arc<TcpStream>, remote: IpAddr) {
    let _ = converse(stream);
    // Before the close: what is remembered is never more than what there is.
    ledger.lock().expect("no panic holds it").leaves(remote, stream);
    let _ = stream.shutdown(Shutdown::Both);
}

fn converse(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"220 mail.example.net ESMTP\r\n")?;
    for line in BufReader::new(stream).lines() {
        match line?.trim_end() {
            "QUIT" => return stream.write_all(b"221 2.0.0 Bye\r\n"),
            _ => stream.write_all(b"250 2.0.0 Ok\r\n")?,
        }
    }
    Ok(())
}
