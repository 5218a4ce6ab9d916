// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A client that believes it is connected.

use std::{
    io,
    net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream},
    num::NonZeroU32,
};

use etherparse::TcpOptionElement;
use limiter_lab::{SOON, eventually};
use nix::{
    libc,
    net::if_::if_nametoindex,
    setsockopt_impl, sockopt_impl,
    sys::socket::{GetSockOpt as _, SetSockOpt as _},
};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use super::{
    super::{held::Held, options::Timestamp, probe::Prober},
    net::Lab,
    wire::Wire,
};
use crate::sock_diag::Diag;

sockopt_impl!(LongestSegment, SetOnly, libc::IPPROTO_TCP, libc::TCP_MAXSEG, u32);

/// Whom a client calls, and who listens.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    listen: &'static str,
    call: &'static str,
    /// The listener is bound to the interface.
    bound: bool,
}

impl Way {
    /// Where its listener is.
    pub fn address(self) -> SocketAddr {
        self.listen.parse().unwrap()
    }
}

pub const V4: Way = Way { listen: "192.0.2.1:25", call: "192.0.2.1:25", bound: false };
pub const V6: Way = Way { listen: "[2001:db8::1]:25", call: "[2001:db8::1]:25", bound: false };
/// A client of either family of a dual-stack listener, link-local addresses, and a listener of one interface.
pub const WAYS: [Way; 7] = [
    V4,
    V6,
    Way { listen: "[::]:25", call: "192.0.2.1:25", bound: false },
    Way { listen: "[::]:25", call: "[2001:db8::1]:25", bound: false },
    Way { listen: "[::]:25", call: "[fe80::1]:25", bound: false },
    Way { listen: "0.0.0.0:25", call: "192.0.2.1:25", bound: true },
    Way { listen: "[::]:25", call: "[fe80::1]:25", bound: true },
];

/// Options that the client does without: a sysctl below `net/ipv4`, if any.
pub const WITHOUT: [&[&str]; 5] = [
    &[],
    &["tcp_timestamps"],
    &["tcp_window_scaling"],
    &["tcp_sack"],
    &["tcp_timestamps", "tcp_window_scaling", "tcp_sack"],
];

/// Calls `test` for each way, with and without options.
pub fn each(mut test: impl FnMut(&Lab, Way)) {
    let Some(lab) = Lab::new() else { return };
    for without in WITHOUT {
        for option in WITHOUT[4] {
            let value = if without.contains(option) { "0" } else { "1" };
            lab.client.sysctl(&format!("ipv4/{option}"), value).unwrap();
        }
        for way in WAYS {
            println!("{way:?} without {without:?}");
            test(&lab, way);
        }
    }
}

/// One held handshake.
pub struct Scene {
    pub listener: TcpListener,
    pub client: TcpStream,
    pub held: Held,
    pub wire: Wire,
    pub diag: Diag,
    pub prober: Prober,
}

impl Scene {
    pub fn new(lab: &Lab, way: Way) -> Self {
        Self::with_mss(lab, way, None)
    }

    /// With a client that takes segments of `mss` bytes at most.
    pub fn with_mss(lab: &Lab, way: Way, mss: Option<u32>) -> Self {
        let listener = lab.host.run(|| listen_soon(way));
        let wire = Wire::at(&lab.host);
        let client = lab.client.run(|| call(way, mss)).unwrap();
        let mut held = watch(lab, &wire);
        held.bound_ifindex = if way.bound { lab.host.run(wire_index) } else { 0 };
        held.remote = client.local_addr().unwrap();
        held.local = client.peer_addr().unwrap();
        let index = lab.host.run(wire_index);
        for address in [&mut held.remote, &mut held.local] {
            if let SocketAddr::V6(address) = address {
                // As the host numbers its interfaces.
                address.set_scope_id(if address.scope_id() == 0 { 0 } else { index });
            }
        }
        let (diag, prober) = lab.host.run(|| (Diag::open().unwrap(), Prober::open().unwrap()));
        Self { listener, client, held, wire, diag, prober }
    }

    /// ACKs are not dropped any more.
    pub fn open_the_gate(&self) {
        SockRef::from(&self.listener).detach_filter().unwrap();
    }

    /// Removes the request; it must be there.
    #[track_caller]
    pub fn remove_the_request(&self) {
        let found = self.diag.find(&self.held.tuple()).unwrap().expect("there is a request");
        assert_eq!(found.state, 3, "TCP_SYN_RECV");
        assert!(self.diag.destroy(&self.held.tuple(), found.cookie).unwrap());
    }
}

fn wire_index() -> u32 {
    if_nametoindex("wire").unwrap()
}

/// The same, as soon as the one of the scene before is gone: a test beside this one that starts a process has for a
/// moment, between fork and exec, a copy of each descriptor.
fn listen_soon(way: Way) -> TcpListener {
    eventually("the address is free again", SOON, || listen(way).map_err(|error| error.to_string()))
}

/// A listener that gets SYNs only.
fn listen(way: Way) -> io::Result<TcpListener> {
    /// `BPF_LD | BPF_B | BPF_ABS`, `BPF_JMP | BPF_JSET | BPF_K`, `BPF_RET | BPF_K`.
    const LOAD: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let address = way.address();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if way.bound {
        socket.bind_device_by_index_v4(NonZeroU32::new(wire_index()))?;
    }
    socket.attach_filter(&[
        // The flags of the TCP header, which the packet begins with here.
        SockFilter::new(LOAD, 0, 0, 13),
        SockFilter::new(JUMP_IF_SET, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn call(way: Way, mss: Option<u32>) -> io::Result<TcpStream> {
    let mut address: SocketAddr = way.call.parse().unwrap();
    if let SocketAddr::V6(v6) = &mut address {
        if v6.ip().is_unicast_link_local() {
            *v6 = SocketAddrV6::new(*v6.ip(), v6.port(), 0, wire_index());
        }
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(mss) = mss {
        LongestSegment.set(&socket, &mss)?;
    }
    socket.connect(&address.into())?;
    socket.set_read_timeout(Some(SOON))?;
    Ok(socket.into())
}

/// Reads a handshake from the wire; without the addresses.
fn watch(lab: &Lab, wire: &Wire) -> Held {
    let scale = |option| match option {
        TcpOptionElement::WindowScale(scale) => Some(scale),
        _ => None,
    };
    let sack = |option| matches!(option, TcpOptionElement::SelectiveAcknowledgementPermitted).then_some(());
    let mss = |option| match option {
        TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
        _ => None,
    };
    let syn = wire.next("the SYN", |s| s.tcp.syn && !s.tcp.ack);
    let answer = wire.next("the SYN-ACK", |s| s.tcp.syn && s.tcp.ack);
    let ack = wire.next("the ACK", |s| !s.is_of_the_host() && s.tcp.ack);
    assert_eq!(ack.timestamps().map(|(_, echo)| echo), answer.timestamps().map(|(value, _)| value));
    let clock =
        lab.host.run(|| Timestamp.get(&Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).unwrap());
    let tsval = answer.timestamps().map_or(0, |(value, _)| value);
    let unset = SocketAddr::from(([0; 4], 0));
    Held {
        remote: unset,
        local: unset,
        snt_isn: answer.tcp.sequence_number,
        rcv_isn: syn.tcp.sequence_number,
        ts_off: tsval.wrapping_sub(clock),
        snt_tsval: tsval,
        ts_recent: syn.timestamps().map_or(0, |(value, _)| value),
        mss: syn.option(mss).unwrap(),
        window: ack.tcp.window_size,
        rcv_wnd: answer.tcp.window_size.into(),
        snd_wscale: syn.option(scale).unwrap_or(0),
        rcv_wscale: answer.option(scale).unwrap_or(0),
        wscale_ok: answer.option(scale).is_some(),
        sack_ok: answer.option(sack).is_some(),
        tstamp_ok: answer.timestamps().is_some(),
        bound_ifindex: 0,
        mark: 0,
    }
}
