// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A failure at each step of what SIGHUP has the daemon do.

use std::collections::HashSet;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

/// What the supervisor of a daemon knows of its threads that read the configuration again.
#[derive(Default)]
struct Reading {
    /// Threads that were there before: none of them does.
    others: HashSet<u32>,
    steps: Vec<Step>,
    /// Which of the steps fails.
    nth: usize,
}

#[test]
fn a_failure_at_any_step_of_sighup_leaves_the_policy_in_force_and_the_next_one_replaces_it() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = limiter(&lab);
    limiter.stop();
    let log = limiter.config_path().with_file_name("log");
    let reading = Arc::new(Mutex::new(Reading { nth: usize::MAX, ..Reading::default() }));
    let mut command = Command::new(crate::BINARY);
    command.args(limiter.run_arguments()).stdout(Stdio::null());
    command.stderr(fs::File::options().append(true).open(&log).unwrap());
    let seen = Arc::clone(&reading);
    let fails = move |_, step: &Step, thread| {
        let mut seen = seen.lock().unwrap();
        if seen.others.is_empty() || seen.others.contains(&thread) {
            return false;
        }
        seen.steps.push(step.clone());
        seen.steps.len() - 1 == seen.nth
    };
    let mut daemon = Supervised::start(command, &SYSCALLS, Errno::EPERM, fails);
    let pid = daemon.child.id();
    // Each of its steps is another process's to let pass.
    eventually("the daemon serves", Duration::from_secs(60), || {
        let status = limiter.json(&["status"]);
        if status["daemon"]["pid"] == pid { Ok(()) } else { Err(limiter.log()) }
    });
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    reading.lock().unwrap().others =
        threads.map(|thread| thread.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();

    // Whether the policy is another one after SIGHUP, and what the log has to say of it.
    let hang_up = |nth: usize| {
        {
            let mut reading = reading.lock().unwrap();
            (reading.nth, reading.steps) = (nth, Vec::new());
        }
        let before = limiter.log().len();
        kill(Pid::from_raw(pid as i32), Signal::SIGHUP).unwrap();
        // What others have changed is logged when it is read, which may be only now.
        let said = || {
            let log = limiter.log()[before..].to_owned();
            let of_reload: Vec<_> = log.lines().filter(|line| !line.contains("changed by ")).collect();
            of_reload.join("\n")
        };
        eventually("the daemon says what became of it", SOON, || {
            let done = [": it is in force", "already in force", "the old configuration stays in force"];
            if done.iter().any(|done| said().contains(done)) { Ok(()) } else { Err(said()) }
        });
        let steps = reading.lock().unwrap().steps.clone();
        (said(), steps)
    };
    let other = FILE.replace("max_connections = 3", "max_connections = 4");
    // And as it was, with a rule that a reload takes back.
    let back = || {
        limiter.configure_all(FILE);
        limiter.ok(&["reload"]);
        limiter.ok(&["deny", "198.51.100.0/24"]);
        limiter.configure_all(&other);
    };
    back();
    let before = state(&limiter);
    let (said, steps) = hang_up(usize::MAX);
    assert!(said.contains("reloaded the configuration: it is in force"), "{said}");
    let wanted = state(&limiter);
    assert_ne!(before, wanted);
    let chosen = chosen(&steps);
    assert!(chosen.len() > 20, "there are few steps: {steps:?}");
    let mut failed = 0;
    for nth in chosen {
        back();
        let (said, steps) = hang_up(nth);
        let about = format!("step {nth} fails ({:?}): {said}", steps.get(nth));
        assert_eq!(said.lines().count(), 1, "{about}");
        if said.contains("the old configuration stays in force") {
            failed += 1;
            assert!(said.contains(" ERROR "), "{about}");
            assert_same(&state(&limiter), &before, &about);
            let (said, _) = hang_up(usize::MAX);
            assert!(said.contains("reloaded the configuration: it is in force"), "{about}; {said}");
        }
        assert_same(&state(&limiter), &wanted, &about);
    }
    assert!(failed > 10, "few of the steps have it fail: {failed}");
    daemon.child.kill().unwrap();
    daemon.wait();
}
