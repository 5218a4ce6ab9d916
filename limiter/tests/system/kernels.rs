// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Kernels that are built otherwise, as far as that can be shown on this one; and threads that end.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;

use crate::support::seccomp::{Supervised, refuse_with};
use limiter_lab::{Answer, Lab, Limiter, Sink, V4};

/// Starts a daemon to which the kernel tells other names of some members of its structures.
fn start_with_renamed(
    lab: &Lab,
    limiter: &mut Limiter,
    members: &[&str],
    prepare: impl FnOnce(&mut Command),
) {
    const TYPES: &str = "/sys/kernel/btf/vmlinux";
    const RENAMED: &str =
        "mount --bind \"$0\" /sys/kernel/btf/vmlinux && exec setpriv --pdeathsig TERM \"$@\"";
    let mut types = fs::read(TYPES).unwrap();
    for member in members {
        let name = format!("\0{member}\0");
        let found = types.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
        types[found + 1] = b'X';
    }
    let file = limiter.config_path().with_file_name("vmlinux");
    fs::write(&file, types).unwrap();
    let arguments = limiter.run_arguments();
    limiter.run_as(lab.host.command("unshare"), |command| {
        command.args(["--mount", "sh", "-c", RENAMED]).arg(&file).arg(crate::BINARY).args(arguments);
        prepare(command);
    });
}

/// The connection that the limit of 1 lets in; the next one is told why.
#[track_caller]
fn one_is_served_and_no_more(lab: &Lab) -> TcpStream {
    let (source, smtp) = (V4.source(), V4.port(25));
    let held = lab.served(source, smtp);
    assert_eq!(lab.answer(source, smtp), Answer::Line(Limiter::smtp_reply(1, source)));
    held
}

/// `CONFIG_IPV6=n`: no structure has a member for it, and there are no sockets of it.
#[test]
fn without_ipv6_in_the_kernel_ipv4_is_limited_as_ever() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::absent(&lab);
    limiter.configure("[defaults]\nmax_connections = 1\n");
    let members = ["pinet6", "skc_v6_daddr", "skc_v6_rcv_saddr"];
    start_with_renamed(&lab, &mut limiter, &members, |command| {
        let (syscall, family) = (libc::SYS_socket, libc::AF_INET6 as u32);
        refuse_with(command, syscall, family, Errno::EAFNOSUPPORT);
    });
    let log = limiter.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    let held = one_is_served_and_no_more(&lab);
    assert!(limiter.ok(&["status", "--verify"]).contains("match"));
    drop(held);
}

#[test]
fn a_kernel_that_only_the_census_does_not_know_is_limited_without_it() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::absent(&lab);
    limiter.configure("[defaults]\nmax_connections = 1\n");
    start_with_renamed(&lab, &mut limiter, &["kn"], |_| ());
    let log = limiter.log();
    let said =
        "this kernel's struct cgroup has no member kn; connections older than the limiter are not counted";
    assert!(log.contains(said) && !log.contains("ERROR"), "{log}");
    drop(one_is_served_and_no_more(&lab));
}

#[test]
fn a_daemon_whose_upkeep_has_ended_says_so_and_ends() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::absent(&lab);
    let mut command = Command::new(crate::BINARY);
    command.args(limiter.run_arguments()).env("NO_COLOR", "1").stdout(Stdio::null()).stderr(Stdio::piped());
    // It sleeps between its rounds, and panics where it cannot.
    let mut rounds = 0;
    let fails = move |_, _: &_, thread: u32| {
        let name = fs::read_to_string(format!("/proc/{thread}/comm")).unwrap_or_default();
        rounds += u32::from(name == "upkeep\n");
        rounds > 2
    };
    let syscalls = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep];
    let (outcome, _) = Supervised::start(command, &syscalls, Errno::EPERM, fails).wait();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let last = outcome.stderr.lines().last().unwrap();
    assert!(last.starts_with("limiter: the maintenance thread has stopped"), "{last}");
    assert_eq!(limiter.json(&["status"])["in_force"], true);
    assert_eq!(limiter.json(&["status"])["daemon"]["running"], false);
}
