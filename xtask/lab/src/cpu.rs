// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! CPUs, and which of them a thread runs on.

use anyhow::Result;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The CPUs the calling thread may run on.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn allowed() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect())
}

/// Has the calling thread run on these only: what it sends over a veth link is received there as well, where the host
/// does not receive on all.
///
/// # Errors
///
/// When none of them is one of those allowed.
pub fn bind_to(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
