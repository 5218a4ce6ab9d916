//! What a benchmark leaves behind that was killed: it is known by its name, and goes with the next one.

use std::{fs, path::Path, process};

use anyhow::Result;
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

use super::cgroup::{self, Cgroup};
use crate::netns::Netns;

/// What the names of everything start with; then comes the process.
const PREFIX: &str = "limiter-bench-";

/// Where the limiter pins.
pub const PINS: &str = "/sys/fs/bpf";

/// The name of everything of this benchmark.
pub fn name() -> String {
    format!("{PREFIX}{}", process::id())
}

/// Removes what benchmarks left whose process is no more.
///
/// # Errors
///
/// When it cannot be removed.
pub fn sweep() -> Result<()> {
    // Processes first: they hold the rest.
    for name in left_in(&cgroup::root()?) {
        drop(Cgroup::left(&name)?);
    }
    for name in left_in(Path::new("/run/netns")) {
        drop(Netns::left(name));
    }
    for name in left_in(Path::new(PINS)) {
        fs::remove_dir_all(Path::new(PINS).join(name))?;
    }
    Ok(())
}

/// Names in a directory that are of a benchmark that is over.
fn left_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_left(name)).collect()
}

fn is_left(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_of_a_benchmark_that_is_over_is_swept() {
        // Beyond the largest process id there can be (PID_MAX_LIMIT).
        assert!(is_left("limiter-bench-99999999-clients"));
        assert!(!is_left(&name()));
        assert!(!is_left("limiter-bench-x"));
        assert!(!is_left("limiter-demo-99999999"));
    }
}
