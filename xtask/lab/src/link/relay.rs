// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The thread between the two ends: a queue each way.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::faults::{Loss, Shared};
use super::segment::{Direction, Segment};
use crate::random::Random;

/// Longer than any packet of these devices.
const PACKET: usize = 2048;
/// How soon the relay notices that it is to end.
const BREATH: Duration = Duration::from_millis(50);
/// Packets read in a row before those that are due are delivered.
const GULP: usize = 64;

/// One direction of the link.
struct Lane {
    direction: Direction,
    under_way: VecDeque<(Instant, Vec<u8>)>,
    random: Random,
}

/// Both directions, and the devices at their ends: the client host's, the mail host's.
pub struct Relay {
    ends: [File; 2],
    lanes: [Lane; 2],
    one_way: Duration,
    loss: Loss,
    shared: Arc<Shared>,
}

impl Relay {
    pub fn new(ends: [File; 2], one_way: Duration, loss: Loss, shared: Arc<Shared>) -> Self {
        let lane = |direction, lane| Lane {
            direction,
            under_way: VecDeque::new(),
            random: Random::new(2 * loss.seed + lane),
        };
        let lanes = [lane(Direction::ToHost, 1), lane(Direction::ToClient, 2)];
        Self { ends, lanes, one_way, loss, shared }
    }

    /// Carries packets until the link is dropped.
    pub fn run(mut self) {
        be_punctual();
        while !self.shared.done.load(Ordering::Relaxed) {
            let next = self.lanes.iter().filter_map(|lane| lane.under_way.front()).map(|(due, _)| *due).min();
            let pause = next.map_or(BREATH, |due| due.saturating_duration_since(Instant::now()).min(BREATH));
            let mut ready = self.ends.each_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
            // Interrupted or not: both directions are looked at.
            let _ = ppoll(&mut ready, Some(TimeSpec::from_duration(pause)), None);
            for lane in 0..2 {
                self.take_in(lane);
            }
            for lane in 0..2 {
                self.deliver(lane);
            }
        }
    }

    /// Takes what was sent, and decides what becomes of it.
    fn take_in(&mut self, lane: usize) {
        let mut packet = [0; PACKET];
        for _ in 0..GULP {
            let Ok(len) = (&self.ends[lane]).read(&mut packet) else { return };
            let packet = &packet[..len];
            let lane = &mut self.lanes[lane];
            if let Some(segment) = Segment::parse(packet, lane.direction) {
                let mut faults = self.shared.faults();
                if !faults.passes(&segment) {
                    continue;
                }
                if lane.random.chance(self.loss.percent) {
                    faults.lost.push(segment);
                    continue;
                }
            }
            lane.under_way.push_back((Instant::now() + self.one_way, packet.to_vec()));
        }
    }

    /// Hands over what is due.
    fn deliver(&mut self, lane: usize) {
        while let Some((due, packet)) = self.lanes[lane].under_way.front() {
            let now = Instant::now();
            if *due > now {
                return;
            }
            let mut faults = self.shared.faults();
            faults.late = faults.late.max(now - *due);
            drop(faults);
            // What a host does not take is lost, as everywhere.
            let _ = (&self.ends[1 - lane]).write(packet);
            self.lanes[lane].under_way.pop_front();
        }
    }
}

/// The calling thread runs when it wants to, as nearly as the kernel lets root have it: it is the light in the
/// fibre, not a process of the hosts.
fn be_punctual() {
    const HIGHEST: i32 = -20;
    // SAFETY: this takes no pointers. The default slack of a timer is 50 microseconds, 1 nanosecond is the least.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    // SAFETY: this takes no pointers; 0 is the calling thread (setpriority(2), "C library/kernel differences").
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, HIGHEST) };
}
