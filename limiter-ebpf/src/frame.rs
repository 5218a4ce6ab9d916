//! The TCP segment in a frame as it comes from the wire.

use aya_ebpf::programs::XdpContext;
use limiter_common::Addr;

use crate::packet::{IPPROTO_TCP, Tuple, skip_extensions};

/// `EtherType` numbers (IEEE 802), in network byte order.
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
/// IEEE 802.1Q, 9.6: customer and service tags.
const CUSTOMER_TAG: u16 = 0x8100_u16.to_be();
const SERVICE_TAG: u16 = 0x88a8_u16.to_be();

/// Where things are in a frame.
pub struct Frame {
    network: usize,
    is_v4: bool,
    /// Remote and local port, as they stand in the TCP header.
    ports: [u16; 2],
    /// [`crate::packet::SYN`] and the others.
    pub flags: u8,
}

impl Frame {
    /// Finds the TCP header; `None` if there is none, whole and in the frame: what begins in a later
    /// fragment, or behind more headers than anyone needs, is judged when the kernel has put it together.
    #[inline(always)]
    pub fn read(ctx: &XdpContext) -> Option<Self> {
        let mut network = 14;
        let mut kind: u16 = load(ctx, 12)?;
        // A customer's tag within a service's (QinQ), and no more.
        for _ in 0..2 {
            if kind == CUSTOMER_TAG || kind == SERVICE_TAG {
                kind = load(ctx, network + 2)?;
                network += 4;
            }
        }
        let transport = match kind {
            IPV4 => {
                let header: [u16; 5] = load(ctx, network)?;
                let is_later_fragment = u16::from_be(header[3]) & 0x1fff != 0;
                if header[4].to_ne_bytes()[1] != IPPROTO_TCP || is_later_fragment {
                    return None;
                }
                network + usize::from(header[0].to_ne_bytes()[0] & 0x0f) * 4
            }
            IPV6 => {
                let next: [u8; 2] = load(ctx, network + 6)?;
                skip_extensions(|offset| load(ctx, offset), next[0], network + 40)?
            }
            _ => return None,
        };
        let ports: [u16; 2] = load(ctx, transport)?;
        let flags: [u8; 2] = load(ctx, transport + 12)?;
        Some(Self { network, is_v4: kind == IPV4, ports, flags: flags[1] })
    }

    /// The port it is for, in host byte order.
    #[inline(always)]
    pub fn local_port(&self) -> u32 {
        u32::from(u16::from_be(self.ports[1]))
    }

    /// The segment's addresses and ports.
    #[inline(always)]
    pub fn tuple(&self, ctx: &XdpContext) -> Option<Tuple> {
        let (remote, local) = if self.is_v4 {
            let [a, b, c, d] = load(ctx, self.network + 12)?;
            (Addr::from_v4_word(word(a, b)), Addr::from_v4_word(word(c, d)))
        } else {
            (address(ctx, self.network + 8)?, address(ctx, self.network + 24)?)
        };
        Some(Tuple::new(self.is_v4, remote, local, word(self.ports[0], self.ports[1])))
    }
}

/// The IPv6 address at `offset`.
#[inline(always)]
fn address(ctx: &XdpContext, offset: usize) -> Option<Addr> {
    let [a, b, c, d, e, f, g, h] = load(ctx, offset)?;
    Some(Addr([word(a, b), word(c, d), word(e, f), word(g, h)]))
}

/// Two halves in the order of memory. An address in a frame is only aligned to 2 bytes.
#[inline(always)]
fn word(first: u16, second: u16) -> u32 {
    u32::from(first) | u32::from(second) << 16
}

/// Reads from the frame; `None` behind its end.
#[inline(always)]
fn load<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: within the frame, as the verifier checks. Every header begins at an even offset, and drivers
    // align frames to more than that.
    Some(unsafe { (start as *const T).read() })
}
