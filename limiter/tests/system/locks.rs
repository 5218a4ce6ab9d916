// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who may hold the limiter up, and whom its commands may hit: nobody but root, and nobody but its daemon.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use limiter_lab::command::Outcome;
use limiter_lab::{Lab, Limiter, SOON, V4, eventually, let_time_pass, same};

/// `nobody`, on Debian.
const NOBODY: u32 = 65_534;

/// What the instance keeps in `/run/limiter`, by name.
fn files(limiter: &Limiter) -> Vec<PathBuf> {
    let own = format!("{}.", limiter.pins().file_name().unwrap().display());
    let all = fs::read_dir("/run/limiter").unwrap().map(|entry| entry.unwrap());
    all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own))
        .map(|entry| entry.path())
        .collect()
}

fn file(limiter: &Limiter, what: &str) -> PathBuf {
    PathBuf::from(format!("/run/limiter/{}.{what}", limiter.pins().file_name().unwrap().display()))
}

/// Takes a lock as another command would.
fn lock(limiter: &Limiter, what: &str) -> Flock<File> {
    let file = File::options().write(true).open(file(limiter, what)).unwrap();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).unwrap()
}

/// Something that is not the daemon.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap())
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn nobody_but_root_can_hold_a_lock() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 1, "reset");
    limiter.ok(&["ban", "192.0.2.9", "--for", "1m"]);
    limiter.ok(&["deny", "192.0.2.10"]);
    let locks = ["pid", "policy", "bans", "maintenance"];
    // As an older build has made them.
    limiter.stop();
    for what in locks {
        fs::set_permissions(file(&limiter, what), Permissions::from_mode(0o644)).unwrap();
    }
    limiter.run();
    limiter.ok(&["unban", "192.0.2.9"]);
    limiter.ok(&["forget", "192.0.2.10"]);
    limiter.ok(&["status", "--verify"]);
    for what in locks {
        let path = file(&limiter, what);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        let mut flock = Command::new("flock");
        flock.args(["--nonblock", "--shared"]).arg(&path).arg("true").uid(NOBODY).gid(NOBODY);
        let output = flock.output().unwrap();
        assert!(!output.status.success(), "{}: nobody has taken it", path.display());
        assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
    }
    let directory = fs::metadata("/run/limiter").unwrap();
    assert_eq!(directory.permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_stranger_with_the_daemons_number_is_left_alone() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 1, "reset");
    limiter.kill();
    let mut stranger = Stranger::new();
    // The worst case: its number is there, and the lock is held.
    let mut number = lock(&limiter, "pid");
    number.set_len(0).unwrap();
    write!(number, "{}", stranger.0.id()).unwrap();
    for verb in ["unload", "reload"] {
        let outcome = limiter.cli(&[verb]);
        assert_eq!(outcome.code, Some(1), "{verb}: {outcome:?}");
        let said = format!("process {} is not the daemon", stranger.0.id());
        assert!(outcome.stderr.contains(&said), "{verb}: {outcome:?}");
        assert!(stranger.is_alive(), "{verb} has hit a stranger");
    }
    drop(number);
    limiter.ok(&["unload"]);
    assert!(stranger.is_alive(), "unload has hit a stranger");
}

#[test]
fn the_number_of_a_daemon_that_has_ended_is_gone() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 1, "reset");
    assert_eq!(fs::read_to_string(file(&limiter, "pid")).unwrap(), format!("{}\n", limiter.pid().unwrap()));
    limiter.stop();
    assert_eq!(fs::read_to_string(file(&limiter, "pid")).unwrap(), "");
}

/// Somebody else is changing the policy, and does not come to an end.
#[test]
fn a_daemon_that_is_kept_from_reloading_still_answers_to_signals() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 1, "reset");
    let held = lock(&limiter, "policy");
    let daemon = Pid::from_raw(i32::try_from(limiter.pid().unwrap()).unwrap());
    // More than one, and not one more reload than needed when the lock is free.
    for _ in 0..3 {
        kill(daemon, Signal::SIGHUP).unwrap();
        let_time_pass(Duration::from_millis(50), "signals that come together are one");
    }
    limiter.configure_all("hostname = \"new.example.net\"\n[defaults]\nmax_connections = 2\n");
    drop(held);
    let read = |limiter: &Limiter| limiter.log().matches("reloaded the configuration").count();
    eventually("it reads its file", SOON, || same("read", &read(&limiter), &2));
    let held = lock(&limiter, "policy");
    kill(daemon, Signal::SIGHUP).unwrap();
    let_time_pass(Duration::from_millis(50), "it is kept from reloading for a moment");
    limiter.stop();
    assert_eq!(read(&limiter), 2);
    drop(held);
}

#[test]
fn reloads_at_the_same_time_all_succeed() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 1, "reset");
    std::thread::scope(|scope| {
        let shells: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..10).map(|_| limiter.cli(&["reload"])).collect::<Vec<_>>()))
            .collect();
        for shell in shells {
            for outcome in shell.join().unwrap() {
                assert_eq!(outcome.code, Some(0), "{outcome:?}");
            }
        }
    });
    let left: Vec<_> =
        files(&limiter).into_iter().filter(|path| path.extension().is_none_or(|it| it == "new")).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn a_command_while_the_instance_is_loaded_or_unloaded_finds_it_there_or_not_there() {
    const TIMES: usize = 8;
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 1, "reset");
    let source = V4.source().to_string();
    let verbs: [&[&str]; 6] =
        [&["status"], &["list"], &["explain", &source], &["rules"], &["bans"], &["set", "smtp", "wait=1s"]];
    let is_over = AtomicBool::new(false);
    let instance = limiter.instance.clone();
    let ask = move |verb: &[&str]| {
        let mut command = Command::new(crate::BINARY);
        command.args(["--instance", &instance]).args(verb);
        Outcome::of(command)
    };
    std::thread::scope(|scope| {
        let shells: Vec<_> = verbs
            .into_iter()
            .map(|verb| {
                let (ask, is_over) = (ask.clone(), &is_over);
                scope.spawn(move || {
                    let (mut there, mut not_there, mut strange) = (0, 0, Vec::new());
                    while !is_over.load(Ordering::Relaxed) {
                        let outcome = ask(verb);
                        match outcome.code {
                            Some(0) => there += 1,
                            _ if outcome.stderr.contains("is not loaded: start it with") => not_there += 1,
                            _ => strange.push(outcome),
                        }
                    }
                    (there, not_there, strange)
                })
            })
            .collect();
        for _ in 0..TIMES {
            limiter.ok(&["unload"]);
            limiter.forget_daemon();
            limiter.run();
        }
        is_over.store(true, Ordering::Relaxed);
        for (shell, verb) in shells.into_iter().zip(verbs) {
            let (there, not_there, strange) = shell.join().unwrap();
            assert!(strange.is_empty(), "{verb:?}: {strange:?}");
            assert!(there > 0 && not_there > 0, "{verb:?}: {there} and {not_there}");
        }
    });
}

/// A BPF file system that is mounted by hand has the mode of `/tmp`.
#[test]
fn pins_that_are_somebody_elses_are_left_alone() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 1, "reset");
    limiter.kill();
    std::os::unix::fs::chown(limiter.pins(), Some(NOBODY), None).unwrap();
    for verb in ["status", "list", "reload", "unload"] {
        let outcome = limiter.cli(&[verb]);
        assert_eq!(outcome.code, Some(1), "{verb}: {outcome:?}");
        let said = format!("{}: user {NOBODY} can change these pins", limiter.pins().display());
        assert!(outcome.stderr.contains(&said), "{verb}: {outcome:?}");
    }
    let mut run = Command::new("timeout");
    run.args(["20", env!("CARGO_BIN_EXE_limiter"), "--instance", &limiter.instance, "run", "--netns"]);
    let output = run.arg(lab.host.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("can change these pins"), "{output:?}");
    std::os::unix::fs::chown(limiter.pins(), Some(0), None).unwrap();
    limiter.run();
}

#[test]
fn unload_leaves_nothing_behind_and_its_daemon_promises_nothing() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 1, "reset");
    limiter.ok(&["ban", "192.0.2.9", "--for", "1m"]);
    limiter.ok(&["reload"]);
    assert!(!files(&limiter).is_empty());
    limiter.ok(&["unload"]);
    assert_eq!(files(&limiter), Vec::<PathBuf>::new());
    let log = limiter.log();
    assert!(log.contains("is being unloaded") && !log.contains("the limits stay in force"), "{log}");
}

#[test]
fn a_change_is_made_to_what_is_loaded_when_its_lock_is_held_and_not_to_what_was_before() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 1, "reset");
    limiter.ok(&["ban", "192.0.2.9", "--for", "1m"]);
    let away = limiter.pins().with_file_name(format!("{}+away", limiter.instance));
    let in_force = || (limiter.json(&["status"])["services"].clone(), limiter.json(&["rules"]));
    let before = in_force();
    for (what, arguments) in [
        ("policy", vec!["set", "smtp", "max_connections=7"]),
        ("policy", vec!["deny", "192.0.2.10"]),
        ("policy", vec!["reload"]),
        ("bans", vec!["ban", "192.0.2.10"]),
        ("bans", vec!["unban", "192.0.2.9"]),
    ] {
        let held = lock(&limiter, what);
        let mut command = limiter.command(&arguments);
        let waits = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("it waits for the lock", SOON, || {
            // It sleeps between two tries, and has the file open for a moment only.
            let call = fs::read_to_string(format!("/proc/{}/syscall", waits.id())).unwrap();
            let sleeps = call.split(' ').next() == Some(&libc::SYS_clock_nanosleep.to_string());
            if sleeps { Ok(()) } else { Err(call) }
        });
        // As by an unload, or by a daemon that starts with other maps.
        fs::rename(limiter.pins(), &away).unwrap();
        drop(held);
        let outcome = waits.wait_with_output().unwrap();
        fs::rename(&away, limiter.pins()).unwrap();
        let said = String::from_utf8(outcome.stderr).unwrap();
        assert_eq!(outcome.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("is not loaded: start it with"), "{arguments:?}: {said}");
        assert_eq!(in_force(), before, "{arguments:?}");
        let bans = limiter.json(&["bans"]);
        let banned = bans["bans"].as_array().unwrap();
        assert!(banned.iter().all(|ban| ban["source"] == "192.0.2.9/32") && banned.len() == 6, "{bans}");
    }
}

#[test]
fn of_a_spoiled_file_one_sentence_says_what_to_do_and_the_rest_goes_on() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 1, "reply");
    let spoiled = |what: &str, test: &dyn Fn()| {
        let path = file(&limiter, what);
        let before = fs::read(&path).unwrap_or_default();
        fs::write(&path, b"\x1b[2J\n\xff\0\n").unwrap();
        test();
        fs::write(&path, before).unwrap();
    };
    let refused = |arguments: &[&str], words: &str| {
        let outcome = limiter.cli(arguments);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(words) && outcome.stderr.lines().count() == 1, "{outcome:?}");
        assert!(!outcome.stderr.contains('\x1b'), "what is in the file is not for a terminal: {outcome:?}");
    };
    spoiled("config", &|| {
        refused(&["reload"], "reload --config FILE`");
        refused(&["set", "smtp", "max_connections=2", "--save"], "reload --config FILE`");
    });
    spoiled("pid", &|| {
        refused(&["status"], "does not contain its process ID: stop it, and start");
        refused(&["reload"], "does not contain its process ID: stop it, and start");
    });
    spoiled("shield", &|| {
        let status = limiter.ok(&["status"]);
        assert!(status.contains("limits in force") && status.contains("where the shield"), "{status}");
    });
    spoiled("greeter", &|| {
        let status = limiter.ok(&["status"]);
        assert!(status.contains("limits in force") && status.contains("what the greeter does"), "{status}");
    });
    spoiled("changes", &|| {
        limiter.ok(&["set", "smtp", "max_connections=2"]);
        eventually("the log has what can be read", SOON, || {
            let log = limiter.log();
            let is_there =
                log.contains("max_connections 1 -> 2") && log.contains("cannot log 2 live changes");
            if is_there { Ok(()) } else { Err(log) }
        });
    });
    limiter.ok(&["set", "smtp", "max_connections=3"]);
    eventually("and nothing more of it", SOON, || {
        let log = limiter.log();
        if log.contains("max_connections 2 -> 3") { Ok(()) } else { Err(log) }
    });
    assert_eq!(limiter.log().matches("cannot log").count(), 1, "{}", limiter.log());
}

/// As of the one who wrote the shield's file while the daemon was killed.
#[test]
fn what_a_killed_writer_has_left_goes_with_the_instance() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 1, "reply");
    let of = |instance: &str| PathBuf::from(format!("/run/limiter/.{instance}.shield.1"));
    let (ours, others) = (of(&limiter.instance), of(&format!("{}0", limiter.instance)));
    for draft in [&ours, &others] {
        fs::write(draft, "[").unwrap();
    }
    limiter.ok(&["unload"]);
    limiter.forget_daemon();
    assert_eq!((ours.exists(), others.exists()), (false, true));
    fs::remove_file(others).unwrap();
}
