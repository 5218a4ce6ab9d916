//! What a verdict costs: figures to read, not to pass.

use std::net::{IpAddr, Ipv4Addr};

use crate::frame::{ACK, Frame};
use crate::program::Program;
use crate::support::pinned::Rungs;
use crate::support::xdp::Constant;
use crate::support::{Lab, Limiter, V4};

const DROP: u32 = 1;
const PASS: u32 = 2;

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
    let Some(lab) = Lab::new() else { return };
    let config = "interfaces = []\n[ladder]\nmax_bans = 1048576\n\
                  [[rule]]\nnetwork = \"198.51.100.0/24\"\ndeny = true\n";
    let limiter = Limiter::start_with(&lab, config);
    let shield = Program::open(&limiter.pins().join("shield"));
    let drops = Constant::new(DROP);
    let drops = Program::open(&drops.pin);
    let to = V4.host;
    println!("ns per frame: median (least, most) of {ROUNDS} rounds of {FRAMES} frames each");
    let mut bans = 0;
    for wanted in [1, 1_000, 1_000_000] {
        Rungs::open(&limiter).ban(bans..wanted, address);
        bans = wanted;
        let frames = [
            ("dropped without a look", &drops, Frame::syn(address(0), to, 25), DROP),
            ("banned, SYN", &shield, Frame::syn(address(0), to, 25), DROP),
            ("banned, last of all, SYN", &shield, Frame::syn(address(bans - 1), to, 25), DROP),
            (
                "banned, ACK of no connection",
                &shield,
                Frame::syn(address(0), to, 25).with(|frame| frame.flags = ACK),
                DROP,
            ),
            ("denied, SYN", &shield, Frame::syn(V4.source(), to, 25), DROP),
            ("ordinary, SYN", &shield, Frame::syn(V4.sources[2], to, 25), PASS),
            ("another port", &shield, Frame::syn(address(0), to, 80), PASS),
        ];
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
