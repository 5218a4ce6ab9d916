// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A network namespace that is replaced by another one at its path, as when a container is started again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use limiter_lab::process::tethered;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, same};

/// Has `path` lead to the mail host of `lab`, in one step.
fn lead(path: &Path, lab: &Lab) {
    let beside = path.with_extension("new");
    symlink(lab.host.path(), &beside).unwrap();
    fs::rename(beside, path).unwrap();
}

/// Starts the daemon for the namespace at `path`.
fn run(limiter: &mut Limiter, path: &Path) {
    let mut arguments = limiter.run_arguments();
    let at = arguments.iter().position(|argument| argument == "--netns").unwrap();
    arguments[at + 1] = path.into();
    let mut command = tethered(crate::BINARY);
    command.args(arguments);
    limiter.run_as(command, |_| ());
}

/// One is served, and no more.
fn is_limited(lab: &Lab) {
    for family in [V4, V6] {
        let held = lab.served(family.source(), family.port(25));
        assert_eq!(lab.answer(family.source(), family.port(25)), Answer::Reset);
        drop(held);
    }
}

fn comes_to(limiter: &Limiter, code: i32) {
    eventually("status says so", 3 * SOON, || {
        same("code", &limiter.cli(&["status"]).code, &Some(code))
            .map_err(|said| format!("{said}\n{}", limiter.log()))
    });
}

#[test]
fn the_namespace_that_takes_the_place_of_another_is_protected_by_the_daemon_or_the_next_one() {
    let Some(first) = Lab::new(crate::BINARY) else { return };
    let second = Lab::new(crate::BINARY).unwrap();
    let _sinks = [&first, &second].map(|lab| Sink::start(lab, 25));
    let mut limiter = Limiter::absent(&first);
    limiter.configure("[defaults]\nmax_connections = 1\nresponse = \"reset\"\n");
    let path: PathBuf = limiter.config_path().with_file_name("netns");
    lead(&path, &first);
    run(&mut limiter, &path);
    is_limited(&first);
    limiter.ok(&["ban", "203.0.113.99"]);
    let pid = limiter.pid();
    lead(&path, &second);
    eventually("it is followed", 3 * SOON, || {
        let log = limiter.log();
        if log.contains("another network namespace is at") && log.contains("replaced the limits") {
            Ok(())
        } else {
            Err(log)
        }
    });
    comes_to(&limiter, 0);
    is_limited(&second);
    let held = [0; 2].map(|_| first.served(V4.source(), V4.port(25)));
    assert_eq!(limiter.pid(), pid, "in the same process");
    assert_eq!(limiter.json(&["status"])["daemon"]["pid"], pid.unwrap());
    assert!(limiter.ok(&["bans"]).contains("203.0.113.99"), "a ban is of a source, wherever it connects to");
    drop(held);

    // Without a daemon nobody follows, and status says what to do.
    limiter.stop();
    lead(&path, &first);
    let said = limiter.cli(&["status"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    let sentence = format!("another network namespace is at {} now", path.display());
    assert!(said.stdout.contains("LIMITS NOT IN FORCE") && said.stdout.contains(&sentence), "{said:?}");
    let advice = format!("`limiter --instance {} run --netns {}`", limiter.instance, path.display());
    assert!(said.stdout.contains(&advice), "{said:?}");
    let brief = limiter.cli(&["status", "--brief"]);
    assert_eq!(brief.code, Some(2), "{brief:?}");
    // As it says.
    run(&mut limiter, &path);
    comes_to(&limiter, 0);
    is_limited(&first);

    // None at all is no reason to give up the one that is there.
    fs::remove_file(&path).unwrap();
    eventually("status says so", SOON, || {
        let warnings = limiter.json(&["status"])["warnings"].to_string();
        if warnings.contains("there is no network namespace at") { Ok(()) } else { Err(warnings) }
    });
    is_limited(&first);
    lead(&path, &first);
    eventually("all is well", SOON, || {
        same("warnings", &limiter.json(&["status"])["warnings"], &serde_json::json!([]))
    });
}

/// The number of a process is another's some day.
#[test]
fn a_namespace_that_was_named_by_a_process_is_not_followed_to_another_process() {
    let Some(first) = Lab::new(crate::BINARY) else { return };
    let second = Lab::new(crate::BINARY).unwrap();
    let _sinks = [&first, &second].map(|lab| Sink::start(lab, 25));
    let mut limiter = Limiter::absent(&first);
    limiter.configure("[defaults]\nmax_connections = 1\nresponse = \"reset\"\n");
    // A process that moves looks like one that has ended, and another that has its number.
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let (say, said_where) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (first, second) = (&first, &second);
        scope.spawn(move || {
            first.host.enter();
            say.send(nix::unistd::gettid()).unwrap();
            let _go = told.recv();
            second.host.enter();
            say.send(nix::unistd::gettid()).unwrap();
            let _end = told.recv();
        });
        let thread = said_where.recv().unwrap();
        let path = PathBuf::from(format!("/proc/{}/task/{thread}/ns/net", std::process::id()));
        run(&mut limiter, &path);
        is_limited(first);
        tell.send(()).unwrap();
        said_where.recv().unwrap();
        comes_to(&limiter, 3);
        let said = limiter.cli(&["status"]);
        assert!(said.stdout.contains("unload`, then"), "{said:?}");
        is_limited(first);
        drop(second.served(V4.source(), V4.port(25)));
        drop(tell);
    });
}
