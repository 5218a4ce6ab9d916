// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the greeter's process may do: talk to the clients it has and to the daemon, and nothing else.
//!
//! Strangers talk to it. If one of them makes it run his own code, he finds no file, no capability, no way to another
//! process, and no key.

mod syscalls;
#[cfg(test)]
mod tests;

use std::io;

use anyhow::{Context as _, Result, ensure};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetStatus, Scope,
};
use nix::{
    sys::resource::{Resource, setrlimit},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use rustix::{
    process::{DumpableBehavior, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal},
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
    },
};

/// How much memory the process may have of its own: four times as much as 1,024 clients take of it, all in a handshake.
const MEMORY: u64 = 128 << 20;

/// Who the process is to be, and what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Confinement {
    /// Its user.
    pub uid: u32,
    /// Its group, the only one.
    pub gid: u32,
    /// How many descriptors it may have.
    pub files: u64,
    /// Its parent: without it, it ends.
    pub parent: i32,
}

/// What holds the process, besides what always does.
#[derive(Clone, Copy, Debug)]
pub struct Confined {
    /// Landlock, which not every kernel has.
    pub landlock: bool,
}

/// Takes from this process all that it does not need, for ever. It has one thread.
///
/// # Errors
/// The first thing that could not be taken away; the process must end then.
pub fn enter(confinement: Confinement) -> Result<Confined> {
    let Confinement { uid, gid, files, parent } = confinement;
    limit_resources(files)?;
    drop_bounding_set();
    become_user(uid, gid)?;
    drop_capabilities().context("cannot drop capabilities")?;
    set_no_new_privs(true).context("cannot set no_new_privs")?;
    // Both were taken back when the user changed (`commit_creds`, kernel/cred.c).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot forbid to look into memory")?;
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot be told of the daemon's end")?;
    // Whoever ended before that does not tell.
    let lives = getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == parent);
    ensure!(lives, "the daemon has ended");
    let landlock = restrict_files().context("cannot restrict access to files")?;
    syscalls::restrict().context("cannot restrict system calls (seccomp)")?;
    Ok(Confined { landlock })
}

/// No memory without end, no processes, no file, no memory on disk.
fn limit_resources(files: u64) -> Result<()> {
    for (resource, most, name) in [
        (Resource::RLIMIT_NOFILE, files, "files"),
        (Resource::RLIMIT_DATA, MEMORY, "memory"),
        (Resource::RLIMIT_NPROC, 0, "processes"),
        (Resource::RLIMIT_FSIZE, 0, "file size"),
        (Resource::RLIMIT_CORE, 0, "core dumps"),
        (Resource::RLIMIT_MEMLOCK, 0, "locked memory"),
    ] {
        setrlimit(resource, most, most).with_context(|| format!("cannot limit {name} to {most}"))?;
    }
    Ok(())
}

/// Takes the capabilities away that a program could get by exec. Where this process may not do that, it lacks
/// `CAP_SETPCAP`; it will not be able to exec either.
fn drop_bounding_set() {
    for capability in 0..64 {
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
}

fn become_user(uid: u32, gid: u32) -> Result<()> {
    let what = || format!("cannot become user {uid}, group {gid} (CAP_SETUID, CAP_SETGID)");
    ensure!(uid != 0 && gid != 0, "user and group must not be root");
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).with_context(what)?;
    setresgid(group, group, group).with_context(what)?;
    setresuid(user, user, user).with_context(what)
}

fn drop_capabilities() -> io::Result<()> {
    // Root's are gone with the user; whoever has kept others loses them here.
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

/// Takes away all files, and what else Landlock of this kernel can take: bind and connect of TCP, sockets without a file,
/// signals to others. Whether the kernel has it.
fn restrict_files() -> Result<bool> {
    let abi = ABI::V6;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?;
    let status = ruleset.create()?.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
