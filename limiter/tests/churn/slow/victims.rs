// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The process that serves is killed, with what it has accepted and what waits in its queue.

use std::io::Write as _;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::{VICTIMS, apart, forget, gather, queued};
use crate::churn::Churn;
use crate::ending::Ending;
use crate::ends::reads;
use crate::lab::ChurnLab;
use limiter_lab::let_time_pass;
use limiter_lab::process::{Process, tethered};
use limiter_lab::random::Random;

const CALLS: usize = 96;
const ACCEPTED: usize = 48;

pub fn run(lab: &ChurnLab, churn: &Churn) {
    lab.client.enter();
    let mut random = Random::new(200);
    while !churn.is_over() {
        for door in lab.doors(VICTIMS, 256) {
            let (pairs, callers) = gather(&door, &mut random, CALLS, ACCEPTED);
            let (clients, servers) = apart(pairs);
            // What is left unread makes the kernel reset the connection instead of saying goodbye.
            for mut client in clients.iter().step_by(2) {
                client.write_all(b"unread").expect("there is room in the socket's buffer");
            }
            let held: Vec<RawFd> =
                servers.iter().map(AsRawFd::as_raw_fd).chain([door.listener.as_raw_fd()]).collect();
            let mut victim = heir(held);
            churn.ended(Ending::ProcessKilled, servers.len() as u64 + queued(&door));
            drop((servers, door));
            victim.kill().expect("a child of ours");
            for client in &clients {
                // A goodbye or a reset, but an end.
                assert!(!matches!(reads(client), Ok(1..)), "a process that is dead speaks");
            }
            forget(callers, &mut random);
        }
        let_time_pass(Duration::from_millis(100), "the pace of this load");
    }
}

/// A process that inherits these files, and does nothing.
fn heir(files: Vec<RawFd>) -> Process {
    let mut command = tethered("sleep");
    command.arg("1000");
    let inherit = move || {
        for &file in &files {
            // SAFETY: open in our parent, and so in us.
            let file = unsafe { std::os::fd::BorrowedFd::borrow_raw(file) };
            fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec there is nothing but system calls.
    unsafe { command.pre_exec(inherit) };
    Process::start("sleep", command).expect("sleep is installed")
}
