// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! As much of a TCP segment as it takes to see what becomes of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// From where.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// Number of its first byte.
    pub sequence: u32,
    /// What is set of FIN (1), SYN (2), RST (4), ACK (16) and the others of RFC 9293, 3.1.
    pub flags: u8,
    /// Its data.
    pub data: &'a [u8],
}

/// Flags of a segment.
pub mod flag {
    /// The sender has sent all.
    pub const FIN: u8 = 1;
    /// The first of a connection.
    pub const SYN: u8 = 2;
    /// The connection is over.
    pub const RST: u8 = 4;
    /// It acknowledges.
    pub const ACK: u8 = 16;
}

/// Reads a packet that begins with its IP header; nothing if TCP is not right behind that, or it is a later fragment, or
/// cut off.
pub fn parse(packet: &[u8]) -> Option<Segment<'_>> {
    let (source, destination, header, total): (IpAddr, IpAddr, usize, usize) = match packet.first()? >> 4 {
        4 => {
            let is_later_fragment = half(packet, 6)? & 0x1fff != 0;
            let header = usize::from(packet[0] & 15) * 4;
            if header < 20 || *packet.get(9)? != TCP || is_later_fragment {
                return None;
            }
            let address = |at| Some(IpAddr::V4(Ipv4Addr::from(word(packet, at)?)));
            (address(12)?, address(16)?, header, usize::from(half(packet, 2)?))
        }
        6 if *packet.get(6)? == TCP => {
            let address = |at: usize| {
                let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(octets)))
            };
            (address(8)?, address(24)?, 40, 40 + usize::from(half(packet, 4)?))
        }
        _ => return None,
    };
    // What follows is padding of the wire.
    let tcp = packet.get(header..total)?;
    let offset = usize::from(*tcp.get(12)? >> 4) * 4;
    Some(Segment {
        from: SocketAddr::new(source, half(tcp, 0)?),
        to: SocketAddr::new(destination, half(tcp, 2)?),
        sequence: word(tcp, 4)?,
        flags: *tcp.get(13)?,
        data: tcp.get(offset..).filter(|_| offset >= 20)?,
    })
}

/// Its number in a header of IP.
const TCP: u8 = 6;

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
        assert_eq!(segment.from, "192.0.2.25:25".parse().unwrap());
        assert_eq!(segment.to, "198.51.100.7:32769".parse().unwrap());
        assert_eq!((segment.sequence, segment.flags, segment.data), (256, 0x18, b"220 hi".as_slice()));
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        for length in 0..46 {
            assert_eq!(parse(&GREETING[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_segment_over_ipv6_is_read_alike() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 26, 6, 64];
        packet.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("2001:db8:7::7".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(&GREETING[20..]);
        let segment = parse(&packet).unwrap();
        assert_eq!(segment.from, "[2001:db8::1]:25".parse().unwrap());
        assert_eq!(segment.to, "[2001:db8:7::7]:32769".parse().unwrap());
        assert_eq!((segment.sequence, segment.flags, segment.data), (256, 0x18, b"220 hi".as_slice()));
        packet[6] = 17;
        assert_eq!(parse(&packet), None, "UDP");
    }
}
