//! A cgroup of a test's own.

use std::fs;
use std::path::{Path, PathBuf};

use super::Lab;

/// Where cgroup v2 is mounted.
pub fn root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("proc is mounted");
    let mounted = mounts.lines().find(|line| line.contains(" cgroup2 "));
    mounted.and_then(|line| line.split(' ').nth(1)).expect("cgroup v2 is mounted").into()
}

/// An empty cgroup below the root, removed with the test.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one named for the lab.
    pub fn new(lab: &Lab) -> Self {
        let path = root().join(&lab.name);
        fs::create_dir(&path).expect("root may make a cgroup");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process in it that was killed may take a moment to be gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
