// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a verdict costs: figures to read, not to pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use limiter_common::Cause;

use crate::assembly::{DROP, PASS, by_turns, drops_after_one_look, drops_without_a_look};
use crate::frame::{ACK, Frame};
use crate::program::Program;
use limiter_lab::pinned::Penalties;
use limiter_lab::{Lab, Limiter, V4, V6};

/// Frames of each measurement, and measurements of each frame.
const FRAMES: u32 = 200_000;
const ROUNDS: usize = 15;

/// Nanoseconds for each of many runs.
fn measure(program: &Program, frame: &[u8], expected: u32) -> u32 {
    let said = program.run(frame, FRAMES);
    assert_eq!(said.action, expected);
    said.ns
}

fn median(mut values: Vec<u32>) -> (u32, u32, u32) {
    values.sort_unstable();
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

#[test]
#[ignore = "a report, of a minute: cargo test -p limiter --release --test shield -- --ignored --nocapture"]
fn report_of_ns_per_frame_with_one_and_a_thousand_and_a_million_bans() {
    let address = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n));
    let address6 = |n: u32| IpAddr::V6(Ipv6Addr::new(0x2a00, 0, (n >> 16) as u16, n as u16, 0, 0, 0, 1));
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    // Room for more than are banned: the daemon gives up the oldest when nine tenths are taken.
    let config = "interfaces = []\n[ladder]\nmax_bans = 2097152\n\
                  [[rule]]\nnetwork = \"198.51.100.0/24\"\ndeny = true\n\
                  [[rule]]\nnetwork = \"172.16.0.0/16\"\ndeny = true\n";
    let limiter = Limiter::start_with(&lab, config);
    let shield = Program::open(&limiter.pins().join("shield"));
    let to = V4.host;
    let (dropped, looked) = (drops_without_a_look(), drops_after_one_look(Ipv4Addr::new(10, 0, 0, 0)));
    let (turns, dropped_by_turns) = (by_turns(&shield), by_turns(&dropped));
    println!("ns per frame: median (least, most) of {ROUNDS} rounds of {FRAMES} frames each");
    let mut bans = 0;
    for wanted in [1, 1_000, 1_000_000] {
        Penalties::open(&limiter).ban(Cause::Admin, bans..wanted, address);
        Penalties::open(&limiter).ban(Cause::Admin, bans.min(1000)..wanted.min(1000), address6);
        bans = wanted;
        let mut frames = vec![
            ("dropped without a look", &dropped, Frame::syn(address(0), to, 25), DROP),
            ("dropped after one look", &looked, Frame::syn(address(0), to, 25), DROP),
            ("banned, SYN", &shield, Frame::syn(address(0), to, 25), DROP),
            ("banned, SYN, IPv6", &shield, Frame::syn(address6(0), V6.host, 25), DROP),
            ("banned, last of all, SYN", &shield, Frame::syn(address(bans - 1), to, 25), DROP),
            ("banned, ACK", &shield, Frame::syn(address(0), to, 25).with(|frame| frame.flags = ACK), PASS),
            ("denied, SYN", &shield, Frame::syn(V4.source(), to, 25), DROP),
            ("ordinary, SYN", &shield, Frame::syn(V4.sources[2], to, 25), PASS),
            (
                "ordinary, ACK",
                &shield,
                Frame::syn(V4.sources[2], to, 25).with(|frame| frame.flags = ACK),
                PASS,
            ),
            (
                "ordinary, ACK, IPv6",
                &shield,
                Frame::syn(V6.sources[2], V6.host, 25).with(|frame| frame.flags = ACK),
                PASS,
            ),
            (
                "another port, ACK",
                &shield,
                Frame::syn(address(0), to, 80).with(|frame| frame.flags = ACK),
                PASS,
            ),
            (
                "another port, ACK, IPv6",
                &shield,
                Frame::syn(address6(0), V6.host, 80).with(|frame| frame.flags = ACK),
                PASS,
            ),
            ("another port", &shield, Frame::syn(address(0), to, 80), PASS),
            // Of so many, in this order, each has been displaced before it comes again.
            ("denied, SYN, 65,536 by turns", &turns, Frame::syn(IpAddr::from([172, 16, 0, 0]), to, 25), DROP),
            ("dropped without a look, the same", &dropped_by_turns, Frame::syn(address(0), to, 25), DROP),
        ];
        if bans > 65_536 {
            frames.push(("banned, SYN, 65,536 by turns", &turns, Frame::syn(address(0), to, 25), DROP));
        }
        let mut times: Vec<Vec<u32>> = vec![Vec::new(); frames.len()];
        lab.host.run(|| {
            // By turns, so that what the machine does besides hits all of them.
            for _ in 0..ROUNDS {
                for ((_, program, frame, expected), times) in frames.iter().zip(&mut times) {
                    times.push(measure(program, &frame.bytes(), *expected));
                }
            }
        });
        println!("{bans} bans");
        for ((what, ..), times) in frames.iter().zip(times) {
            let (median, least, most) = median(times);
            println!("  {what:<30} {median:>6} ({least}, {most})");
        }
    }
}
