// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Memory of this process, and of what it makes in the kernel: both are charged to the cgroup it is in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::mounts::{self, Mount};

/// What it takes to load, for the moment in which the verifier is at work on the largest program, beside the maps whose
/// size the configuration says: 20 MiB for the verifier, 6 for the other maps, 6 for this process and the programs, also
/// those that are being replaced.
const BESIDE: u64 = 32 << 20;

/// What it takes to load where maps take so many bytes while nothing is in them.
pub const fn least(maps: u64) -> u64 {
    BESIDE + maps
}

/// Gives back what is free: the allocator would keep it, and what the kernel takes for programs and maps comes on top.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number only, and may be called at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A limit that the memory of this process is under.
#[derive(Debug, PartialEq, Eq)]
pub struct Limit {
    /// Whose it is.
    pub cgroup: PathBuf,
    pub bytes: u64,
}

impl Limit {
    pub const fn mib(&self) -> u64 {
        self.bytes >> 20
    }
}

/// The tightest limit; none where there is none, or none can be found.
pub fn limit() -> Option<Limit> {
    let of_process = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mountinfo = mounts::read("/proc/self/mountinfo").ok()?;
    let mounts = of_process.lines().filter_map(|line| mounted(line, &mountinfo));
    mounts.flat_map(|(root, below, file)| limits(&root, &below, file)).min_by_key(|limit| limit.bytes)
}

/// Root of the tree, path below it, and the file with the limit, of a line of `/proc/self/cgroup` (cgroups(7)) that is
/// about memory.
fn mounted(line: &str, mounts: &str) -> Option<(PathBuf, PathBuf, &'static str)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, below) = (parts.next()?, parts.next()?);
    let (kind, option, file) = match controllers {
        "" => ("cgroup2", None, "memory.max"),
        v1 if v1.split(',').any(|name| name == "memory") => {
            ("cgroup", Some("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    // Of a mount that shows a part only, the paths are others'.
    let is_it = |mount: &Mount<'_>| {
        mount.kind == kind && mount.root == "/" && option.is_none_or(|option| mount.has(option))
    };
    let root = mounts::all(mounts).find(is_it)?.at;
    Some((root.into(), below.trim_start_matches('/').into(), file))
}

/// The limits of a cgroup and those above it.
fn limits(root: &Path, below: &Path, file: &str) -> Vec<Limit> {
    let cgroups = below.ancestors().map(|cgroup| root.join(cgroup));
    let limit = |cgroup: PathBuf| {
        let bytes = fs::read_to_string(cgroup.join(file)).ok()?.trim().parse().ok()?;
        // Cgroup v1 has a number for none.
        (bytes < i64::MAX as u64 >> 1).then_some(Limit { cgroup, bytes })
    };
    cgroups.filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
33 32 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
34 32 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    #[test]
    fn the_limit_is_looked_for_in_the_tree_that_has_it() {
        let found = |line| mounted(line, MOUNTS).map(|(root, below, file)| root.join(below).join(file));
        assert_eq!(
            found("0::/system.slice/limiter.service"),
            Some("/sys/fs/cgroup/system.slice/limiter.service/memory.max".into())
        );
        assert_eq!(found("9:memory:/a"), Some("/sys/fs/cgroup/memory/a/memory.limit_in_bytes".into()));
        assert_eq!((found("3:cpu,cpuacct:/"), found("")), (None, None));
    }

    #[test]
    fn a_limit_above_counts_and_none_is_none() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("memory.max"), "max\n").unwrap();
        let tightest = || limits(root.path(), Path::new("a/b"), "memory.max");
        assert_eq!(tightest(), []);
        fs::write(root.path().join("a/memory.max"), "50331648\n").unwrap();
        assert_eq!(tightest(), [Limit { cgroup: root.path().join("a"), bytes: 48 << 20 }]);
        fs::write(below.join("memory.max"), "9223372036854771712\n").unwrap();
        assert_eq!(tightest().len(), 1, "cgroup v1 has this number for none");
    }
}
