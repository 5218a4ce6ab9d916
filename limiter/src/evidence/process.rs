// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which process has a connection: /proc (proc(5)), where each descriptor of a socket is a link to its inode.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use serde::Serialize;

use crate::printable;

/// A process that has a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name, as the kernel has it: 15 characters at most.
    pub name: String,
    /// Its unit of systemd, if it has one.
    pub unit: Option<String>,
}

/// Who has the sockets with these inodes. Of several processes that have one it is the youngest, which serves it: the
/// others have handed it over. One that is started or ends meanwhile may be missed, as may those that this user may not
/// look at.
pub fn owners(inodes: &HashSet<u32>) -> HashMap<u32, Process> {
    found(inodes, std::cmp::max)
}

/// The same with the oldest process, which has opened a listener: the others have inherited it.
pub fn openers(inodes: &HashSet<u32>) -> HashMap<u32, Process> {
    found(inodes, std::cmp::min)
}

/// When a process was started, and its number.
type Started = (u64, u32);

fn found(inodes: &HashSet<u32>, choose: fn(Started, Started) -> Started) -> HashMap<u32, Process> {
    let mut chosen: HashMap<u32, Started> = HashMap::new();
    if inodes.is_empty() {
        return HashMap::new();
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let dir = entry.path();
        let mut of_it = sockets(&dir).filter(|inode| inodes.contains(inode)).peekable();
        if of_it.peek().is_none() {
            continue;
        }
        let begun = begun(&dir);
        for inode in of_it {
            let known = chosen.entry(inode).or_insert((begun, pid));
            *known = choose(*known, (begun, pid));
        }
    }
    let mut known: HashMap<u32, Process> = HashMap::new();
    let mut process = |pid| known.entry(pid).or_insert_with(|| Process::of(pid)).clone();
    chosen.into_iter().map(|(inode, (_, pid))| (inode, process(pid))).collect()
}

/// The inodes of a process's sockets; `dir` is its directory.
pub fn sockets(dir: &Path) -> impl Iterator<Item = u32> + use<> {
    let descriptors = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| inode(fs::read_link(descriptor.path()).ok()?.to_str()?))
}

/// That of `socket:[12345]`.
fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// When a process was started, in ticks since the host was; 0 if it has ended.
fn begun(dir: &Path) -> u64 {
    let stat = fs::read(dir.join("stat")).unwrap_or_default();
    started(&String::from_utf8_lossy(&stat)).unwrap_or_default()
}

/// Field 22 of `proc_pid_stat(5)`. The second, the name, may hold anything, and ends at the last parenthesis.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The unit in the text of a process's `cgroup` file.
fn unit(text: &str) -> Option<String> {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let is_unit = |part: &&str| [".service", ".scope"].iter().any(|end| part.ends_with(end));
    paths.filter_map(|path| path.rsplit('/').find(is_unit)).map(str::to_owned).next()
}

impl Process {
    fn of(pid: u32) -> Self {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let unit = unit(&String::from_utf8_lossy(&read("cgroup")));
        Self {
            pid,
            name: printable::name(&read("comm")),
            unit: unit.map(|unit| printable::name(unit.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd as _};

    use super::*;

    #[test]
    fn a_socket_is_found_with_the_process_that_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = inode(link.to_str().unwrap()).unwrap();
        let found = owners(&HashSet::from([inode, 1]));
        assert_eq!(found.len(), 1);
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!((found[&inode].pid, found[&inode].name.as_str()), (std::process::id(), name.trim_end()));
    }

    #[test]
    fn what_proc_says_is_read_whatever_a_process_is_called() {
        assert_eq!(inode("socket:[4711]"), Some(4711));
        for other in ["pipe:[4711]", "socket:[]", "socket:[x]", "/dev/null"] {
            assert_eq!(inode(other), None, "{other}");
        }
        let fields = |name: &str| {
            format!("7 ({name}) S {}", (4..30).map(|n| n.to_string()).collect::<Vec<_>>().join(" "))
        };
        for name in ["imap", "a) S 1 2 3 (b", "x y"] {
            assert_eq!(started(&fields(name)), Some(22), "{name}");
        }
        assert_eq!(started("7 (x"), None);
    }

    #[test]
    fn a_unit_is_found_in_either_hierarchy() {
        assert_eq!(unit("0::/system.slice/dovecot.service\n"), Some("dovecot.service".to_owned()));
        assert_eq!(
            unit("5:memory:/\n1:name=systemd:/system.slice/postfix@-.service/sub\n0::/\n"),
            Some("postfix@-.service".to_owned())
        );
        assert_eq!(unit("0::/user.slice\n"), None);
        assert_eq!(unit(""), None);
    }
}
