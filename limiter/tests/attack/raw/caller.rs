// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One end of one connection, with as much TCP as the tests need.

use std::net::SocketAddr;

use super::segment::{ACK, FIN, PSH, RST, SYN, Segment};

/// Maximum segment size, the one option every SYN has.
const MSS: [u8; 4] = [2, 4, 5, 180];

/// A caller at `from`: what it has sent and what it has heard.
#[derive(Debug, Clone)]
pub struct Caller {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// The number of the next byte it sends.
    pub next: u32,
    /// The number of the next byte it expects, once the mail host has told it one.
    pub expected: Option<u32>,
    /// The mail host has closed its half.
    pub finished: bool,
    /// The mail host has reset the connection.
    pub reset: bool,
}

impl Caller {
    pub fn new(from: SocketAddr, to: SocketAddr, isn: u32) -> Self {
        Self { from, to, next: isn.wrapping_add(1), expected: None, finished: false, reset: false }
    }

    /// A segment with these flags, and the numbers due.
    pub fn segment(&self, flags: u8) -> Segment {
        let ack = if flags & ACK == 0 { 0 } else { self.expected.unwrap_or(0) };
        Segment::new(self.from, self.to, flags, self.next, ack)
    }

    /// The first packet; the same each time.
    pub fn syn(&self) -> Segment {
        Segment::new(self.from, self.to, SYN, self.next.wrapping_sub(1), 0).with_options(&MSS)
    }

    pub fn ack(&self) -> Segment {
        self.segment(ACK)
    }

    pub fn rst(&self) -> Segment {
        self.segment(RST)
    }

    /// Says something; before the handshake is complete this completes it as well.
    pub fn say(&mut self, words: &[u8]) -> Segment {
        let segment = self.segment(ACK | PSH).with_payload(words);
        self.next = self.next.wrapping_add(words.len() as u32);
        segment
    }

    /// Closes its half.
    pub fn fin(&mut self) -> Segment {
        let segment = self.segment(FIN | ACK);
        self.next = self.next.wrapping_add(1);
        segment
    }

    /// Takes note of what the mail host sent it; `true` if that wants an acknowledgement.
    pub fn hears(&mut self, segment: &Segment) -> bool {
        if segment.is(SYN | ACK) {
            if segment.ack == self.next || self.expected.is_none() {
                self.expected = Some(segment.seq.wrapping_add(1));
            }
            return true;
        }
        if segment.flags & RST != 0 {
            self.reset = true;
            return false;
        }
        let fin = segment.flags & FIN != 0;
        let len = segment.payload.len() as u32 + u32::from(fin);
        if self.expected == Some(segment.seq) {
            self.expected = Some(segment.seq.wrapping_add(len));
            self.finished |= fin;
        }
        len > 0
    }
}
