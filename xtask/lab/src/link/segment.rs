// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whose segment it is that passes.

use std::net::SocketAddr;

use crate::segment::{self, flag};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client host to the mail host.
    ToHost,
    /// Back.
    ToClient,
}

/// A segment on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The end of it that is the client's.
    pub client: SocketAddr,
    /// Which way it goes.
    pub direction: Direction,
    /// A SYN or SYN-ACK.
    pub syn: bool,
}

impl Segment {
    /// Reads an IP packet; `None` if there is no TCP header right behind that of IP.
    pub fn parse(packet: &[u8], direction: Direction) -> Option<Self> {
        let segment = segment::parse(packet)?;
        let client = match direction {
            Direction::ToHost => segment.from,
            Direction::ToClient => segment.to,
        };
        Some(Self { client, direction, syn: segment.flags & flag::SYN != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_told_by_its_client_whichever_way_it_goes() {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1];
        packet.extend([0xc3, 0x50, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0]);
        let parsed = Segment::parse(&packet, Direction::ToHost).unwrap();
        assert_eq!((parsed.client, parsed.syn), ("198.51.100.7:50000".parse().unwrap(), true));
        let parsed = Segment::parse(&packet, Direction::ToClient).unwrap();
        assert_eq!(parsed.client, "192.0.2.1:25".parse().unwrap());
        packet[9] = 17;
        assert_eq!(Segment::parse(&packet, Direction::ToHost), None, "UDP");
    }
}
