// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A failure at each step of each verb that changes something: afterwards everything is as it was, or as it was wanted,
//! the exit code and the sentence say which, and the next command does the rest.

mod hangup;
mod starts;

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use nix::errno::Errno;
use nix::libc;
use serde_json::{Value, json};

use crate::support::seccomp::{Step, Supervised, refuse};
use limiter_lab::command::Outcome;
use limiter_lab::{Lab, Limiter, SOON, eventually};

/// What a step is: whatever may change something, or be in the way of it.
const SYSCALLS: [libc::c_long; 24] = [
    libc::SYS_bpf,
    libc::SYS_openat,
    libc::SYS_write,
    libc::SYS_fsync,
    libc::SYS_fchmod,
    libc::SYS_chmod,
    libc::SYS_fchown,
    libc::SYS_ftruncate,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_flock,
    libc::SYS_statx,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_membarrier,
    libc::SYS_socket,
    libc::SYS_getsockopt,
    libc::SYS_statfs,
];

/// All that a verb may change, as others see it.
fn state(limiter: &Limiter) -> Value {
    let mut status = limiter.json(&["status"]);
    for service in status["services"].as_array_mut().unwrap() {
        service.as_object_mut().unwrap().remove("counters");
    }
    let bans = limiter.json(&["bans"]);
    let bans: Vec<_> =
        bans["bans"].as_array().unwrap().iter().map(|ban| (&ban["service"], &ban["source"])).collect();
    let bans = json!(bans);
    let mut beside: Vec<String> = fs::read_dir(limiter.config_path().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    beside.sort();
    json!({
        "services": status["services"],
        "in_force": status["in_force"],
        "daemon": status["daemon"],
        "rules": limiter.json(&["rules"]),
        "bans": bans,
        "file": fs::read_to_string(limiter.config_path()).unwrap_or_default(),
        "beside": beside,
    })
}

/// Runs a verb of which the `nth` step fails.
fn with_failure(limiter: &Limiter, arguments: &[&str], nth: usize) -> (Outcome, Vec<Step>) {
    let mut command = limiter.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Supervised::start(command, &SYSCALLS, Errno::EPERM, move |index, _, _| index == nth).wait()
}

/// Fails, with what differs only, where the two are not the same.
#[track_caller]
fn assert_same(now: &Value, expected: &Value, about: &str) {
    let (now, expected) = (now.as_object().unwrap(), expected.as_object().unwrap());
    for (key, value) in now {
        assert_eq!(value, &expected[key], "{key}: {about}");
    }
}

/// Whether a step looks at something, and changes nothing.
fn looks((syscall, label): &Step) -> bool {
    /// Commands of bpf(2) that look: `BPF_MAP_LOOKUP_ELEM`, `BPF_OBJ_GET`, `BPF_OBJ_GET_INFO_BY_FD`,
    /// `BPF_MAP_LOOKUP_BATCH`.
    const LOOKS: [&str; 4] = ["bpf 1 ", "bpf 7", "bpf 15", "bpf 24 "];
    match *syscall {
        libc::SYS_bpf => LOOKS.iter().any(|command| label.starts_with(command)),
        syscall => syscall == libc::SYS_statx || syscall == libc::SYS_openat,
    }
}

/// Which of the steps of a verb to have fail: each that changes something, and of those that look at the same thing in
/// the same way, such as opening a map, the first and the last. What the dynamic linker does is not the limiter's.
fn chosen(steps: &[Step]) -> Vec<usize> {
    let is_chosen = |index: &usize| {
        let step = &steps[*index];
        let is_edge = !steps[..*index].contains(step) || !steps[index + 1..].contains(step);
        let is_linkers = [".so", "/etc/ld"].iter().any(|part| step.1.contains(part));
        !is_linkers && (!looks(step) || is_edge)
    };
    (0..steps.len()).filter(is_chosen).collect()
}

/// What is banned, by the file: that outlives a restart of the host.
fn written_bans(limiter: &Limiter) -> BTreeSet<String> {
    let text = fs::read_to_string(format!("/var/lib/limiter/{}.bans", limiter.instance)).unwrap_or_default();
    let mut banned = BTreeSet::new();
    for line in text.lines().skip(1) {
        let line: Value = serde_json::from_str(line).expect("each line is whole");
        let all = |key: &str| line[key].as_array().cloned().unwrap_or_default();
        let who = |ban: &Value| format!("{} {}", ban["service"], ban["source"]);
        for ban in all("end") {
            banned.remove(&who(&ban));
        }
        banned.extend(all("ban").iter().map(who));
    }
    banned
}

/// Waits until the file says who is banned: what a command could not write down the daemon does.
#[track_caller]
fn assert_written(limiter: &Limiter, about: &str) {
    let bans = limiter.json(&["bans"]);
    let bans = bans["bans"].as_array().unwrap().iter();
    let banned: BTreeSet<_> = bans.map(|ban| format!("{} {}", ban["service"], ban["source"])).collect();
    eventually(about, SOON, || {
        let written = written_bans(limiter);
        if written == banned {
            Ok(())
        } else {
            Err(format!("{banned:?} are banned, and written down {written:?}"))
        }
    });
}

/// Has each step of a verb fail, one after the other. `back` takes back what it does.
fn at_each_step(limiter: &Limiter, arguments: &[&str], back: &[&str]) {
    let before = state(limiter);
    let (outcome, steps) = with_failure(limiter, arguments, usize::MAX);
    assert_eq!(outcome.code, Some(0), "{arguments:?} without a failure: {outcome:?}");
    let wanted = state(limiter);
    assert_ne!(before, wanted, "limiter {arguments:?} changes something");
    let take_back = |about: &str| {
        limiter.ok(back);
        assert_same(&state(limiter), &before, &format!("{back:?} takes it back: {about}"));
    };
    take_back("the first time");
    let chosen = chosen(&steps);
    assert!(chosen.len() > 20, "there are few steps: {steps:?}");
    let mut failed = 0;
    for nth in chosen {
        let (outcome, steps) = with_failure(limiter, arguments, nth);
        let about = format!("limiter {arguments:?}, step {nth} fails ({:?}): {outcome:?}", steps.get(nth));
        let now = state(limiter);
        if outcome.code == Some(0) {
            assert_same(&now, &wanted, &about);
            // Done all the same, and what of it is not as it should be is said.
            let is_said = ["limiter: warning: ", "limiter: the change is done, "];
            let is_said = is_said.iter().any(|begin| outcome.stderr.starts_with(begin));
            assert!(outcome.stderr.is_empty() || is_said && is_a_sentence(&outcome.stderr), "{about}");
            assert_written(limiter, &about);
        } else {
            assert_same(&now, &before, &about);
            assert!(outcome.stdout.is_empty() && is_a_sentence(&outcome.stderr), "{about}");
            assert_written(limiter, &about);
            failed += 1;
            limiter.ok(arguments);
            assert_same(&state(limiter), &wanted, &format!("the next one does it: {about}"));
        }
        take_back(&about);
    }
    assert!(failed > 10, "few of the steps have it fail: {failed}");
}

/// Whether this is how the limiter says what is wrong.
fn is_a_sentence(said: &str) -> bool {
    said.lines().count() == 1 && said.len() > 30 && said.starts_with("limiter: ")
}

const FILE: &str = "hostname = \"mx.example.net\"

[defaults]
max_connections = 3 # few
response = \"reset\"
";

/// With a file that has everything `--save` keeps.
fn limiter(lab: &Lab) -> Limiter {
    let limiter = Limiter::start_with(lab, "");
    limiter.configure_all(FILE);
    limiter.ok(&["reload"]);
    limiter
}

#[test]
fn a_failure_at_any_step_of_set_changes_nothing() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = limiter(&lab);
    at_each_step(&limiter, &["set", "smtp", "max_connections=5"], &["set", "smtp", "max_connections=3"]);
}

#[test]
fn a_failure_at_any_step_of_save_changes_neither_the_policy_nor_the_file() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = limiter(&lab);
    at_each_step(&limiter, &["deny", "198.51.100.0/24", "--save"], &["forget", "198.51.100.0/24", "--save"]);
}

#[test]
fn a_failure_at_any_step_of_a_rule_changes_nothing() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = limiter(&lab);
    at_each_step(
        &limiter,
        &["limit", "2001:db8:7::/48", "4", "--service", "smtp"],
        &["forget", "2001:db8:7::/48"],
    );
}

#[test]
fn a_failure_at_any_step_of_forgetting_a_rule_changes_nothing() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = limiter(&lab);
    limiter.ok(&["deny", "198.51.100.0/24"]);
    at_each_step(&limiter, &["forget", "198.51.100.0/24"], &["deny", "198.51.100.0/24"]);
}

#[test]
fn a_failure_at_any_step_of_a_reload_changes_nothing() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = limiter(&lab);
    limiter.ok(&["set", "imap", "max_connections=7"]);
    at_each_step(&limiter, &["reload"], &["set", "imap", "max_connections=7"]);
}

/// Two sources, of each family, at each service.
const BAN: [&str; 5] = ["ban", "203.0.113.9", "2001:db8:5::1", "--for", "1h"];
const UNBAN: [&str; 3] = ["unban", "203.0.113.9", "2001:db8:5::1"];

#[test]
fn a_failure_at_any_step_of_a_ban_bans_nobody_or_all_and_the_file_says_so() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = limiter(&lab);
    // Beside others, which stay.
    limiter.ok(&["ban", "203.0.113.8", "--service", "imap"]);
    at_each_step(&limiter, &BAN, &UNBAN);
}

#[test]
fn a_failure_at_any_step_of_unban_ends_no_ban_or_all_and_the_file_says_so() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = limiter(&lab);
    limiter.ok(&["ban", "203.0.113.8", "--service", "imap"]);
    limiter.ok(&BAN);
    at_each_step(&limiter, &UNBAN, &BAN);
}

#[test]
fn a_failure_at_any_step_of_a_ban_of_a_list_bans_nobody_or_all_and_so_does_unban() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = limiter(&lab);
    let list = limiter.config_path().with_file_name("list");
    let sources: Vec<String> = (1..=12).map(|nth| format!("192.0.2.{nth}0\n")).collect();
    fs::write(&list, sources.concat()).unwrap();
    let list = list.display().to_string();
    let (ban, unban) =
        (["ban", "--service", "smtp", "--from", &list], ["unban", "--service", "smtp", "--from", &list]);
    at_each_step(&limiter, &ban, &unban);
    limiter.ok(&ban);
    at_each_step(&limiter, &unban, &ban);
}

/// As on kernels with `nohz_full`, and under many a seccomp filter.
#[test]
fn nothing_needs_membarrier() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::absent(&lab);
    limiter.configure_all(FILE);
    limiter.run_with(|command| refuse(command, &[libc::SYS_membarrier], Errno::EINVAL));
    for arguments in [
        &["set", "smtp", "max_connections=5", "--save"][..],
        &["deny", "198.51.100.0/24"],
        &["ban", "203.0.113.9"],
        &["unban", "203.0.113.9"],
        &["reload"],
        &["unload"],
    ] {
        let mut command = limiter.command(arguments);
        refuse(&mut command, &[libc::SYS_membarrier], Errno::EPERM);
        let outcome = Outcome::of(command);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{arguments:?}: {outcome:?}");
    }
}

/// Where there is no way to wait for the verdicts under way, that is found out before anything is changed.
#[test]
fn where_nobody_can_wait_for_the_kernel_nothing_is_changed() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = limiter(&lab);
    let other = limiter.config_path().with_file_name("other.toml");
    fs::write(&other, "[defaults]\nmax_connections = 9\n").unwrap();
    let before = state(&limiter);
    for arguments in [
        &["set", "smtp", "max_connections=5", "--save"][..],
        &["deny", "198.51.100.0/24"],
        &["ban", "203.0.113.9"],
        &["reload", "--config", &other.display().to_string()],
    ] {
        let mut command = limiter.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // Maps of maps, that is: maps are made for nothing else here.
        let is_map = |_, (_, label): &Step, _| label == "bpf 0";
        let (outcome, _) = Supervised::start(command, &[libc::SYS_bpf], Errno::EPERM, is_map).wait();
        assert_eq!(outcome.code, Some(1), "{arguments:?}: {outcome:?}");
        let said = "the kernel refuses the map that waits for the current verdicts (EPERM: Operation not \
                    permitted): a seccomp filter applies to limiter";
        assert!(outcome.stderr.contains(said) && is_a_sentence(&outcome.stderr), "{outcome:?}");
        assert_same(&state(&limiter), &before, &format!("{arguments:?}: {outcome:?}"));
    }
}
