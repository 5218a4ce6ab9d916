// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is mounted where, as `/proc/PID/mountinfo` tells (`proc_pid_mountinfo(5)`).

/// What is mounted at one mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// Its device, as `MAJOR:MINOR`.
    pub device: &'a str,
    /// The directory of the file system that is seen there: another one than `/` shows a part only.
    pub root: &'a str,
    /// Where.
    pub at: &'a str,
    /// The kind of file system.
    pub kind: &'a str,
    /// The options of the file system, with commas between.
    options: &'a str,
}

impl Mount<'_> {
    /// Whether the file system has an option: of cgroup v1, a controller.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }
}

/// A file of mounts. Anybody who may mount something chooses a path, which may be no text: the kernel escapes blanks and
/// backslashes (`mangle`, `fs/proc_namespace.c`), and no other bytes. What is no text is replaced.
pub fn read(path: &str) -> std::io::Result<String> {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// All that is mounted, in the order of mountinfo: what is mounted last hides what is below it.
pub fn all(mountinfo: &str) -> impl DoubleEndedIterator<Item = Mount<'_>> {
    mountinfo.lines().filter_map(mount)
}

fn mount(line: &str) -> Option<Mount<'_>> {
    let (mount, about) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let (device, root, at) = (mount.next()?, mount.next()?, mount.next()?);
    let mut about = about.split(' ');
    let (kind, options) = (about.next()?, about.nth(1)?);
    Some(Mount { device, root, at, kind, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_and_without_optional_fields() {
        let shared = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 none rw,nsdelegate";
        let mount = |device, root, at, kind, options| Mount { device, root, at, kind, options };
        let expected = mount("0:27", "/", "/sys/fs/cgroup", "cgroup2", "rw,nsdelegate");
        assert_eq!(all(shared).next(), Some(expected));
        let v1 = "33 32 0:30 /docker/a /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct";
        let found = all(v1).next().unwrap();
        assert_eq!(found, mount("0:30", "/docker/a", "/sys/fs/cgroup/cpu", "cgroup", "rw,cpu,cpuacct"));
        assert!(found.has("cpu") && found.has("rw") && !found.has("memory") && !found.has("cp"));
        assert_eq!(all("\n31 24 0:27 / /sys\n - cgroup2\n").next(), None);
    }
}
