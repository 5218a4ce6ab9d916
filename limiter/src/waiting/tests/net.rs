// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Two network namespaces without names, so nothing is left of them.

use std::{
    fs::File,
    io::Write as _,
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, which lives as long as this.
pub struct Netns(File);

impl Netns {
    fn new() -> Self {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        })
    }

    /// Runs `work` on a thread in it. Sockets made there stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    /// Runs lines of `ip -batch` in it.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        let success = self.run(|| {
            let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
            ip.wait().unwrap().success()
        });
        assert!(success, "ip -batch:\n{lines}");
    }

    /// Sets a `net.*` sysctl of it, by its path below `/proc/sys/net`.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value)).unwrap();
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A client host and a mail host, connected.
pub struct Lab {
    pub client: Netns,
    pub host: Netns,
}

impl Lab {
    /// `None`, with a word to whoever ran the tests, without root.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            crate::skip::skip("it needs root, for network namespaces and TCP_REPAIR");
            return None;
        }
        let lab = Self { client: Netns::new(), host: Netns::new() };
        let host = format!("/proc/{}/fd/{}", std::process::id(), lab.host.0.as_raw_fd());
        lab.client.ip(&format!("link add wire type veth peer name wire netns {host}\n"));
        // Without addresses of its own and DAD nothing has to be waited for.
        for (netns, number) in [(&lab.client, 7), (&lab.host, 1)] {
            netns.ip(&format!(
                "link set lo up\n\
                 link set wire addrgenmode none\n\
                 link set wire up\n\
                 addr add 192.0.2.{number}/24 dev wire\n\
                 addr add 2001:db8::{number}/64 dev wire nodad\n\
                 addr add fe80::{number}/64 dev wire nodad\n"
            ));
        }
        Some(lab)
    }
}
