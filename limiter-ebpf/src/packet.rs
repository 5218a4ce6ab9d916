//! The TCP segment a listener is about to get, read from the packet.

use aya_ebpf::{bindings::bpf_sock_tuple, programs::SkBuffContext};
use limiter_common::Addr;

/// RFC 9293, 3.1.
pub const IPPROTO_TCP: u8 = 6;
/// IPv6 extension headers walked before giving up (RFC 8200, 4.1 knows seven).
const MAX_EXTENSIONS: usize = 8;

/// TCP flags (RFC 9293, 3.1).
pub const SYN: u8 = 0x02;
/// The peer gives up.
pub const RST: u8 = 0x04;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;

/// Addresses and ports of a segment, in network byte order, in the layout of the kernel's
/// `struct bpf_sock_tuple` for IPv6.
#[repr(C)]
pub struct Tuple {
    remote: [u32; 4],
    local: [u32; 4],
    ports: u32,
    /// The same for IPv4.
    v4: [u32; 3],
    is_v4: bool,
}

impl Tuple {
    /// From the addresses, and the remote and the local port as they stand in the TCP header.
    #[inline(always)]
    pub fn new(is_v4: bool, remote: Addr, local: Addr, ports: u32) -> Self {
        let v4 = [remote.0[3], local.0[3], ports];
        Self { remote: remote.0, local: local.0, ports, v4, is_v4 }
    }

    /// The peer's address.
    #[inline(always)]
    pub fn remote(&self) -> Addr {
        Addr(self.remote)
    }

    /// The address it connects to.
    #[inline(always)]
    pub fn local(&self) -> Addr {
        Addr(self.local)
    }

    /// The peer's port, in host byte order.
    #[inline(always)]
    pub fn remote_port(&self) -> u32 {
        u32::from_be(self.ports) >> 16
    }

    /// The port it connects to, in host byte order.
    #[inline(always)]
    pub fn local_port(&self) -> u32 {
        u32::from_be(self.ports) & 0xffff
    }

    /// As the kernel's look-up takes it, and its length.
    #[inline(always)]
    pub fn for_lookup(&mut self) -> (*mut bpf_sock_tuple, u32) {
        if self.is_v4 { ((&raw mut self.v4).cast(), 12) } else { ((&raw mut *self).cast(), 36) }
    }
}

/// What the gate needs of a segment.
pub struct Segment {
    /// Whose it is.
    pub tuple: Tuple,
    /// Acknowledgement number.
    pub ack: u32,
    /// [`SYN`], [`RST`], [`ACK`].
    pub flags: u8,
}

impl Segment {
    /// Reads the headers; `None` if it is not TCP or not whole. The packet starts at the network
    /// header (`__cgroup_bpf_run_filter_skb`, kernel/bpf/cgroup.c).
    #[inline(always)]
    pub fn read(ctx: &SkBuffContext) -> Option<Self> {
        let version: u8 = ctx.load(0).ok()?;
        let (is_v4, remote, local, offset) = match version >> 4 {
            4 => {
                let header: [u32; 5] = ctx.load(0).ok()?;
                if header[2].to_ne_bytes()[1] != IPPROTO_TCP {
                    return None;
                }
                let remote = Addr::from_v4_word(header[3]);
                (true, remote, Addr::from_v4_word(header[4]), usize::from(version & 0x0f) * 4)
            }
            6 => {
                let header: [u32; 10] = ctx.load(0).ok()?;
                let remote = Addr([header[2], header[3], header[4], header[5]]);
                let local = Addr([header[6], header[7], header[8], header[9]]);
                let load = |offset| ctx.load(offset).ok();
                (false, remote, local, skip_extensions(load, header[1].to_ne_bytes()[2], 40)?)
            }
            _ => return None,
        };
        let tcp: [u32; 4] = ctx.load(offset).ok()?;
        Some(Self {
            tuple: Tuple::new(is_v4, remote, local, tcp[0]),
            ack: u32::from_be(tcp[2]),
            flags: tcp[3].to_ne_bytes()[1],
        })
    }
}

/// Offset of the TCP header behind the extension headers of an IPv6 packet (RFC 8200, 4), of which the
/// `first` stands at `offset`. Two bytes of it are read by `load`. `None` if there is no TCP header: that of
/// a fragment is in the first one only.
#[inline(always)]
pub fn skip_extensions(
    load: impl Fn(usize) -> Option<[u8; 2]>,
    first: u8,
    mut offset: usize,
) -> Option<usize> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;

    let mut next = first;
    for _ in 0..MAX_EXTENSIONS {
        if next == IPPROTO_TCP {
            return Some(offset);
        }
        let header = load(offset)?;
        offset += match next {
            HOP_BY_HOP | ROUTING | DESTINATION => (usize::from(header[1]) + 1) * 8,
            FRAGMENT if u16::from_be_bytes(load(offset + 2)?) >> 3 == 0 => 8,
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => return None,
        };
        next = header[0];
    }
    None
}
