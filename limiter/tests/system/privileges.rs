// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Not root enough: what is missing is said in one sentence, with the way to it, and nothing is left behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;

use crate::support::seccomp::refuse;
use limiter_lab::command::Outcome;
use limiter_lab::{Lab, Limiter};

/// What Docker leaves a container, capabilities(7).
const DOCKER: &str = "+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,\
                      +sys_chroot,+mknod,+audit_write,+setfcap";

/// What is there of an instance, in the kernel and in `/run/limiter`.
pub fn left(limiter: &Limiter) -> Vec<String> {
    let mut left = Vec::new();
    for (dir, separator) in [("/sys/fs/bpf", '+'), ("/run/limiter", '.')] {
        let names = fs::read_dir(dir).into_iter().flatten();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let is_ours =
            |name: &String| name.trim_start_matches('.').split(separator).next() == Some(&limiter.instance);
        left.extend(names.filter(is_ours).map(|name| format!("{dir}/{name}")));
    }
    left
}

/// Starts a daemon that cannot start; what it says.
#[track_caller]
fn refused(limiter: &Limiter, mut command: Command) -> String {
    command.args(["--instance", &limiter.instance, "run", "--config"]).arg(limiter.config_path());
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let said = outcome.stderr.trim_end();
    assert!(said.starts_with("limiter: ") && said.lines().count() == 1, "{outcome:?}");
    assert!(!said.contains("5.15"), "this kernel is not too old: {said}");
    assert_eq!(left(limiter), Vec::<String>::new(), "{said}");
    said.to_owned()
}

#[test]
fn a_missing_capability_is_named() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::absent(&lab);
    for (bounds, named) in [
        ("-perfmon,-sys_admin", "limiter lacks CAP_PERFMON to load its kernel programs"),
        ("-bpf,-sys_admin", "limiter lacks CAP_BPF to load its kernel programs"),
        ("-net_admin", "limiter lacks CAP_NET_ADMIN to load its kernel programs"),
        (
            &format!("-all,{DOCKER}"),
            "limiter lacks CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN to load its kernel programs",
        ),
    ] {
        let mut command = lab.host.command("setpriv");
        command.args([&format!("--bounding-set={bounds}"), crate::BINARY]);
        let said = refused(&limiter, command);
        assert!(said.contains(named) && said.contains("--cap-add"), "{said}");
    }
}

#[test]
fn less_than_all_capabilities_are_enough() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::absent(&lab);
    // For the tests' own --netns it takes CAP_SYS_ADMIN, which would do for the others.
    let said = {
        let mut command = lab.host.command("setpriv");
        command.args(["--bounding-set=-sys_admin", crate::BINARY]).args(limiter.run_arguments());
        Outcome::of(command)
    };
    assert!(said.stderr.contains("limiter lacks CAP_SYS_ADMIN (for --netns)"), "{said:?}");
    assert_eq!(left(&limiter), Vec::<String>::new());
    let file = limiter.config_path();
    limiter.run_as(lab.host.command("setpriv"), |command| {
        command.args([
            "--pdeathsig",
            "TERM",
            &format!("--bounding-set=-all,{DOCKER},+bpf,+perfmon,+net_admin"),
            crate::BINARY,
        ]);
        command.args(["--instance", &lab.name, "run", "--config"]).arg(file);
    });
    assert_eq!(limiter.json(&["status"])["in_force"], true);
    assert!(!limiter.log().contains("ERROR"), "{}", limiter.log());
}

#[test]
fn root_of_a_user_namespace_is_told_that_it_is_none() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::absent(&lab);
    let mut command = lab.host.command("unshare");
    command.args(["--user", "--map-root-user", crate::BINARY]);
    let said = refused(&limiter, command);
    assert!(said.contains("user namespace") && said.contains("root of the host"), "{said}");
}

#[test]
fn a_seccomp_filter_in_the_way_is_named() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::absent(&lab);
    for errno in [Errno::EPERM, Errno::ENOSYS] {
        let mut command = lab.host.command(crate::BINARY);
        refuse(&mut command, &[libc::SYS_bpf], errno);
        let said = refused(&limiter, command);
        assert!(said.contains("seccomp filter") && said.contains("SystemCallFilter="), "{said}");
    }
}

/// `PrivateNetwork=` in the unit.
#[test]
fn a_network_namespace_that_nobody_can_reach_is_warned_of() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::absent(&lab);
    let file = limiter.config_path();
    limiter.run_as(Command::new("unshare"), |command| {
        command.args([
            "--net",
            "setpriv",
            "--pdeathsig",
            "TERM",
            crate::BINARY,
            "--instance",
            &lab.name,
            "run",
            "--config",
        ]);
        command.arg(file);
    });
    let log = limiter.log();
    assert!(log.contains("has no interface except lo") && log.contains("PrivateNetwork="), "{log}");
    assert!(Path::new("/sys/fs/bpf").join(&lab.name).exists());
}
