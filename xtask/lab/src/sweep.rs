// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a test, a benchmark, or another verb that makes hosts leaves behind when it is killed: it is known by its
//! name, and goes with the next one.

use std::path::Path;
use std::{env, fs, process};

use anyhow::Result;
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

use crate::{cgroup, namespace};

/// What the names of everything that a test or a verb makes start with; then comes the process.
#[derive(Clone, Copy)]
pub struct Names(&'static str);

/// Those of tests.
pub const TESTS: Names = Names("lt-");

/// Those of `cargo xtask bench`.
pub const BENCH: Names = Names("limiter-bench-");

/// Those of `cargo xtask senders`.
pub const SENDERS: Names = Names("limiter-senders-");

/// Those of `cargo xtask clients`.
pub const CLIENTS: Names = Names("limiter-clients-");

/// Where the limiter pins.
pub const PINS: &str = "/sys/fs/bpf";

/// Where it keeps what outlives a restart of the host.
pub const STATE: &str = "/var/lib/limiter";

impl Names {
    /// What the names of everything of this process start with.
    pub fn ours(self) -> String {
        format!("{}{}", self.0, process::id())
    }

    /// Removes what processes left that are no more.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn sweep(self) -> Result<()> {
        // Processes first: they hold the rest.
        let cgroups = cgroup::root()?;
        for name in self.left_in(&cgroups) {
            cgroup::remove(&cgroups.join(name))?;
        }
        for name in self.left_in(Path::new(namespace::FOLDER)) {
            namespace::delete(&name);
        }
        for folder in [Path::new(PINS), &env::temp_dir()] {
            for name in self.left_in(folder) {
                // Another process may have begun to sweep, too.
                match fs::remove_dir_all(folder.join(name)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
        }
        for name in self.left_in(Path::new(STATE)) {
            let _another_sweeps_too = fs::remove_file(Path::new(STATE).join(name));
        }
        Ok(())
    }

    /// Names in a directory that are of a process that is over.
    fn left_in(self, directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| self.is_left(name)).collect()
    }

    fn is_left(self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(self.0) else { return false };
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_of_a_process_that_is_over_is_swept() {
        // Beyond the largest process id there can be (PID_MAX_LIMIT).
        assert!(SENDERS.is_left("limiter-senders-99999999-clients"));
        assert!(TESTS.is_left("lt-99999999-0+new"));
        assert!(!SENDERS.is_left(&SENDERS.ours()));
        assert!(!SENDERS.is_left("limiter-senders-x"));
        assert!(!SENDERS.is_left("limiter-demo-99999999"));
    }
}
