// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Starts this program again, as a part of itself that is going to be confined.

use std::{
    io,
    os::{fd::RawFd, unix::process::CommandExt as _},
    process::Command,
};

/// This program as the `part` of that name, with an empty environment, and with no descriptors but these and the three
/// standard ones.
pub fn part<const N: usize>(part: &str, kept: [RawFd; N]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("limiter").arg(part);
    command.env_clear().current_dir("/");
    // SAFETY: system calls with plain numbers.
    unsafe { command.pre_exec(move || keep_only(&kept)) };
    command
}

/// Has exec close everything but these, and the three standard ones.
fn keep_only(kept: &[RawFd]) -> io::Result<()> {
    let is_done = |answer: libc::c_long| if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: plain numbers; nothing is closed in this process.
    is_done(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    for fd in kept {
        // SAFETY: plain numbers.
        is_done(unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) }.into())?;
    }
    Ok(())
}
