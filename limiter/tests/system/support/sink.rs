//! A mail server that says little, and remembers who held how much of it at once.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex};

use socket2::{Domain, SockRef, Socket, Type};

use super::Lab;

/// How many connections a source has, and had at most, from accept to close.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub now: u32,
    pub peak: u32,
    pub ever: u32,
}

#[derive(Default)]
struct Ledger {
    tallies: HashMap<IpAddr, Tally>,
    inodes: HashSet<u64>,
}

/// Serves until it is dropped: greets, answers `NOOP`, and on `QUIT` closes first.
pub struct Sink {
    ledger: Arc<Mutex<Ledger>>,
    listener: Arc<TcpListener>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

/// A listener in the mail host that accepts nothing by itself. `::` is dual-stack.
pub fn listener(lab: &Lab, at: SocketAddr, backlog: i32) -> TcpListener {
    lab.host.run(|| {
        let domain = if at.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
        if at.is_ipv6() {
            let dual = at.ip().is_unspecified();
            socket.set_only_v6(!dual).expect("an IPv6 socket can be either");
        }
        socket.set_reuse_address(true).expect("a socket option");
        socket.bind(&at.into()).expect("an address of the mail host");
        socket.listen(backlog).expect("a bound socket can listen");
        socket.into()
    })
}

impl Sink {
    /// A dual-stack server at `port` of the mail host.
    pub fn start(lab: &Lab, port: u16) -> Self {
        let listener = Arc::new(listener(lab, SocketAddr::from(([0_u16; 8], port)), 512));
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (open, shared) = (Arc::clone(&listener), Arc::clone(&ledger));
        let acceptor = std::thread::spawn(move || {
            while let Ok((stream, remote)) = open.accept() {
                let remote = remote.ip().to_canonical();
                shared.lock().expect("no panic holds it").arrives(remote, &stream);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(&shared, &stream, remote));
            }
        });
        Self { ledger, listener, acceptor: Some(acceptor) }
    }

    /// What `source` has and had.
    pub fn tally(&self, source: IpAddr) -> Tally {
        self.ledger.lock().expect("no panic holds it").tallies.get(&source).copied().unwrap_or_default()
    }

    /// Whether the socket with this inode is one that it accepted.
    pub fn accepted(&self, inode: u64) -> bool {
        self.ledger.lock().expect("no panic holds it").inodes.contains(&inode)
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
    fn arrives(&mut self, source: IpAddr, stream: &TcpStream) {
        use std::os::unix::fs::MetadataExt as _;
        let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
        self.inodes.insert(std::fs::metadata(path).expect("an open file of ours").ino());
        let tally = self.tallies.entry(source).or_default();
        tally.now += 1;
        tally.ever += 1;
        tally.peak = tally.peak.max(tally.now);
    }
}

fn serve(ledger: &Mutex<Ledger>, stream: &TcpStream, source: IpAddr) {
    let _ = converse(stream);
    // Before the close: at no time may what is remembered be more than what there is.
    if let Some(tally) = ledger.lock().expect("no panic holds it").tallies.get_mut(&source) {
        tally.now -= 1;
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn converse(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"220 sink.example.net ESMTP\r\n")?;
    for line in BufReader::new(stream).lines() {
        match line?.trim_end() {
            "QUIT" => return stream.write_all(b"221 2.0.0 Bye\r\n"),
            _ => stream.write_all(b"250 2.0.0 Ok\r\n")?,
        }
    }
    Ok(())
}
