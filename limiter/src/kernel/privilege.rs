// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the kernel asks of whoever loads programs, and a sentence for each thing that may be missing: containers,
//! units and sandboxes take away one or the other, and then the kernel says no more than `EPERM`.

use std::fs;

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use nix::errno::Errno;

use super::release::Release;

/// A capability, by its name and number (capabilities(7)).
type Capability = (&'static str, u32);

const NET_ADMIN: Capability = ("CAP_NET_ADMIN", 12);
const SYS_ADMIN: Capability = ("CAP_SYS_ADMIN", 21);
const PERFMON: Capability = ("CAP_PERFMON", 38);
const BPF: Capability = ("CAP_BPF", 39);

/// The oldest kernel that has all the programs use.
const OLDEST: (u32, u32) = (5, 15);

/// Checks that this process may load kernel programs, and `enters` another network namespace, before anything is
/// done.
///
/// # Errors
/// What is missing, and how to give it.
pub fn check_to_load(enters: bool) -> Result<()> {
    let status =
        fs::read_to_string("/proc/thread-self/status").context("cannot read /proc/thread-self/status")?;
    let users = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let release = Release::running();
    if let Some(complaint) = missing(&status, &users, enters) {
        return Err(anyhow!(complaint));
    }
    ensure!(
        release.is_at_least(OLDEST),
        "this is Linux {release}: {}.{} or later is needed",
        OLDEST.0,
        OLDEST.1
    );
    Ok(())
}

/// What `problem`, the kernel's refusal of `what`, comes of, as far as that can be told.
pub fn explain(problem: &Error, what: &str) -> Error {
    explain_by(problem, what, false)
}

/// The same for a program, of which the verifier has said `verifier_log`.
pub fn explain_program(problem: &Error, name: &str, verifier_log: &str) -> Error {
    let what = format!("the program {name} (RUST_LOG=debug shows the verifier's reasons)");
    explain_by(problem, &what, has_looked(verifier_log))
}

/// Whether a verifier has looked at the program, and said how far it came (`print_verification_stats`,
/// kernel/bpf/verifier.c): then the refusal is its own, with the same numbers as for want of a right.
fn has_looked(verifier_log: &str) -> bool {
    verifier_log.lines().any(|line| line.starts_with("processed "))
}

fn explain_by(problem: &Error, what: &str, is_verifiers: bool) -> Error {
    let errno = problem.root_cause();
    let errno = match (errno.downcast_ref::<Errno>(), errno.downcast_ref::<std::io::Error>()) {
        (Some(errno), _) => *errno,
        (_, Some(error)) => error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw),
        _ => Errno::UnknownErrno,
    };
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let users = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if matches!(errno, Errno::EPERM | Errno::EACCES)
        && let Some(complaint) = missing(&status, &users, false)
    {
        return anyhow!(complaint);
    }
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    match reason(errno, is_verifiers, &status, &lockdown) {
        Some(reason) => anyhow!("the kernel refuses {what} ({errno}): {reason}"),
        // What is between is the same again in other words.
        None => anyhow!("Linux {} refuses {what}: {}", Release::running(), problem.root_cause()),
    }
}

/// Why the kernel refuses what this process has the capabilities for; none where that is its verifier's own affair.
fn reason(errno: Errno, is_verifiers: bool, status: &str, lockdown: &str) -> Option<&'static str> {
    // SECCOMP_MODE_FILTER.
    let is_filtered = field(status, "Seccomp").is_some_and(|mode| mode == "2");
    match errno {
        Errno::EPERM | Errno::EACCES if is_verifiers => None,
        Errno::ENOSYS if !is_filtered => {
            Some("this kernel was built without CONFIG_BPF_SYSCALL, so use another one")
        }
        Errno::EPERM | Errno::EACCES | Errno::ENOSYS if is_filtered => Some(
            "a seccomp filter applies to limiter, so allow bpf(2) in it (systemd: SystemCallFilter=; a \
             container: --security-opt seccomp=)",
        ),
        Errno::EPERM | Errno::EACCES if lockdown.contains("[confidentiality]") => {
            Some("the kernel is locked down for confidentiality, so boot with lockdown=integrity or without")
        }
        Errno::EPERM | Errno::EACCES => Some(
            "limiter has the needed capabilities, so a security module (SELinux, AppArmor, BPF LSM) denies it: \
             see its log",
        ),
        Errno::ENOMEM => {
            Some("there is too little memory for it, so allow more (systemd: MemoryMax=) or free some")
        }
        _ => None,
    }
}

/// What a process with this `/proc/PID/status` and `/proc/PID/uid_map` lacks.
fn missing(status: &str, users: &str, enters: bool) -> Option<String> {
    // The first user namespace knows all users by their own numbers; in any other capabilities are for what it owns.
    let mut first = users.split_whitespace();
    if !users.is_empty()
        && [first.next(), first.next(), first.next()] != [Some("0"), Some("0"), Some("4294967295")]
    {
        return Some(
            "limiter runs as root of a user namespace (`unshare -r`, a rootless container), where the kernel \
             does not allow loading programs: run it as root of the host"
                .to_owned(),
        );
    }
    let effective = u64::from_str_radix(field(status, "CapEff")?, 16).ok()?;
    let has = |(_, number): Capability| effective >> number & 1 != 0;
    let mut missing: Vec<&str> = Vec::new();
    for capability in [BPF, PERFMON] {
        // What was all of it before Linux 5.8.
        if !has(capability) && !has(SYS_ADMIN) {
            missing.push(capability.0);
        }
    }
    // For Multipath TCP, transparent listeners and waiters the last is not enough.
    if !has(NET_ADMIN) {
        missing.push(NET_ADMIN.0);
    }
    if enters && !has(SYS_ADMIN) {
        missing.push("CAP_SYS_ADMIN (for --netns)");
    }
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "limiter lacks {} to load its kernel programs: give it (systemd: CapabilityBoundingSet=; a container: \
         --cap-add), or run it as root of the host",
        listed(&missing)
    ))
}

/// The value of a line of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn listed(names: &[&str]) -> String {
    match names {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        _ => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "         0          0 4294967295\n";

    fn status(effective: u64) -> String {
        format!("Name:\tlimiter\nCapEff:\t{effective:016x}\nSeccomp:\t0\n")
    }

    #[test]
    fn what_is_missing_is_named() {
        let all = (1_u64 << 41) - 1;
        let without = |gone: &[Capability], enters| {
            let effective = gone.iter().fold(all, |set, (_, number)| set & !(1 << number));
            missing(&status(effective), HOST, enters)
        };
        assert_eq!(without(&[], true), None);
        assert_eq!(without(&[BPF, PERFMON], true), None, "CAP_SYS_ADMIN has both");
        assert_eq!(without(&[SYS_ADMIN], false), None);
        for (gone, enters, named) in [
            (&[PERFMON, SYS_ADMIN][..], false, "lacks CAP_PERFMON to"),
            (&[NET_ADMIN], false, "lacks CAP_NET_ADMIN to"),
            (&[BPF, PERFMON, NET_ADMIN, SYS_ADMIN], false, "lacks CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN to"),
            (&[SYS_ADMIN], true, "lacks CAP_SYS_ADMIN (for --netns) to"),
        ] {
            let said = without(gone, enters).unwrap();
            assert!(said.contains(named) && said.contains("--cap-add"), "{said}");
        }
        // Of `unshare -Ur` and of rootless Podman.
        for users in ["0 1000 1\n", "0 1000 1\n1 100000 65536\n"] {
            assert!(missing(&status(all), users, false).unwrap().contains("user namespace"));
        }
    }

    #[test]
    fn a_refusal_names_what_is_in_the_way() {
        let filtered = "Seccomp:\t2\n";
        let said = |errno, status, lockdown| reason(errno, false, status, lockdown).unwrap_or("nothing");
        assert!(said(Errno::EPERM, filtered, "").contains("seccomp"));
        assert!(said(Errno::ENOSYS, filtered, "").contains("seccomp"));
        assert!(said(Errno::ENOSYS, "Seccomp:\t0\n", "").contains("CONFIG_BPF_SYSCALL"));
        assert!(said(Errno::EPERM, "", "none integrity [confidentiality]").contains("lockdown"));
        assert!(said(Errno::EPERM, "", "none [integrity] confidentiality").contains("security module"));
        assert!(said(Errno::ENOMEM, "", "").contains("memory"));
        assert_eq!(said(Errno::EINVAL, "", ""), "nothing");
    }

    #[test]
    fn what_the_verifier_does_not_take_is_nobody_elses_refusal() {
        // Of Linux 6.1.
        let log =
            "R2 type=mem expected=fp, pkt\nverification time 11879 usec\nprocessed 6 insns (limit 1000000)\n";
        assert!(has_looked(log) && !has_looked(""));
        assert_eq!(reason(Errno::EACCES, true, "Seccomp:\t2\n", "none [confidentiality]"), None);
        assert!(reason(Errno::ENOMEM, true, "", "").unwrap().contains("memory"));
        let said = explain_program(&std::io::Error::from_raw_os_error(13).into(), "ledger", log).to_string();
        assert!(
            said.contains("refuses the program ledger (RUST_LOG=debug") && !said.contains("module"),
            "{said}"
        );
    }
}
