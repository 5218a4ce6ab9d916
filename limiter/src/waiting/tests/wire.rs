// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mail host's end of the wire.

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use etherparse::{SlicedPacket, TcpHeader, TcpOptionElement, TransportSlice};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use limiter_lab::{Namespace, SOON, deadline};

/// Of the listener.
pub const PORT: u16 = 25;

/// A TCP segment that was seen.
#[derive(Debug, Clone)]
pub struct Segment {
    pub tcp: TcpHeader,
    pub payload: Vec<u8>,
    /// When it was read here: a little later than it was sent.
    pub at: Instant,
}

impl Segment {
    pub fn is_of_the_host(&self) -> bool {
        self.tcp.source_port == PORT
    }

    /// What `pick` finds among its options.
    pub fn option<T>(&self, pick: impl Fn(TcpOptionElement) -> Option<T>) -> Option<T> {
        self.tcp.options_iterator().flatten().find_map(pick)
    }

    pub fn timestamps(&self) -> Option<(u32, u32)> {
        self.option(|option| match option {
            TcpOptionElement::Timestamp(value, echo) => Some((value, echo)),
            _ => None,
        })
    }
}

/// A packet socket (packet(7)): what is sent and what is received, in order.
pub struct Wire(Socket);

impl Wire {
    pub fn at(host: &Namespace) -> Self {
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = host.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(all))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self(socket)
    }

    /// The first segment from here on that `wanted` accepts; fails if there is none soon.
    #[track_caller]
    pub fn next(&self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Segment {
        let deadline = deadline(SOON);
        let mut frame = vec![0; 1 << 16];
        let mut others = Vec::new();
        while Instant::now() < deadline {
            let Ok(len) = (&self.0).read(&mut frame) else { continue };
            match parse(&frame[..len]) {
                Some(segment) if wanted(&segment) => return segment,
                other => others.extend(other),
            }
        }
        panic!("not on the wire within {SOON:?}: {what}, but {others:#?}")
    }
}

fn parse(frame: &[u8]) -> Option<Segment> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
    Some(Segment { tcp: tcp.to_header(), payload: tcp.payload().to_vec(), at: Instant::now() })
}
