// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A failure at each step of a start, of what takes another one over or replaces it, and of its end.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};

use super::*;
use crate::privileges::left;

/// How long a start may take.
const WITHIN: Duration = Duration::from_secs(120);

/// Of a daemon that starts: until it serves, or has ended. What it gave, if it has ended, and its steps.
fn start_with_failure(limiter: &Limiter, nth: usize) -> (Option<Outcome>, Vec<Step>) {
    let mut command = Command::new(crate::BINARY);
    command.args(limiter.run_arguments()).stdout(Stdio::null()).stderr(Stdio::piped());
    let fails = move |index, _: &Step, _| index == nth;
    let mut daemon = Supervised::start(command, &SYSCALLS, Errno::EPERM, fails);
    let pid = format!("{}\n", daemon.child.id());
    let file = format!("/run/limiter/{}.pid", limiter.instance);
    let serves = eventually("it serves, or has ended", WITHIN, || {
        if daemon.child.try_wait().unwrap().is_some() {
            return Ok(false);
        }
        // Without a command of its own: one a look would take most of the time.
        let number = fs::read_to_string(&file);
        if number.is_ok_and(|number| number == pid) { Ok(true) } else { Err("it does neither".to_owned()) }
    });
    if !serves {
        let (outcome, steps) = daemon.wait();
        return (Some(outcome), steps);
    }
    let steps = daemon.steps();
    daemon.child.kill().unwrap();
    daemon.wait();
    (None, steps)
}

/// Of the steps of a start, the last of each kind: by then the most has to be taken back. All of them with
/// `LIMITER_TEST_EVERY_STEP`, which takes half an hour.
fn chosen_of_start(steps: &[Step]) -> Vec<usize> {
    let mut chosen = chosen(steps);
    if std::env::var_os("LIMITER_TEST_EVERY_STEP").is_none() {
        let kind = |index: usize| {
            let (syscall, label) = &steps[index];
            // Of a path, the directory.
            let what = label.rsplit_once('/').map_or(label.as_str(), |(dir, _)| dir);
            (*syscall, if looks(&steps[index]) { what.split(' ').take(2).collect() } else { what.to_owned() })
        };
        let all = chosen.clone();
        chosen.retain(|&index| !all.iter().any(|&later| later > index && kind(later) == kind(index)));
    }
    chosen
}

/// What a start that has failed says: last, after what it has logged.
#[track_caller]
fn last_sentence<'a>(outcome: &'a Outcome, about: &str) -> &'a str {
    assert!(outcome.code.is_some_and(|code| code != 0 && code != 101), "{about}");
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(is_a_sentence(last), "{about}");
    last
}

#[test]
fn a_failure_at_any_step_of_the_first_start_leaves_nothing() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::absent(&lab);
    limiter.configure_all(FILE);
    let (outcome, steps) = start_with_failure(&limiter, usize::MAX);
    assert!(outcome.is_none(), "{outcome:?}");
    limiter.ok(&["unload"]);
    for nth in chosen_of_start(&steps) {
        let (outcome, steps) = start_with_failure(&limiter, nth);
        let about = format!("step {nth} fails ({:?}): {outcome:?}", steps.get(nth));
        let Some(outcome) = outcome else {
            // It can do without.
            assert_eq!(limiter.json(&["status"])["in_force"], true, "{about}");
            limiter.ok(&["unload"]);
            continue;
        };
        last_sentence(&outcome, &about);
        let mut left = left(&limiter);
        // A lock that cannot be taken may be somebody else's: its file stays.
        let lock = format!("/run/limiter/{}.pid", limiter.instance);
        left.retain(|file| steps[nth].0 != libc::SYS_flock || *file != lock);
        assert_eq!(left, Vec::<String>::new(), "{about}");
    }
}

#[test]
fn a_failure_at_any_step_of_a_takeover_leaves_what_was_in_force() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = limiter(&lab);
    limiter.ok(&["ban", "203.0.113.9"]);
    limiter.ok(&["deny", "198.51.100.0/24"]);
    limiter.kill();
    let _ = fs::remove_file(format!("/run/limiter/{}.pid", limiter.instance));
    let other = FILE.replace("max_connections = 3", "max_connections = 4");
    let state = |limiter: &Limiter| {
        let mut state = state(limiter);
        let state = state.as_object_mut().unwrap();
        for key in ["file", "daemon", "beside"] {
            state.remove(key);
        }
        json!(state)
    };
    let before = state(&limiter);
    // With another file, so that a takeover changes the policy, too.
    let back = |limiter: &Limiter| {
        limiter.configure_all(FILE);
        limiter.ok(&["reload"]);
        limiter.ok(&["deny", "198.51.100.0/24"]);
        limiter.configure_all(&other);
    };
    back(&limiter);
    assert_same(&state(&limiter), &before, "it is as it was");
    let (outcome, steps) = start_with_failure(&limiter, usize::MAX);
    assert!(outcome.is_none(), "{outcome:?}");
    let wanted = state(&limiter);
    assert_ne!(wanted, before);
    back(&limiter);
    for nth in chosen_of_start(&steps) {
        let (outcome, steps) = start_with_failure(&limiter, nth);
        let about = format!("step {nth} fails ({:?}): {outcome:?}", steps.get(nth));
        match outcome {
            None => {
                assert_same(&state(&limiter), &wanted, &about);
                back(&limiter);
            }
            Some(outcome) => {
                last_sentence(&outcome, &about);
                assert_same(&state(&limiter), &before, &about);
            }
        }
    }
    limiter.run();
    assert_same(&state(&limiter), &wanted, "the next one takes over");
}

#[test]
fn a_failure_at_any_step_of_replacing_another_layout_leaves_what_was_in_force() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = limiter(&lab);
    limiter.kill();
    let links = |limiter: &Limiter| {
        let names = ["ledger", "release", "gate", "admission"]
            .map(|name| limiter.pins().join(format!("link-{name}")));
        names.map(|pin| fs::metadata(pin).unwrap().ino())
    };
    // Of another version, to which the next daemon is no heir.
    let make_other = |limiter: &Limiter| {
        let layout = MapData::from_pin(limiter.pins().join("LAYOUT")).unwrap();
        let mut layout: Array<_, u64> = Map::Array(layout).try_into().unwrap();
        layout.set(0, 1, 0).unwrap();
    };
    make_other(&limiter);
    let (outcome, steps) = start_with_failure(&limiter, usize::MAX);
    assert!(outcome.is_none(), "{outcome:?}");
    make_other(&limiter);
    for nth in chosen_of_start(&steps) {
        let before = links(&limiter);
        let (outcome, steps) = start_with_failure(&limiter, nth);
        let about = format!("step {nth} fails ({:?}): {outcome:?}", steps.get(nth));
        let Some(outcome) = outcome else {
            assert_eq!(limiter.json(&["status"])["in_force"], true, "{about}");
            make_other(&limiter);
            continue;
        };
        let said = last_sentence(&outcome, &about);
        if said.contains("the new limits are in force") {
            assert_eq!(limiter.json(&["status"])["in_force"], true, "{about}");
            make_other(&limiter);
        } else {
            assert_eq!(links(&limiter), before, "{about}");
        }
        assert!(!limiter.pins().with_file_name(format!("{}+new", limiter.instance)).exists(), "{about}");
    }
    limiter.run();
    assert_eq!(limiter.json(&["status"])["in_force"], true);
}

#[test]
fn a_failure_at_any_step_of_unload_is_said_and_the_next_one_does_the_rest() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = limiter(&lab);
    let (outcome, steps) = with_failure(&limiter, &["unload"], usize::MAX);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    limiter.forget_daemon();
    for nth in chosen_of_start(&steps) {
        limiter.run();
        let before = fs::read_dir(limiter.pins()).unwrap().count();
        let (outcome, steps) = with_failure(&limiter, &["unload"], nth);
        let about = format!("step {nth} fails ({:?}): {outcome:?}", steps.get(nth));
        if outcome.code != Some(0) {
            let said = last_sentence(&outcome, &about);
            let status = limiter.cli(&["status", "--json"]);
            let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
            let has_ended = status["daemon"]["running"] != true;
            assert_eq!(said.contains(") has stopped, and "), has_ended, "{about}");
            if said.contains("all limits are lifted") {
                assert!(!left(&limiter).iter().any(|file| file.starts_with("/sys/fs/bpf")), "{about}");
            } else if said.contains("only some of the limits are lifted") {
                assert_ne!(status["in_force"], true, "{about}");
            } else {
                assert_eq!(status["in_force"], true, "{about}");
                assert_eq!(fs::read_dir(limiter.pins()).unwrap().count(), before, "{about}");
            }
            limiter.ok(&["unload"]);
        }
        assert_eq!(left(&limiter), Vec::<String>::new(), "{about}");
        limiter.forget_daemon();
    }
}

#[test]
fn a_start_that_fails_leaves_reload_the_file_that_is_in_force() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = limiter(&lab);
    limiter.kill();
    let named = format!("/run/limiter/{}.config", limiter.instance);
    let before = fs::read_to_string(&named).unwrap();
    let other = limiter.config_path().with_file_name("other.toml");
    // Larger maps, which take the place of those that are there.
    fs::write(&other, "max_sources = 2048\n").unwrap();
    let mut command = Command::new("prlimit");
    let named_file = limiter.config_path();
    let arguments = limiter.run_arguments().into_iter();
    let arguments = arguments.map(|it| if it == named_file { other.clone().into_os_string() } else { it });
    command.args(["--nofile=140:140", crate::BINARY]).args(arguments);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("the daemon cannot start"), "{outcome:?}");
    assert_eq!(fs::read_to_string(&named).unwrap(), before);
    limiter.run();
}

/// The rest of the policy is as it was.
#[test]
fn an_address_that_has_left_the_host_is_no_longer_allowed_even_if_the_next_start_fails() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    lab.host_ip(&["addr", "add", "203.0.113.50/32", "dev", "wire"]);
    let mut limiter = limiter(&lab);
    limiter.ok(&["deny", "198.51.100.0/24"]);
    let is_allowed = |limiter: &Limiter| limiter.ok(&["rules"]).contains("203.0.113.50");
    assert!(is_allowed(&limiter));
    limiter.kill();
    lab.host_ip(&["addr", "del", "203.0.113.50/32", "dev", "wire"]);
    // Enough files to look at what is loaded, and too few to load anything.
    let mut command = Command::new("prlimit");
    command.args(["--nofile=80:80", crate::BINARY]).args(limiter.run_arguments());
    let outcome = Outcome::of(command);
    assert!(outcome.stderr.contains("the daemon cannot start"), "{outcome:?}");
    assert!(!is_allowed(&limiter), "{}", limiter.ok(&["rules"]));
    assert!(limiter.ok(&["rules"]).contains("198.51.100.0/24"));
}
