// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Cgroups: every process of a host of the lab, and what they cost. They end with it, whatever they have become
//! meanwhile.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{Namespace, command, poll};

/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(4);

/// The root of the v2 tree.
///
/// # Errors
///
/// When it is mounted nowhere.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounted = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounted
        .filter(|fields| fields.get(2) == Some(&"cgroup2"))
        .find_map(|fields| fields.get(1).map(PathBuf::from))
        .context("no cgroup v2 tree is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
}

/// The one that this process is in.
///
/// # Errors
///
/// When there is no v2 tree.
pub fn own() -> Result<PathBuf> {
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(root()?.join(own.context("this process is in no v2 cgroup")?))
}

/// Moves a process, or all threads of it, to a cgroup.
///
/// # Errors
///
/// When one of them is not there.
pub fn enter(cgroup: &Path, pid: &str) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), pid)
}

/// A cgroup of the v2 tree; its processes end with it.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one below the root.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let path = root()?.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its number.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn id(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.0)?.ino())
    }

    /// A command that runs in it and in a network namespace, and gets no Ctrl-C: that is ours.
    pub fn command(&self, namespace: &Namespace, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", namespace.path().display()))
            .args(["sh", "-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(self.0.join("cgroup.procs"))
            .arg(program)
            .env("PATH", command::path())
            .process_group(0);
        command
    }

    /// The processor time its processes have taken, in microseconds.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn cpu_us(&self) -> Result<u64> {
        let stat = fs::read_to_string(self.0.join("cpu.stat"))?;
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(usage.context("cpu.stat has no usage_usec")?.parse()?)
    }

    /// The memory of its processes in KiB, what they share divided among them.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn memory_kib(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in fs::read_to_string(self.0.join("cgroup.procs"))?.lines() {
            // One may have ended meanwhile.
            let Ok(smaps) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
            let pss = smaps.lines().find_map(|line| line.strip_prefix("Pss:"));
            sum += pss.and_then(|pss| pss.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// Kills what is in a cgroup, and removes it; it may be gone already.
///
/// # Errors
///
/// When it does not go away.
pub fn remove(cgroup: &Path) -> Result<()> {
    match fs::write(cgroup.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    // Who is killed takes a moment to be gone.
    let gone = || Ok(fs::remove_dir(cgroup).ok());
    if poll::until(PATIENCE, Duration::from_millis(20), gone)?.is_none() {
        bail!("cannot remove the cgroup {}: it is still in use", cgroup.display());
    }
    Ok(())
}
