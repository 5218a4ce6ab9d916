// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A mail daemon in a cgroup of its own, as systemd starts one.

use std::fs;
use std::time::Duration;

use limiter_lab::cgroup::Cgroup;
use limiter_lab::process::Process;
use limiter_lab::{Lab, SOON, eventually, let_time_pass, same, sockets};

/// An empty cgroup, named for the lab.
pub fn cgroup(lab: &Lab) -> Cgroup {
    Cgroup::new(&lab.name).unwrap()
}

/// Serves in it: greets at port 25, and holds what it accepts.
pub fn serve(lab: &Lab, cgroup: &Cgroup) -> Process {
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
    command.args(["-c", enter, "sh"]).arg(cgroup.path()).arg(SERVER);
    let server = Process::start("a server in a cgroup", command).unwrap();
    eventually("it listens", SOON, || same("listeners", &sockets::listeners(&lab.host, &[25]), &1));
    server
}

/// Removes the cgroup, and makes another at the same path after two seconds, as for a service that systemd starts
/// again; returns the id of the one before.
pub fn remake(cgroup: &Cgroup) -> u64 {
    let id = cgroup.id().unwrap();
    eventually("it is empty", SOON, || fs::remove_dir(cgroup.path()).map_err(|error| error.to_string()));
    let_time_pass(Duration::from_secs(2), "the service is down");
    fs::create_dir(cgroup.path()).unwrap();
    id
}
