// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The client's end of the wire, below its kernel's IP.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Instant;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};

use super::Segment;
use limiter_lab::Lab;

/// Frames sent or caught in one system call.
const BATCH: usize = 512;
/// Longer ones are cut: headers, and a mail server's greeting.
const FRAME: usize = 512;
/// Room for what arrives while the test is busy: some 10,000 frames.
const RECEIVE_BUFFER: usize = 16 << 20;

/// A packet socket (packet(7)) on the client host's interface.
pub struct Wire {
    socket: OwnedFd,
    buffers: Vec<[u8; FRAME]>,
}

impl Wire {
    /// Catches what the mail host sends to `address`.
    pub fn at(lab: &Lab, address: IpAddr) -> Self {
        lab.client.run(|| Self::open(&for_address(address))).expect("root may open a packet socket")
    }

    /// Sends, and catches nothing.
    pub fn to_send(lab: &Lab) -> Self {
        lab.client.run(|| Self::open(&[statement(RETURN, 0)])).expect("root may open a packet socket")
    }

    fn open(filter: &[SockFilter]) -> io::Result<Self> {
        // Protocol 0: nothing is caught before it is bound, and by then the filter is there.
        let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)?;
        let socket: OwnedFd = socket.into();
        SockRef::from(&socket).attach_filter(filter)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        set(&socket, libc::PACKET_IGNORE_OUTGOING)?;
        // Straight to the driver: what the test sends at once is sent at once.
        set(&socket, libc::PACKET_QDISC_BYPASS)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: nix::net::if_::if_nametoindex("wire")? as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is one of packet sockets, as long as said.
        let bound = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
        };
        if bound == 0 { Ok(Self { socket, buffers: vec![[0; FRAME]; BATCH] }) } else { Err(last_error()) }
    }

    /// Sends one segment.
    pub fn send(&self, segment: &Segment) {
        self.send_frames(&[segment.frame()]);
    }

    /// Sends all of them, with nothing in between.
    pub fn send_all<'a>(&self, segments: impl IntoIterator<Item = &'a Segment>) {
        let frames: Vec<Vec<u8>> = segments.into_iter().map(Segment::frame).collect();
        self.send_frames(&frames);
    }

    /// Sends frames made before.
    pub fn send_frames<F: AsRef<[u8]>>(&self, frames: &[F]) {
        for batch in frames.chunks(BATCH) {
            let mut slices: Vec<libc::iovec> = batch.iter().map(|frame| slice(frame.as_ref())).collect();
            let mut messages: Vec<libc::mmsghdr> = slices.iter_mut().map(message).collect();
            let mut sent = 0;
            while sent < messages.len() {
                let rest = &mut messages[sent..];
                // SAFETY: the messages point to slices and frames that outlive the call.
                let n = unsafe {
                    libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0)
                };
                if let Ok(n) = usize::try_from(n) {
                    sent += n;
                } else {
                    // Otherwise the driver's queue is full: again.
                    let error = last_error();
                    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "cannot send on the wire: {error}");
                    std::thread::yield_now();
                }
            }
        }
    }

    /// What has arrived; waits for something until `deadline`.
    pub fn receive(&mut self, deadline: Instant) -> Vec<Segment> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, timeout).expect("a socket can be polled");
        let mut slices: Vec<libc::iovec> = self.buffers.iter_mut().map(|buffer| slice(buffer)).collect();
        let mut messages: Vec<libc::mmsghdr> = slices.iter_mut().map(message).collect();
        // SAFETY: the messages point to slices and buffers of ours, which are borrowed mutably.
        let n = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(n) = usize::try_from(n) else {
            assert_eq!(last_error().kind(), io::ErrorKind::WouldBlock, "cannot receive from the wire");
            return Vec::new();
        };
        let caught = messages.iter().zip(&self.buffers).take(n);
        caught.filter_map(|(message, buffer)| Segment::parse(&buffer[..message.msg_len as usize])).collect()
    }
}

fn last_error() -> io::Error {
    io::Error::last_os_error()
}

/// Turns on an option of packet sockets.
fn set(socket: &OwnedFd, option: i32) -> io::Result<()> {
    let on: i32 = 1;
    // SAFETY: the value is an int, as these options take it.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const on).cast(), 4) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

fn slice(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn message(slice: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: a message header of zeros is one without address and control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = slice;
    header.msg_iovlen = 1;
    libc::mmsghdr { msg_hdr: header, msg_len: 0 }
}

const LOAD_HALF: u16 = 0x28;
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

fn statement(code: u16, k: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, k)
}

/// A classic BPF program that lets frames to `address` through.
fn for_address(address: IpAddr) -> Vec<SockFilter> {
    const ETHER_TYPE: u32 = 12;
    let (ether_type, offset, octets) = match address {
        IpAddr::V4(v4) => (libc::ETH_P_IP, 14 + 16, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::ETH_P_IPV6, 14 + 24, v6.octets().to_vec()),
    };
    let words = octets.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    let loads = (0..).map(|n| statement(LOAD_WORD, offset + 4 * n));
    let ether_type = (statement(LOAD_HALF, ETHER_TYPE), ether_type as u32);
    let equals: Vec<_> = [ether_type].into_iter().chain(loads.zip(words)).collect();
    let len = equals.len();
    let mut program = Vec::new();
    for (n, (load, value)) in equals.into_iter().enumerate() {
        let to_the_end = 2 * (len - n - 1) + 1;
        let jf = u8::try_from(to_the_end).expect("a short program");
        program.push(load);
        program.push(SockFilter::new(JUMP_IF_EQUAL, 0, jf, value));
    }
    program.push(statement(RETURN, u32::MAX));
    program.push(statement(RETURN, 0));
    program
}
