// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A frame, field by field: nothing is put right that a test has made wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TCP flags (RFC 9293, 3.1).
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// IP protocols.
pub const UDP: u8 = 17;
pub const TCP: u8 = 6;
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const ESP: u8 = 50;
pub const AUTHENTICATION: u8 = 51;
pub const DESTINATION: u8 = 60;

/// `EtherTypes` of tags.
pub const CUSTOMER: u16 = 0x8100;
pub const SERVICE: u16 = 0x88a8;

/// What a frame is made of.
#[derive(Clone, Debug)]
pub struct Frame {
    pub tags: Vec<u16>,
    /// `None`: that of the addresses.
    pub ether_type: Option<u16>,
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    /// IPv4: the header's options.
    pub options: Vec<u8>,
    /// IPv4: the fragment's offset in units of 8 bytes, and whether more follow.
    pub fragment: (u16, bool),
    /// IPv6: extension headers, each without the number of the next, which is its first byte.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub ports: (u16, u16),
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// A SYN.
    pub fn syn(from: IpAddr, to: IpAddr, port: u16) -> Self {
        Self {
            tags: Vec::new(),
            ether_type: None,
            from,
            to,
            protocol: TCP,
            options: Vec::new(),
            fragment: (0, false),
            extensions: Vec::new(),
            ports: (40000, port),
            flags: SYN,
            payload: Vec::new(),
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let behind_ip = [self.transport(), self.payload.clone()].concat();
        let (kind, ip) = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (0x0800, self.v4(from, to, behind_ip.len())),
            (IpAddr::V6(from), IpAddr::V6(to)) => (0x86dd, self.v6(from, to, behind_ip.len())),
            mixed => panic!("addresses of two families: {mixed:?}"),
        };
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        frame.extend(self.ether_type.unwrap_or(kind).to_be_bytes());
        [frame, ip, behind_ip].concat()
    }

    fn v4(&self, from: Ipv4Addr, to: Ipv4Addr, behind: usize) -> Vec<u8> {
        let words = 5 + self.options.len() / 4;
        let total = (words * 4 + behind) as u16;
        let (offset, more) = self.fragment;
        let fragment = offset | if more { 0x2000 } else { 0 };
        let mut ip = vec![0x40 | words as u8, 0];
        ip.extend(total.to_be_bytes());
        ip.extend([0, 1]);
        ip.extend(fragment.to_be_bytes());
        ip.extend([64, self.protocol, 0, 0]);
        ip.extend(from.octets());
        ip.extend(to.octets());
        ip.extend(&self.options);
        ip
    }

    fn v6(&self, from: Ipv6Addr, to: Ipv6Addr, behind: usize) -> Vec<u8> {
        let mut extensions = Vec::new();
        let next = self.extensions.iter().skip(1).map(|(kind, _)| *kind).chain([self.protocol]);
        for ((_, bytes), next) in self.extensions.iter().zip(next) {
            extensions.push(next);
            extensions.extend(bytes);
        }
        let first = self.extensions.first().map_or(self.protocol, |(kind, _)| *kind);
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend(((extensions.len() + behind) as u16).to_be_bytes());
        ip.extend([first, 64]);
        ip.extend(from.octets());
        ip.extend(to.octets());
        ip.extend(extensions);
        ip
    }

    fn transport(&self) -> Vec<u8> {
        let mut header = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        header.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        header
    }
}

/// An extension header of options, or of routing with nothing left to visit, of `len` times 8 bytes.
pub fn extension(kind: u8, len: u8) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; usize::from(len) * 8 - 1];
    bytes[0] = len - 1;
    (kind, bytes)
}

/// An authentication header of `words` times 4 bytes (RFC 4302, 2.2).
pub fn authentication(words: u8) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; usize::from(words) * 4 - 1];
    bytes[0] = words - 2;
    (AUTHENTICATION, bytes)
}

/// A fragment header.
pub fn fragment(offset: u16, more: bool) -> (u8, Vec<u8>) {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    (FRAGMENT, vec![0, high, low, 0, 0, 0, 9])
}
