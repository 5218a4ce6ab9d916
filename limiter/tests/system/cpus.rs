// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! CPUs that the daemon may not run on.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use limiter_lab::client::knock;
use limiter_lab::pinned::Slots;
use limiter_lab::sink::listener;
use limiter_lab::{Lab, Limiter, SOON, V4, eventually, same, skip, sockets};

/// A cpuset with CPU 0 alone, removed with the test.
struct OnlyCpu0(PathBuf);

impl OnlyCpu0 {
    /// Moves a process into a new one; `None` where this system has neither kind of it.
    fn confine(lab: &Lab, pid: u32) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("proc is mounted");
        let mounted = |wanted: &dyn Fn(&str, &str) -> bool| {
            mounts.lines().find_map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                wanted(words[2], words[3]).then(|| PathBuf::from(words[1]))
            })
        };
        let has_cpuset = |options: &str| options.split(',').any(|option| option == "cpuset");
        let (root, is_v1) = match mounted(&|kind, options| kind == "cgroup" && has_cpuset(options)) {
            Some(root) => (root, true),
            None => (mounted(&|kind, _| kind == "cgroup2")?, false),
        };
        if !is_v1 {
            fs::write(root.join("cgroup.subtree_control"), "+cpuset").ok()?;
        }
        let group = Self(root.join(format!("{}-cpus", lab.name)));
        fs::create_dir(&group.0).expect("root may make a cgroup");
        let write = |file: &str, text: &str| fs::write(group.0.join(file), text).expect("root may write");
        write("cpuset.cpus", "0");
        if is_v1 {
            write("cpuset.mems", "0");
        }
        write("cgroup.procs", &pid.to_string());
        Some(group)
    }
}

impl Drop for OnlyCpu0 {
    fn drop(&mut self) {
        let parent = self.0.parent().unwrap_or(Path::new("/"));
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(parent.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_place_on_a_cpu_that_the_daemon_may_not_run_on_is_given_back() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return skip("there is only one CPU");
    }
    let limiter = Limiter::start(&lab, 8, "reset");
    let Some(_confined) = OnlyCpu0::confine(&lab, limiter.pid().unwrap()) else {
        return skip("this system has no cpusets");
    };
    let ([source, other, _], smtp) = (V4.sources, V4.port(25));
    // As in `a_full_accept_queue_neither_counts_nor_keeps_a_place_for_what_it_has_no_room_for`.
    let server = listener(&lab, smtp, 3);
    let others: Vec<TcpStream> = (0..2).map(|_| lab.dial(other, smtp).unwrap()).collect();
    // It looks once a second, and is not to look before the place is where it belongs.
    let daemon = Pid::from_raw(i32::try_from(limiter.pid().unwrap()).unwrap());
    kill(daemon, Signal::SIGSTOP).unwrap();
    lab.deafen(source);
    let clients: Vec<TcpStream> = lab.client.run(|| (0..4).map(|_| knock(source, smtp)).collect());
    eventually("the SYNs are there", SOON, || {
        same("half open", &sockets::half_open(&lab.host, 25).len(), &4)
    });
    lab.undeafen(source);
    for client in &clients {
        eventually("the client has its SYN-ACK", SOON, || {
            same("connected", &client.peer_addr().is_ok(), &true)
        });
    }
    sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 2);
    // From now on no packet comes to any CPU, and the last one has left a place reserved.
    lab.cut();
    let mut slots = Slots::open(&limiter);
    slots.move_to(1);
    let pending = slots.generations();
    assert!(pending[0] == 0 && pending[1] != 0, "{pending:?}");
    assert_eq!(limiter.source("smtp", source).reserved, 1);
    kill(daemon, Signal::SIGCONT).unwrap();
    eventually("the place is given back", SOON, || {
        same("reserved", &limiter.source("smtp", source).reserved, &0)
    });
    assert_eq!(slots.generations(), vec![0; pending.len()]);
    sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 2);
    drop((clients, others, server));
}
