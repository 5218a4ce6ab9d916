// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! As much of a TCP segment as it takes to see what becomes of a connection.

use std::net::Ipv4Addr;

/// A segment over IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// From where.
    pub from: (Ipv4Addr, u16),
    /// To where.
    pub to: (Ipv4Addr, u16),
    /// Number of its first byte.
    pub sequence: u32,
    /// What is set of FIN (1), SYN (2), RST (4), ACK (16) and the others of RFC 9293, 3.1.
    pub flags: u8,
    /// Its data.
    pub data: &'a [u8],
}

/// Flags of a segment.
pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

/// Reads a packet that begins with its IPv4 header; nothing if it is no TCP, a later fragment, or cut off.
pub fn parse(packet: &[u8]) -> Option<Segment<'_>> {
    let first = *packet.first()?;
    let (version, header) = (first >> 4, usize::from(first & 15) * 4);
    let total = usize::from(half(packet, 2)?);
    let is_later_fragment = half(packet, 6)? & 0x1fff != 0;
    if version != 4 || header < 20 || *packet.get(9)? != 6 || is_later_fragment {
        return None;
    }
    let address = |at| Some(Ipv4Addr::from(word(packet, at)?));
    let (source, destination) = (address(12)?, address(16)?);
    // What follows is padding of the wire.
    let tcp = packet.get(header..total)?;
    let offset = usize::from(*tcp.get(12)? >> 4) * 4;
    Some(Segment {
        from: (source, half(tcp, 0)?),
        to: (destination, half(tcp, 2)?),
        sequence: word(tcp, 4)?,
        flags: *tcp.get(13)?,
        data: tcp.get(offset..).filter(|_| offset >= 20)?,
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `220 hi` from 192.0.2.25, port 25, with two bytes of padding behind it.
    const GREETING: [u8; 48] = [
        0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 25, 198, 51, 100, 7, //
        0, 25, 0x80, 1, 0, 0, 1, 0, 0, 0, 0, 9, 0x50, 0x18, 0, 0, 0, 0, 0, 0, //
        b'2', b'2', b'0', b' ', b'h', b'i', 0, 0,
    ];

    #[test]
    fn a_segment_is_read_without_the_padding_behind_it() {
        let segment = parse(&GREETING).unwrap();
        assert_eq!(segment.from, (Ipv4Addr::new(192, 0, 2, 25), 25));
        assert_eq!(segment.to, (Ipv4Addr::new(198, 51, 100, 7), 0x8001));
        assert_eq!((segment.sequence, segment.flags, segment.data), (256, 0x18, b"220 hi".as_slice()));
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        for length in 0..46 {
            assert_eq!(parse(&GREETING[..length]), None, "{length}");
        }
    }
}
