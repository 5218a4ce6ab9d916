// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A cgroup of a test's own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::process::Process;
use super::{Lab, SOON, eventually, same, truth};

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

    /// A mail daemon in it, as systemd starts one: it greets at port 25, and holds what it accepts.
    pub fn serve(&self, lab: &Lab) -> Process {
        const SERVER: &str = "
import socket
listener = socket.create_server(('::', 25), family=socket.AF_INET6, dualstack_ipv6=True)
held = []
while True:
    held.append(listener.accept()[0])
    held[-1].sendall(b'220 cgroup\\r\\n')
";
        let mut command = lab.host.command("sh");
        let enter = "echo $$ > \"$1/cgroup.procs\" && exec python3 -c \"$2\"";
        command.args(["-c", enter, "sh"]).arg(self.path()).arg(SERVER);
        let server = Process::start("a server in a cgroup", command);
        eventually("it listens", SOON, || same("listeners", &truth::listeners(&lab.host, &[25]), &1));
        server
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.0).expect("it is there").ino()
    }

    /// Takes it away, and makes another at the same path after two seconds; returns the id of the one before. Of a
    /// service that systemd starts again.
    pub fn remake(&self) -> u64 {
        let id = self.id();
        eventually("it is empty", SOON, || fs::remove_dir(&self.0).map_err(|error| error.to_string()));
        std::thread::sleep(std::time::Duration::from_secs(2));
        fs::create_dir(&self.0).expect("root may make a cgroup");
        id
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
