// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The network namespace that a path leads to.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Result, anyhow};

use super::environment::{enter_netns, netns_cookie};

/// What is at the path of a network namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// The one that this thread is in.
    Ours,
    /// Another one.
    Another,
    /// None.
    Nothing,
}

/// What is at `path`, as seen from this thread. A namespace has its number for as long as somebody is in it.
pub fn at(path: &Path) -> At {
    let number = |path: &Path| fs::metadata(path).map(|about| (about.dev(), about.ino()));
    match (number(path), number(Path::new("/proc/thread-self/ns/net"))) {
        (Ok(there), Ok(ours)) if there == ours => At::Ours,
        // Namespaces are the files of one file system. For a moment `ip netns add` has another kind of file there.
        (Ok(there), Ok(ours)) if there.0 == ours.0 => At::Another,
        _ => At::Nothing,
    }
}

/// Whether a path names the same thing for good, as `/run/netns/NAME` does: a process that has the number of an earlier one
/// (`/proc/PID/ns/net`) has nothing to do with it.
pub fn stays(path: &Path) -> bool {
    !path.starts_with("/proc")
}

/// The cookie of the namespace at `path`, which this thread need not be in.
pub fn cookie_at(path: &Path) -> Result<u64> {
    let look = || {
        enter_netns(path)?;
        netns_cookie()
    };
    // A thread is in a namespace; this one stays where it is.
    std::thread::scope(|scope| scope.spawn(look).join())
        .map_err(|_| anyhow!("the thread that looked panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_a_path_is_told_apart() {
        assert_eq!(at(Path::new("/proc/self/ns/net")), At::Ours);
        assert_eq!(at(Path::new("/proc/self/ns")), At::Nothing);
        assert_eq!(at(Path::new("/nowhere")), At::Nothing);
        assert!(stays(Path::new("/run/netns/mail")) && !stays(Path::new("/proc/4711/ns/net")));
    }
}
