// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! As much of a TCP segment as the link has to know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToHost,
    ToClient,
}

/// A segment on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The end of it that is the client's.
    pub client: SocketAddr,
    pub direction: Direction,
    /// A SYN or SYN-ACK.
    pub syn: bool,
}

impl Segment {
    /// Reads an IP packet; `None` if there is no TCP header right behind that of IP.
    pub fn parse(packet: &[u8], direction: Direction) -> Option<Self> {
        let v4 =
            |at: usize| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)));
        let v6 = |at: usize| {
            Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)))
        };
        let (protocol, from, to, tcp) = match packet.first()? >> 4 {
            4 => (packet.get(9)?, v4(12)?, v4(16)?, usize::from(packet[0] & 0xf) * 4),
            6 => (packet.get(6)?, v6(8)?, v6(24)?, 40),
            _ => return None,
        };
        if i32::from(*protocol) != nix::libc::IPPROTO_TCP {
            return None;
        }
        let port = |at: usize| Some(u16::from_be_bytes([*packet.get(tcp + at)?, *packet.get(tcp + at + 1)?]));
        let client = match direction {
            Direction::ToHost => SocketAddr::new(from, port(0)?),
            Direction::ToClient => SocketAddr::new(to, port(2)?),
        };
        Some(Self { client, direction, syn: packet.get(tcp + 13)? & 0x02 != 0 })
    }
}

#[test]
fn a_segment_is_told_by_its_client_whichever_way_it_goes() {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1];
    packet.extend([0xc3, 0x50, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02]);
    let parsed = Segment::parse(&packet, Direction::ToHost).unwrap();
    assert_eq!((parsed.client, parsed.syn), ("198.51.100.7:50000".parse().unwrap(), true));
    let parsed = Segment::parse(&packet, Direction::ToClient).unwrap();
    assert_eq!(parsed.client, "192.0.2.1:25".parse().unwrap());
    packet[9] = 17;
    assert_eq!(Segment::parse(&packet, Direction::ToHost), None, "UDP");
}
