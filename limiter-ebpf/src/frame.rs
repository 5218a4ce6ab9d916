// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The TCP segment in a frame as it comes from the wire.

use aya_ebpf::programs::XdpContext;
use limiter_common::{Addr, Syn};

use crate::packet::{ACK, Bytes, IPPROTO_TCP, SYN, skip_extensions, word};

/// `EtherType` numbers (IEEE 802), in network byte order.
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
/// IEEE 802.1Q, 9.6: customer and service tags.
const CUSTOMER_TAG: u16 = 0x8100_u16.to_be();
const SERVICE_TAG: u16 = 0x88a8_u16.to_be();

/// What the shield needs of a frame.
pub struct Frame {
    /// The peer's address.
    pub remote: Addr,
    /// The address it is for.
    pub local: Addr,
    /// Remote and local port, as they stand in the TCP header.
    ports: [u16; 2],
    /// [`SYN`] and the others.
    flags: u8,
}

impl Frame {
    /// Reads a frame that looks as nearly all do: IPv4 without tags and options. `None` of any other: what stands at
    /// fixed places costs little to read.
    #[inline(always)]
    pub fn plain_v4(ctx: &XdpContext) -> Option<Self> {
        /// Version 4, and a header of five words.
        const NO_OPTIONS: u8 = 0x45;
        // As far as the flags of TCP, as words.
        let words: [u16; 24] = Bytes::of_frame(ctx).load(0)?;
        let ([version, _], [_, protocol]) = (words[7].to_ne_bytes(), words[11].to_ne_bytes());
        let is_plain = words[6] == IPV4 && version == NO_OPTIONS && protocol == IPPROTO_TCP;
        if !is_plain || is_later_fragment(words[10]) {
            return None;
        }
        Some(Self {
            remote: Addr::from_v4_word(word(words[13], words[14])),
            local: Addr::from_v4_word(word(words[15], words[16])),
            ports: [words[17], words[18]],
            flags: words[23].to_ne_bytes()[1],
        })
    }

    /// The same of IPv6, without extension headers.
    #[inline(always)]
    pub fn plain_v6(ctx: &XdpContext) -> Option<Self> {
        let words: [u16; 34] = Bytes::of_frame(ctx).load(0)?;
        let [next, _] = words[10].to_ne_bytes();
        if words[6] != IPV6 || next != IPPROTO_TCP {
            return None;
        }
        let address = |at: usize| {
            let half = |at: usize| word(words[at], words[at + 1]);
            Addr([half(at), half(at + 2), half(at + 4), half(at + 6)])
        };
        Some(Self {
            remote: address(11),
            local: address(19),
            ports: [words[27], words[28]],
            flags: words[33].to_ne_bytes()[1],
        })
    }

    /// Reads any frame; `None` if there is no TCP header, whole and in the frame: what begins in a later fragment, or
    /// behind more headers than anyone needs, is judged when the kernel has put it together.
    #[inline(always)]
    pub fn read(ctx: &XdpContext) -> Option<Self> {
        let bytes = Bytes::of_frame(ctx);
        let mut network = 14;
        let mut kind: u16 = bytes.load(12)?;
        // A customer's tag within a service's (QinQ), and no more.
        for _ in 0..2 {
            if kind == CUSTOMER_TAG || kind == SERVICE_TAG {
                kind = bytes.load(network + 2)?;
                network += 4;
            }
        }
        let transport = match kind {
            IPV4 => {
                let header: [u16; 5] = bytes.load(network)?;
                if header[4].to_ne_bytes()[1] != IPPROTO_TCP || is_later_fragment(header[3]) {
                    return None;
                }
                network + usize::from(header[0].to_ne_bytes()[0] & 0x0f) * 4
            }
            IPV6 => {
                let next: [u8; 2] = bytes.load(network + 6)?;
                skip_extensions(|offset| bytes.load(offset), next[0], network + 40)?
            }
            _ => return None,
        };
        let ports: [u16; 2] = bytes.load(transport)?;
        let flags: [u8; 2] = bytes.load(transport + 12)?;
        let (remote, local) = bytes.addresses(kind == IPV4, network)?;
        Some(Self { remote, local, ports, flags: flags[1] })
    }

    /// The port it is for, in host byte order.
    #[inline(always)]
    pub fn local_port(&self) -> u32 {
        u32::from(u16::from_be(self.ports[1]))
    }

    /// Whether it would begin a connection.
    #[inline(always)]
    pub fn begins(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// What it would begin.
    #[inline(always)]
    pub fn syn(&self) -> Syn {
        Syn::new(&self.remote, &self.local, self.ports[1])
    }
}

/// Whether an IPv4 packet is a fragment, but not the first one, by the word that has the offset (RFC 791, 3.1).
#[inline(always)]
const fn is_later_fragment(word: u16) -> bool {
    u16::from_be(word) & 0x1fff != 0
}
