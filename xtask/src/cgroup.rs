// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A cgroup of one host of a lab: every process of it, and what they cost. They end with it, whatever they have
//! become meanwhile.
//!
//! What only the benchmark reads is there only with it.

use std::{fs, io::ErrorKind, path::PathBuf, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::netns::Netns;

/// A cgroup of the v2 tree; its processes end with it.
pub struct Cgroup(PathBuf);

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

    /// One that is there already: what [`crate::sweep`] removes.
    ///
    /// # Errors
    ///
    /// When there is no v2 tree.
    pub fn left(name: &str) -> Result<Self> {
        Ok(Self(root()?.join(name)))
    }

    /// Where it is.
    #[cfg(feature = "bench")]
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }

    /// A command that runs in it and in a network namespace, and gets no Ctrl-C: that is ours.
    pub fn command(&self, netns: &Netns, program: impl AsRef<std::ffi::OsStr>) -> Command {
        use std::os::unix::process::CommandExt as _;

        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", netns.path().display()))
            .args(["sh", "-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(self.0.join("cgroup.procs"))
            .arg(program)
            .env("PATH", crate::packages::path())
            .process_group(0);
        command
    }

    /// The processor time its processes have taken, in microseconds.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    #[cfg(feature = "bench")]
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
    #[cfg(feature = "bench")]
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

    fn remove(&self) -> Result<()> {
        match fs::write(self.0.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        // Who is killed takes a moment to be gone.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the cgroup {} does not go away", self.0.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{error:#}");
        }
    }
}
