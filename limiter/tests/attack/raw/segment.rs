// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One TCP segment, and the Ethernet frame it travels in.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, SlicedPacket, TcpHeader};
use etherparse::{NetSlice, TransportSlice};

use crate::lab::{CLIENT_HARDWARE, HOST_HARDWARE};

/// TCP flags (RFC 9293, 3.1).
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// A segment, as it is to be sent or as it was caught.
#[derive(Debug, Clone)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// TCP options, padded to words.
    pub options: Vec<u8>,
    /// IPv6 extension headers before the TCP header: the number of each, and its bytes, of which the
    /// first is overwritten with the number of the next header.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub payload: Vec<u8>,
}

/// An extension header of eight bytes with nothing but padding in it (RFC 8200, 4.2): `kind` is 0 for
/// hop-by-hop options, 60 for destination options.
pub fn extension(kind: u8) -> (u8, Vec<u8>) {
    const PAD_N: u8 = 1;
    (kind, vec![0, 0, PAD_N, 4, 0, 0, 0, 0])
}

impl Segment {
    pub fn new(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32) -> Self {
        Self { from, to, seq, ack, flags, options: Vec::new(), extensions: Vec::new(), payload: Vec::new() }
    }

    pub fn with_options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    pub fn with_payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub fn behind(mut self, extensions: impl IntoIterator<Item = (u8, Vec<u8>)>) -> Self {
        self.extensions = extensions.into_iter().collect();
        self
    }

    /// Whether of SYN, ACK, FIN and RST exactly these are set.
    pub fn is(&self, flags: u8) -> bool {
        self.flags & (SYN | ACK | FIN | RST) == flags
    }

    /// The frame in which the client host would send it to the mail host.
    pub fn frame(&self) -> Vec<u8> {
        let mut tcp = TcpHeader::new(self.from.port(), self.to.port(), self.seq, u16::MAX);
        tcp.acknowledgment_number = self.ack;
        let bit = |flag: u8| self.flags & flag != 0;
        (tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack) = (bit(FIN), bit(SYN), bit(RST), bit(PSH), bit(ACK));
        tcp.set_options_raw(&self.options).expect("at most 40 bytes of options");
        let extensions: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
        let behind_ip = extensions + tcp.header_len() + self.payload.len();

        let mut frame = Vec::with_capacity(54 + behind_ip);
        let ethernet =
            |ether_type| Ethernet2Header { source: CLIENT_HARDWARE, destination: HOST_HARDWARE, ether_type };
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                assert!(self.extensions.is_empty(), "extension headers are IPv6's");
                let len = u16::try_from(behind_ip).expect("a packet of that size");
                let mut ip = Ipv4Header::new(len, 64, IpNumber::TCP, from.octets(), to.octets())
                    .expect("a packet of that size");
                ip.dont_fragment = true;
                ip.header_checksum = ip.calc_header_checksum();
                tcp.checksum = tcp
                    .calc_checksum_ipv4_raw(from.octets(), to.octets(), &self.payload)
                    .expect("a payload of that size");
                frame.extend(ethernet(EtherType::IPV4).to_bytes());
                frame.extend(ip.to_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let tcp_number = IpNumber::TCP.0;
                let mut ip = Ipv6Header {
                    hop_limit: 64,
                    source: from.octets(),
                    destination: to.octets(),
                    next_header: IpNumber(self.extensions.first().map_or(tcp_number, |(kind, _)| *kind)),
                    ..Ipv6Header::default()
                };
                ip.set_payload_length(behind_ip).expect("a packet of that size");
                tcp.checksum = tcp
                    .calc_checksum_ipv6_raw(from.octets(), to.octets(), &self.payload)
                    .expect("a payload of that size");
                frame.extend(ethernet(EtherType::IPV6).to_bytes());
                frame.extend(ip.to_bytes());
                let kinds_of_next = self.extensions.iter().skip(1).map(|(kind, _)| *kind);
                for ((_, bytes), next) in self.extensions.iter().zip(kinds_of_next.chain([tcp_number])) {
                    frame.push(next);
                    frame.extend(&bytes[1..]);
                }
            }
            mixed => panic!("addresses of two families: {mixed:?}"),
        }
        frame.extend(tcp.to_bytes());
        frame.extend(&self.payload);
        frame
    }

    /// Reads a frame; `None` if it is not TCP.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (from, to): (IpAddr, IpAddr) = match packet.net? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return None,
        };
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
        let flags =
            [(tcp.fin(), FIN), (tcp.syn(), SYN), (tcp.rst(), RST), (tcp.psh(), PSH), (tcp.ack(), ACK)];
        Some(Self {
            from: SocketAddr::new(from, tcp.source_port()),
            to: SocketAddr::new(to, tcp.destination_port()),
            seq: tcp.sequence_number(),
            ack: tcp.acknowledgment_number(),
            flags: flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum(),
            options: tcp.options().to_vec(),
            extensions: Vec::new(),
            payload: tcp.payload().to_vec(),
        })
    }
}

#[test]
fn what_is_written_is_read_again_and_its_checksums_are_right() {
    for (from, to) in [("198.18.0.7:4000", "192.0.2.1:25"), ("[2001:2::7]:4000", "[2001:db8::1]:25")] {
        let segment = Segment::new(from.parse().unwrap(), to.parse().unwrap(), SYN | ACK, 7, 9)
            .with_options(&[2, 4, 5, 180])
            .with_payload(b"hi");
        let frame = segment.frame();
        let read = Segment::parse(&frame).expect("it is TCP");
        assert_eq!(format!("{read:?}"), format!("{segment:?}"));
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP in {packet:?}") };
        let right = match packet.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
            }
            NetSlice::Ipv6(ip) => tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()),
            NetSlice::Arp(_) => panic!("no IP"),
        };
        assert_eq!(tcp.checksum(), right.unwrap());
    }
}
