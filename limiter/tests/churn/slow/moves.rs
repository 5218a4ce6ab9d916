// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The process that serves is moved to another cgroup, and the one its sockets belong to is removed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{MOVES, forget, gather, queued};
use crate::churn::Churn;
use crate::ending::Ending;
use crate::ends::end;
use crate::lab::ChurnLab;
use limiter_lab::cgroup::{self, enter};
use limiter_lab::random::Random;
use limiter_lab::{SOON, eventually, let_time_pass};

const CALLS: usize = 96;
const ACCEPTED: usize = 48;

/// The whole of this process, with its children, the daemon for one, is in a cgroup that changes.
pub fn run(lab: &ChurnLab, churn: &Churn) {
    lab.client.enter();
    let mut random = Random::new(400);
    let home = cgroup::own().expect("cgroup v2 is mounted");
    let root = cgroup::root().expect("cgroup v2 is mounted");
    for turn in 0_u64.. {
        if churn.is_over() {
            return;
        }
        let cgroup = root.join(format!("{}-{turn}", lab.name));
        let there = Stay::new(&cgroup, &home);
        let doors = lab.doors(MOVES, 256);
        let both = doors.map(|door| {
            let (pairs, callers) = gather(&door, &mut random, CALLS, ACCEPTED);
            (door, pairs, callers)
        });
        drop(there);
        for (door, pairs, callers) in both {
            churn.ended(Ending::CgroupMoved, pairs.len() as u64 + queued(&door));
            for pair in pairs {
                end(pair, Ending::throw(&mut random));
            }
            drop(door);
            forget(callers, &mut random);
        }
        let_time_pass(Duration::from_millis(200), "the pace of this load");
    }
}

/// This process in a cgroup.
struct Stay<'place> {
    cgroup: &'place Path,
    home: &'place Path,
}

impl<'place> Stay<'place> {
    fn new(cgroup: &'place Path, home: &'place Path) -> Self {
        fs::create_dir(cgroup).expect("root may make a cgroup");
        let stay = Self { cgroup, home };
        enter(cgroup, &std::process::id().to_string()).expect("root may move a process");
        stay
    }
}

impl Drop for Stay<'_> {
    /// Goes home, with whoever was born meanwhile, and removes the cgroup.
    fn drop(&mut self) {
        eventually("everyone has left the cgroup", SOON, || {
            let inside = fs::read_to_string(self.cgroup.join("cgroup.procs")).unwrap_or_default();
            for process in inside.lines() {
                // It may have ended.
                let _ = enter(self.home, process);
            }
            fs::remove_dir(self.cgroup).map_err(|error| format!("{}: {error}", self.cgroup.display()))
        });
    }
}
