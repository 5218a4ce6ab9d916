// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A lab whose client host has thousands of addresses, and the doors of its mail host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::Deref;

use nix::libc;
use socket2::{SockFilter, Socket};

use limiter_lab::client::{begin, bound};
use limiter_lab::command::run;
use limiter_lab::random::Random;
use limiter_lab::sink::listener;
use limiter_lab::{Family, Lab, V4, V6};

/// The program under test.
const BINARY: &str = env!("CARGO_BIN_EXE_limiter");

/// Workers: one for each CPU of a small machine.
pub const WORKERS: u16 = 2;
/// Doors of each service: each worker has one, and so has each of the slow ways. The ports of a service share
/// its counts.
pub const DOORS: u16 = WORKERS + 4;

/// For benchmarks and for documentation (RFC 2544, RFC 3849); all these addresses are the client host's.
const NETWORKS: [(Family, &str); 2] = [(V4, "198.18.0.0/15"), (V6, "2001:db8:100::/40")];

/// Sources that have a connection most of the time, often as many as they may: the first of all.
const BUSY: u64 = 24;
/// Sources that come now and then, and are forgotten in between: these many from here on.
const OCCASIONAL: (u64, u64) = (256, 2048);

/// The port of the `door`th door of service 0, SMTP, or 1, IMAP.
pub const fn port(service: u16, door: u16) -> u16 {
    [25, 143][service as usize] + door
}

pub struct ChurnLab(Lab);

impl Deref for ChurnLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl ChurnLab {
    /// `None` without the privileges it takes.
    pub fn new() -> Option<Self> {
        let lab = Self(Lab::new(BINARY)?);
        for (family, network) in NETWORKS {
            let mut there = lab.client.command("ip");
            there.args(["route", "add", "local", network, "dev", "lo"]);
            run(there).unwrap();
            let mut route = lab.host.command("ip");
            let gateway = family.source().to_string();
            route.args(["route", "add", network, "via", &gateway, "dev", "wire", "onlink"]);
            run(route).unwrap();
        }
        lab.client.sysctl("ipv6/ip_nonlocal_bind", "1").unwrap();
        for netns in [&lab.client, &lab.host] {
            netns.sysctl("ipv4/ip_local_port_range", "1024 65535").unwrap();
            // A kernel that says that its table overflows says so often.
            netns.sysctl("ipv4/tcp_max_tw_buckets", "1000000").unwrap();
            // Handshakes and goodbyes that nobody answers are over within seconds.
            netns.sysctl("ipv4/tcp_synack_retries", "2").unwrap();
            netns.sysctl("ipv4/tcp_orphan_retries", "2").unwrap();
        }
        Some(lab)
    }

    /// The `door`th door of each service, for both families.
    pub fn doors(&self, door: u16, backlog: i32) -> [Door; 2] {
        [0, 1].map(|service| {
            let port = port(service, door);
            let listener = listener(self, SocketAddr::from(([0_u16; 8], port)), backlog);
            listener.set_nonblocking(true).expect("a listener can be non-blocking");
            Door { listener, port }
        })
    }
}

/// A listener of the mail host.
pub struct Door {
    pub listener: TcpListener,
    port: u16,
}

/// An end of a connection that calls.
pub struct Client {
    pub socket: Socket,
    pub address: SocketAddr,
}

/// Both ends of a connection.
pub struct Pair {
    pub client: Socket,
    pub server: Socket,
}

/// The address with this number; 256 each are in a /24, or a /48.
fn source(family: Family, number: u64) -> IpAddr {
    let number = number as u16;
    match family.host {
        IpAddr::V4(_) => Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + u32::from(number)).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0x100 | number >> 8, number & 0xff, 0, 0, 0, 7).into(),
    }
}

/// From now on it takes nothing of what comes.
pub fn deafen(socket: &Socket) {
    let nothing = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    socket.attach_filter(&[nothing]).expect("a socket can have a filter");
}

impl Client {
    /// Ends what [`Door::call_deaf`] began.
    pub fn hear(&self) {
        self.socket.detach_filter().expect("it has a filter");
    }
}

impl Door {
    /// Knocks from some source; the calling thread is in the client's network namespace.
    pub fn call(&self, random: &mut Random) -> Client {
        let busy = random.chance(60);
        self.knock(random, busy, |_| ())
    }

    /// Knocks, and does not hear the answer until it is told to.
    pub fn call_deaf(&self, random: &mut Random) -> Client {
        self.knock(random, false, deafen)
    }

    fn knock(&self, random: &mut Random, busy: bool, prepare: impl FnOnce(&Socket)) -> Client {
        let family = random.one_of(&[V4, V6]);
        let number = if busy { 1 + random.below(BUSY) } else { OCCASIONAL.0 + random.below(OCCASIONAL.1) };
        let socket =
            bound(SocketAddr::new(source(family, number), 0)).expect("an address of the client host");
        prepare(&socket);
        if let Err(error) = begin(&socket, family.port(self.port)) {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "a socket does not connect: {error}");
        }
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        Client { socket, address: address.expect("it is bound") }
    }

    /// The next connection in the queue, and who called.
    pub fn accept(&self) -> Option<(Socket, SocketAddr)> {
        match self.listener.accept() {
            Ok((server, remote)) => {
                server.set_nonblocking(true).expect("a socket can be non-blocking");
                Some((server.into(), SocketAddr::new(remote.ip().to_canonical(), remote.port())))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("a listener does not accept: {error}"),
        }
    }
}
