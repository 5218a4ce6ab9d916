//! The TCP segment in a frame as it comes from the wire.

use aya_ebpf::programs::XdpContext;

use crate::packet::{Bytes, IPPROTO_TCP, Tuple, skip_extensions, word};

/// `EtherType` numbers (IEEE 802), in network byte order.
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
/// IEEE 802.1Q, 9.6: customer and service tags.
const CUSTOMER_TAG: u16 = 0x8100_u16.to_be();
const SERVICE_TAG: u16 = 0x88a8_u16.to_be();

/// Where things are in a frame.
pub struct Frame {
    bytes: Bytes,
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
                let is_later_fragment = u16::from_be(header[3]) & 0x1fff != 0;
                if header[4].to_ne_bytes()[1] != IPPROTO_TCP || is_later_fragment {
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
        Some(Self { bytes, network, is_v4: kind == IPV4, ports, flags: flags[1] })
    }

    /// The port it is for, in host byte order.
    #[inline(always)]
    pub fn local_port(&self) -> u32 {
        u32::from(u16::from_be(self.ports[1]))
    }

    /// The segment's addresses and ports.
    #[inline(always)]
    pub fn tuple(&self) -> Option<Tuple> {
        let Self { bytes, network, is_v4, ports, .. } = *self;
        let addresses =
            if is_v4 { bytes.v4_addresses(network + 12)? } else { bytes.v6_addresses(network + 8)? };
        Some(Tuple::new(is_v4, addresses, word(ports[0], ports[1])))
    }
}
