// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Reports to look at, of a host in each state.

use crate::{
    doctor::{Grade, Outcome, Report},
    instance::Instance,
};

fn report(found: Vec<(&'static str, Vec<Outcome>)>) -> Report {
    Report::new(&"limiter".parse::<Instance>().expect("a name"), found)
}

fn good(checks: &[(&'static str, &str)]) -> Vec<(&'static str, Vec<Outcome>)> {
    checks.iter().map(|(check, sentence)| (*check, vec![Outcome::good(*sentence)])).collect()
}

const HOST: [(&str, &str); 6] = [
    ("kernel", "Linux 6.12.117+deb13-amd64"),
    ("types", "the kernel describes its types (BTF)"),
    ("jit", "the kernel compiles its programs (bpf_jit_enable = 1)"),
    ("lockdown", "the kernel is not locked down"),
    ("privileges", "this process may load kernel programs"),
    ("bpffs", "/sys/fs/bpf is the host's BPF file system"),
];

/// Each state, its report, and whether all of it is shown.
pub fn states() -> Vec<(&'static str, Report, bool)> {
    let mut healthy = good(&HOST);
    healthy.extend(good(&[
        ("limits", "the limits of instance limiter are in force"),
        ("daemon", "the daemon runs and answers, pid 4711"),
        ("listeners", "imap: dovecot (pid 812, dovecot.service) at 143, 993, backlog 100"),
        ("queues", "no accept queue of a mail port is nearly full, and none overflowed"),
    ]));
    let mut wrong = good(&HOST);
    wrong.push((
        "limits",
        vec![Outcome::quoting(
            Grade::Bad,
            "programs not attached: gate; the protected network namespace or cgroup no longer exists, or somebody \
             detached the programs: stop the daemon if it runs, and start `limiter run`; a daemon \
             with --cgroup attaches them again when a cgroup exists at that path",
        )],
    ));
    wrong.push((
        "queues",
        vec![
            Outcome::bad(
                "port 993: 101 connections wait to be accepted by dovecot, and 100 may: the queue is full, so the \
                 kernel drops who completes a handshake; find out why it is slow (its log, its process limit, the \
                 load), or give it a longer queue",
            )
            .mended_by("ss -ltnp sport = :993"),
        ],
    ));
    wrong.push((
        "mail-limits",
        vec![
            Outcome::warning(
                "imap: Dovecot serves 100 connections at most (service imap-login { process_limit = 100 }), and \
                 limiter lets 400 in: whoever comes beyond 100 waits without an answer",
            )
            .mended_by("limiter set imap max_total=100 --save"),
            Outcome::unknown("/usr/sbin/exim4 -bP is still running after 1.2 s"),
        ],
    ));
    wrong.push((
        "clock",
        vec![
            Outcome::note(
                "no time service keeps the clock of this host right (or it does not tell the kernel): certificates, \
                 the log and bans over a restart go by it",
            )
            .mended_by("timedatectl set-ntp true"),
        ],
    ));
    let mut absent = good(&HOST);
    absent.push((
        "limits",
        vec![
            Outcome::bad(
                "instance limiter is not loaded: start it with `limiter run`, or name \
                          another --instance",
            )
            .mended_by("limiter run"),
        ],
    ));
    absent.extend(["hooks", "daemon", "ledger"].map(|check| (check, Vec::new())));
    vec![
        ("doctor-healthy", report(healthy.clone()), false),
        ("doctor-all", report(healthy), true),
        ("doctor-wrong", report(wrong), false),
        ("doctor-not-loaded", report(absent), false),
    ]
}
