// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Frames that end too early, or are noise.

use crate::frame::{CUSTOMER, DESTINATION, Frame, SERVICE, extension, fragment};
use crate::setup::{Setup, Sources, Verdict};
use limiter_lab::random::Random;

/// The shortest the kernel runs a program on.
const ETHERNET: usize = 14;
/// Of the TCP header, how much is needed: up to the flags.
const TCP: usize = 14;

#[test]
fn a_frame_is_dropped_from_the_length_on_at_which_it_can_be_told_what_it_is() {
    let Some(setup) = Setup::new() else { return };
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
                assert_eq!(setup.verdict(&bytes[..len]), expected, "{len} bytes of {frame:?}");
            }
        }
    }
}

#[test]
fn of_frames_with_bytes_changed_at_random_none_of_an_ordinary_source_is_dropped() {
    let Some(setup) = Setup::new() else { return };
    let mut random = Random::new(0x6c69_6d69);
    let mut dropped = 0;
    for round in 0..2000 {
        let sources = Sources::of_both()[round % 2];
        for (from, may_drop) in [(sources.ordinary, false), (sources.denied, true)] {
            let mut bytes = Frame::syn(from, sources.host, 25).bytes();
            // Where the addresses are: to change those is to be somebody else.
            let addresses = if from.is_ipv4() { 26..34 } else { 22..54 };
            for _ in 0..random.below(6) {
                let at = random.index(bytes.len());
                if !addresses.contains(&at) && at != 12 && at != 13 {
                    bytes[at] = random.below(256) as u8;
                }
            }
            let len = ETHERNET + random.index(bytes.len() - ETHERNET + 1);
            let verdict = setup.verdict(&bytes[..len]);
            assert!(may_drop || verdict == Verdict::Pass, "{:02x?}", &bytes[..len]);
            dropped += u64::from(verdict == Verdict::Drop);
        }
    }
    assert!(dropped > 50, "some are as good as whole: {dropped}");
    assert_eq!(setup.dropped(), dropped);
}
