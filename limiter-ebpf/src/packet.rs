// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The TCP segment a listener is about to get, read from the packet.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::bpf_sock_tuple,
    programs::{SkBuffContext, XdpContext},
};
use limiter_common::{
    Addr,
    waiting::{Flow, Said},
};

/// RFC 9293, 3.1.
pub const IPPROTO_TCP: u8 = 6;
/// IPv6 extension headers walked before giving up (RFC 8200, 4.1 knows seven).
const MAX_EXTENSIONS: usize = 8;

/// TCP flags (RFC 9293, 3.1): the peer has said everything.
pub const FIN: u8 = 0x01;
/// The peer begins.
pub const SYN: u8 = 0x02;
/// The peer gives up.
pub const RST: u8 = 0x04;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;

/// Addresses and ports of a segment, in network byte order, in the layout of the kernel's
/// `struct bpf_sock_tuple` for IPv6.
#[repr(C)]
pub struct Tuple {
    /// The same for IPv4. In front, so that what is behind is as long as for IPv6: older verifiers (6.1) do not see
    /// that whoever takes this one takes its length, too.
    v4: [u32; 3],
    remote: [u32; 4],
    local: [u32; 4],
    ports: u32,
    is_v4: bool,
}

impl Tuple {
    /// From remote and local address, and the remote and the local port as they stand in the TCP header.
    #[inline(always)]
    pub fn new(is_v4: bool, (remote, local): (Addr, Addr), ports: u32) -> Self {
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

    /// The same as the key of a record.
    #[inline(always)]
    pub fn flow(&self) -> Flow {
        Flow {
            remote: self.remote(),
            local: self.local(),
            remote_port: self.remote_port() as u16,
            local_port: self.local_port() as u16,
            zero: 0,
        }
    }

    /// As the kernel's look-up takes it, and its length.
    #[inline(always)]
    pub fn for_lookup(&mut self) -> (*mut bpf_sock_tuple, u32) {
        let (is_v4, start) = (self.is_v4, (&raw mut *self).cast::<u8>());
        if is_v4 {
            (start.cast(), 12)
        } else {
            // SAFETY: within the tuple.
            (unsafe { start.add(offset_of!(Self, remote)) }.cast(), 36)
        }
    }
}

/// What the gate needs of a segment.
pub struct Segment {
    bytes: Bytes,
    is_v4: bool,
    /// Remote and local port, as they stand in the TCP header.
    ports: u32,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The window, not scaled.
    pub window: u16,
    /// [`FIN`], [`SYN`], [`RST`], [`ACK`].
    pub flags: u8,
    /// How many bytes of data it has.
    pub data: u32,
}

impl Segment {
    /// Reads the headers; `None` if it is not TCP or not whole. The packet starts at the network header
    /// (`__cgroup_bpf_run_filter_skb`, kernel/bpf/cgroup.c), and all of its headers are in the part that can be
    /// read in place, because the kernel has read them in the same way (`tcp_v4_rcv`, `net/ipv4/tcp_ipv4.c`).
    #[inline(always)]
    pub fn read(ctx: &SkBuffContext) -> Option<Self> {
        let bytes = Bytes::of_packet(ctx);
        let [version, _]: [u8; 2] = bytes.load(0)?;
        let transport = match version >> 4 {
            4 => {
                let [_, protocol]: [u8; 2] = bytes.load(8)?;
                if protocol != IPPROTO_TCP {
                    return None;
                }
                usize::from(version & 0x0f) * 4
            }
            6 => {
                let [next, _]: [u8; 2] = bytes.load(6)?;
                skip_extensions(|offset| bytes.load(offset), next, 40)?
            }
            _ => return None,
        };
        let tcp: [u16; 8] = bytes.load(transport)?;
        let [offset, flags] = tcp[6].to_ne_bytes();
        let header = usize::from(offset >> 4) * 4;
        // SAFETY: the kernel hands the program a valid context.
        let len = unsafe { (*ctx.skb.skb).len };
        Some(Self {
            bytes,
            is_v4: version >> 4 == 4,
            ports: word(tcp[0], tcp[1]),
            seq: u32::from_be(word(tcp[2], tcp[3])),
            ack: u32::from_be(word(tcp[4], tcp[5])),
            window: u16::from_be(tcp[7]),
            flags,
            data: len.wrapping_sub((transport + header) as u32),
        })
    }

    /// The port that the peer has asked for, in host byte order. That of the socket which gets the segment may be
    /// another one, where a firewall rule has chosen the socket (TPROXY).
    #[inline(always)]
    pub fn local_port(&self) -> u32 {
        u32::from_be(self.ports) & 0xffff
    }

    /// What it says, as far as a handshake may end with it.
    #[inline(always)]
    pub fn said(&self) -> Said {
        let has = |flag: u8| self.flags & flag != 0;
        Said {
            seq: self.seq,
            end: self.seq.wrapping_add(self.data + u32::from(has(SYN)) + u32::from(has(FIN))),
            ack: has(ACK).then_some(self.ack),
            syn: has(SYN),
            rst: has(RST),
        }
    }

    /// The segment's addresses and ports.
    #[inline(always)]
    pub fn tuple(&self) -> Option<Tuple> {
        let bytes = self.bytes;
        Some(Tuple::new(self.is_v4, bytes.addresses(self.is_v4, 0)?, self.ports))
    }
}

/// The part of a packet that a program can read in place.
#[derive(Clone, Copy)]
pub struct Bytes {
    start: usize,
    end: usize,
}

impl Bytes {
    /// Of a packet on its way to a socket.
    #[inline(always)]
    fn of_packet(ctx: &SkBuffContext) -> Self {
        // SAFETY: the kernel hands the program a valid context.
        let (start, end) = unsafe { ((*ctx.skb.skb).data, (*ctx.skb.skb).data_end) };
        Self { start: start as usize, end: end as usize }
    }

    /// Of a frame.
    #[inline(always)]
    pub fn of_frame(ctx: &XdpContext) -> Self {
        // SAFETY: the kernel hands the program a valid context. Volatile: for a function that is not inlined the optimiser
        // would read both beforehand, and hand them on as numbers.
        let (start, end) = unsafe {
            ((&raw const (*ctx.ctx).data).read_volatile(), (&raw const (*ctx.ctx).data_end).read_volatile())
        };
        Self { start: start as usize, end: end as usize }
    }

    /// Reads what is at `offset`; `None` behind the end.
    #[inline(always)]
    pub fn load<T: Copy>(self, offset: usize) -> Option<T> {
        let start = self.start + offset;
        if start + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: within the packet, as the verifier checks. Every header begins at an even offset, and drivers
        // align packets to more than that; nothing that has to be aligned to more than two bytes is read.
        Some(unsafe { (start as *const T).read() })
    }

    /// Remote and local address of the IPv4 or IPv6 header at `network`.
    #[inline(always)]
    pub fn addresses(self, is_v4: bool, network: usize) -> Option<(Addr, Addr)> {
        if is_v4 {
            let [a, b, c, d] = self.load(network + 12)?;
            return Some((Addr::from_v4_word(word(a, b)), Addr::from_v4_word(word(c, d))));
        }
        let address =
            |[a, b, c, d, e, f, g, h]: [u16; 8]| Addr([word(a, b), word(c, d), word(e, f), word(g, h)]);
        Some((address(self.load(network + 8)?), address(self.load(network + 24)?)))
    }
}

/// Two halves in the order of memory: an address in a packet is only sure to be aligned to 2 bytes.
#[inline(always)]
pub fn word(first: u16, second: u16) -> u32 {
    u32::from(first) | u32::from(second) << 16
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
