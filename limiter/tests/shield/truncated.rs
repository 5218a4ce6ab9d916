// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Frames that end too early, or are noise.

use crate::frame::{CUSTOMER, DESTINATION, Frame, SERVICE, extension, fragment};
use crate::ground::{Ground, Sources, Verdict};

/// The shortest the kernel runs a program on.
const ETHERNET: usize = 14;
/// Of the TCP header, how much is needed: up to the flags.
const TCP: usize = 14;

#[test]
fn a_frame_is_dropped_from_the_length_on_at_which_it_can_be_told_what_it_is() {
    let Some(ground) = Ground::new() else { return };
    for sources in Sources::of_both() {
        let syn = || Frame::syn(sources.denied, sources.host, 25);
        let mut frames = vec![syn(), syn().with(|frame| frame.tags = vec![SERVICE, CUSTOMER])];
        if sources.host.is_ipv4() {
            frames.push(syn().with(|frame| frame.options = vec![1; 40]));
        } else {
            let extensions = vec![extension(DESTINATION, 2), fragment(0, true), extension(DESTINATION, 1)];
            frames.push(syn().with(|frame| frame.extensions = extensions));
        }
        for frame in frames {
            let bytes = frame.bytes();
            let needed = bytes.len() - 20 + TCP;
            for len in ETHERNET..=bytes.len() {
                let expected = if len < needed { Verdict::Pass } else { Verdict::Drop };
                assert_eq!(ground.verdict(&bytes[..len]), expected, "{len} bytes of {frame:?}");
            }
        }
    }
}

/// xorshift64*: the same frames in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[test]
fn of_frames_with_bytes_changed_at_random_none_of_an_ordinary_source_is_dropped() {
    let Some(ground) = Ground::new() else { return };
    let mut noise = Noise(0x6c69_6d69_7465_7221);
    let mut dropped = 0;
    for round in 0..2000 {
        let sources = Sources::of_both()[round % 2];
        for (from, may_drop) in [(sources.ordinary, false), (sources.denied, true)] {
            let mut bytes = Frame::syn(from, sources.host, 25).bytes();
            // Where the addresses are: to change those is to be somebody else.
            let addresses = if from.is_ipv4() { 26..34 } else { 22..54 };
            for _ in 0..noise.next() % 6 {
                let at = noise.next() as usize % bytes.len();
                if !addresses.contains(&at) && at != 12 && at != 13 {
                    bytes[at] = noise.next() as u8;
                }
            }
            let len = ETHERNET + noise.next() as usize % (bytes.len() - ETHERNET + 1);
            let verdict = ground.verdict(&bytes[..len]);
            assert!(may_drop || verdict == Verdict::Pass, "{:02x?}", &bytes[..len]);
            dropped += u64::from(verdict == Verdict::Drop);
        }
    }
    assert!(dropped > 50, "some are as good as whole: {dropped}");
    assert_eq!(ground.dropped(), dropped);
}
