// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The process that serves is moved to another cgroup, and the one its sockets belong to is removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{MOVES, forget, gather, queued};
use crate::churn::Churn;
use crate::dice::Dice;
use crate::ends::end;
use crate::ground::Ground;
use crate::support::cgroup::root;
use crate::support::{SOON, eventually};
use crate::ways::Way;

const CALLS: usize = 96;
const ACCEPTED: usize = 48;

/// The whole of this process, with its children, the daemon for one, is in a cgroup that changes.
pub fn run(ground: &Ground, churn: &Churn) {
    ground.client.enter();
    let mut dice = Dice::new(400);
    let home = home();
    for turn in 0_u64.. {
        if churn.is_over() {
            return;
        }
        let cgroup = root().join(format!("{}-{turn}", ground.name));
        let there = Stay::new(&cgroup, &home);
        let doors = ground.doors(MOVES, 256);
        let both = doors.map(|door| {
            let (pairs, callers) = gather(&door, &mut dice, CALLS, ACCEPTED);
            (door, pairs, callers)
        });
        drop(there);
        for (door, pairs, callers) in both {
            churn.ended(Way::CgroupMoved, pairs.len() as u64 + queued(&door));
            for pair in pairs {
                end(pair, Way::throw(&mut dice));
            }
            drop(door);
            forget(callers, &mut dice);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The cgroup this process was started in.
fn home() -> PathBuf {
    let cgroups = fs::read_to_string("/proc/self/cgroup").expect("proc is mounted");
    let unified = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup v2 is mounted");
    root().join(unified)
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

fn enter(cgroup: &Path, process: &str) -> std::io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), process)
}
