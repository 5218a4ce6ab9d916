// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What processes may do that have to do with strangers: what they need, and nothing else.
//!
//! The greeter's process talks to strangers ([`enter`]): to the clients it has and to the daemon. If one of them makes it
//! run his own code, he finds no file, no capability, no way to another process, and no key. A mail daemon's own program
//! that is asked for us reads what strangers have said ([`enter_for_tool`]): it has no capability, sees a few files, and
//! talks to nobody but by one socket of its daemon.

pub mod again;
mod root;
mod syscalls;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
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

/// The same of a program that is asked for us: with 100,000 sessions `doveadm who` takes 60 MiB of it.
const TOOL_MEMORY: u64 = 512 << 20;
/// How many descriptors that may have.
const TOOL_FILES: u64 = 256;
/// How many seconds of the processor it may take: whoever waits for it has long given up by then.
const TOOL_SECONDS: u64 = 20;
/// A group that owns no files.
const NOGROUP: u32 = 65_534;
/// What Landlock is used of, where the kernel has that.
const ABI_KNOWN: ABI = ABI::V6;
/// What every program reads: programs, libraries, and who and when.
const OF_EVERY_PROGRAM: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",
    "/dev/urandom",
];

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

/// A program that is asked for us, and what it needs beside programs, libraries and what every program reads.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Files, and directories with all that is below them, that it reads.
    pub reads: Vec<PathBuf>,
    /// Sockets that it connects to.
    pub sockets: Vec<PathBuf>,
    /// Whether it ends processes of others.
    pub may_signal: bool,
    /// The parent of its process: without it, it ends.
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
    limit_resources(&[(Resource::RLIMIT_NOFILE, files, "files"), (Resource::RLIMIT_DATA, MEMORY, "memory")])?;
    let none = CapabilitySet::empty();
    drop_bounding_set(none);
    become_user(uid, gid)?;
    drop_capabilities(none).context("cannot drop capabilities")?;
    set_no_new_privs(true).context("cannot set no_new_privs")?;
    // Both were taken back when the user changed (`commit_creds`, kernel/cred.c).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot forbid to look into memory")?;
    end_with(parent)?;
    let landlock =
        restrict_files(&[], Scope::from_all(ABI_KNOWN)).context("cannot restrict access to files")?;
    syscalls::restrict().context("cannot restrict system calls (seccomp)")?;
    Ok(Confined { landlock })
}

/// The same for a program that this process is about to become. It stays root without root's rights: the sockets and
/// files of a mail daemon are root's, and it has them as their owner. What else is root's it does not see: not the sockets
/// by which root is obeyed, for one.
///
/// # Errors
/// As of [`enter`].
pub fn enter_for_tool(tool: &Tool) -> Result<Confined> {
    let Tool { reads, sockets, may_signal, parent } = tool;
    let seen =
        OF_EVERY_PROGRAM.iter().map(Path::new).chain(reads.iter().chain(sockets).map(PathBuf::as_path));
    root::leave_only(seen.chain([Path::new("/dev/null")])).context("cannot hide the other files")?;
    limit_resources(&[
        (Resource::RLIMIT_NOFILE, TOOL_FILES, "files"),
        (Resource::RLIMIT_DATA, TOOL_MEMORY, "memory"),
        (Resource::RLIMIT_CPU, TOOL_SECONDS, "time"),
    ])?;
    let kept = if *may_signal { CapabilitySet::KILL } else { CapabilitySet::empty() };
    drop_bounding_set(kept);
    let group = Gid::from_raw(NOGROUP);
    setgroups(&[]).and_then(|()| setresgid(group, group, group)).context("cannot leave root's groups")?;
    drop_capabilities(kept).context("cannot drop capabilities")?;
    set_no_new_privs(true).context("cannot set no_new_privs")?;
    end_with(*parent)?;
    let scope = if *may_signal { Scope::AbstractUnixSocket.into() } else { Scope::from_all(ABI_KNOWN) };
    let landlock = restrict_files(reads, scope).context("cannot restrict access to files")?;
    syscalls::restrict_tool(*may_signal).context("cannot restrict system calls (seccomp)")?;
    Ok(Confined { landlock })
}

/// No processes, no file, no memory on disk; and of others no more than this.
fn limit_resources(most: &[(Resource, u64, &str)]) -> Result<()> {
    let none = [
        (Resource::RLIMIT_NPROC, 0, "processes"),
        (Resource::RLIMIT_FSIZE, 0, "file size"),
        (Resource::RLIMIT_CORE, 0, "core dumps"),
        (Resource::RLIMIT_MEMLOCK, 0, "locked memory"),
    ];
    for &(resource, most, name) in most.iter().chain(&none) {
        setrlimit(resource, most, most).with_context(|| format!("cannot limit {name} to {most}"))?;
    }
    Ok(())
}

/// Takes the capabilities away that a program could get by exec, but for those that are `kept`. Where this process may not
/// do that, it lacks `CAP_SETPCAP`, and `no_new_privs` keeps it from getting any.
fn drop_bounding_set(kept: CapabilitySet) {
    for capability in (0..64).filter(|capability| kept.bits() >> capability & 1 == 0) {
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

/// All but those that are `kept`.
fn drop_capabilities(kept: CapabilitySet) -> io::Result<()> {
    // Root's are gone with the user, if that was left; whoever has kept others loses them here.
    clear_ambient_capability_set()?;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    Ok(())
}

/// Has the process end when its parent does.
fn end_with(parent: i32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot be told of the daemon's end")?;
    // Whoever ended before that does not tell.
    let lives = getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == parent);
    ensure!(lives, "the daemon has ended");
    Ok(())
}

/// Takes away all files but those that it `reads`, and what else Landlock of this kernel can take: bind and connect of TCP;
/// sockets without a file and signals to others, as `scope` says. Whether the kernel has it.
fn restrict_files(reads: &[PathBuf], scope: BitFlags<Scope>) -> Result<bool> {
    let abi = ABI_KNOWN;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(scope)?;
    let mut ruleset = ruleset.create()?;
    if !reads.is_empty() {
        let of_every_program = OF_EVERY_PROGRAM.iter().map(PathBuf::from).chain(reads.iter().cloned());
        ruleset = ruleset
            .add_rules(path_beneath_rules(of_every_program, AccessFs::from_read(abi)))?
            .add_rules(path_beneath_rules(["/dev/null"], AccessFs::ReadFile | AccessFs::WriteFile))?;
    }
    let status = ruleset.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
