//! A failure at each step of each verb that changes something: afterwards everything is as it was, or as it was wanted,
//! the exit code and the sentence say which, and the next command does the rest.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::privileges::left;
use crate::support::limiter::{BINARY, Outcome};
use crate::support::seccomp::{Step, Supervised, refuse};
use crate::support::{Lab, Limiter, SOON, eventually};

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
            let is_said = ["limiter: warning: ", "limiter: it is done, "];
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
    let Some(lab) = Lab::new() else { return };
    let limiter = limiter(&lab);
    at_each_step(&limiter, &["set", "smtp", "max_connections=5"], &["set", "smtp", "max_connections=3"]);
}

#[test]
fn a_failure_at_any_step_of_save_changes_neither_the_policy_nor_the_file() {
    let Some(lab) = Lab::new() else { return };
    let limiter = limiter(&lab);
    at_each_step(&limiter, &["deny", "198.51.100.0/24", "--save"], &["forget", "198.51.100.0/24", "--save"]);
}

#[test]
fn a_failure_at_any_step_of_a_rule_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    let limiter = limiter(&lab);
    at_each_step(
        &limiter,
        &["limit", "2001:db8:7::/48", "4", "--service", "smtp"],
        &["forget", "2001:db8:7::/48"],
    );
}

#[test]
fn a_failure_at_any_step_of_forgetting_a_rule_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    let limiter = limiter(&lab);
    limiter.ok(&["deny", "198.51.100.0/24"]);
    at_each_step(&limiter, &["forget", "198.51.100.0/24"], &["deny", "198.51.100.0/24"]);
}

#[test]
fn a_failure_at_any_step_of_a_reload_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    let limiter = limiter(&lab);
    limiter.ok(&["set", "imap", "max_connections=7"]);
    at_each_step(&limiter, &["reload"], &["set", "imap", "max_connections=7"]);
}

/// Two sources, of each family, at each service.
const BAN: [&str; 5] = ["ban", "203.0.113.9", "2001:db8:5::1", "--for", "1h"];
const UNBAN: [&str; 3] = ["unban", "203.0.113.9", "2001:db8:5::1"];

#[test]
fn a_failure_at_any_step_of_a_ban_bans_nobody_or_all_and_the_file_says_so() {
    let Some(lab) = Lab::new() else { return };
    let limiter = limiter(&lab);
    // Beside others, which stay.
    limiter.ok(&["ban", "203.0.113.8", "--service", "imap"]);
    at_each_step(&limiter, &BAN, &UNBAN);
}

#[test]
fn a_failure_at_any_step_of_unban_ends_no_ban_or_all_and_the_file_says_so() {
    let Some(lab) = Lab::new() else { return };
    let limiter = limiter(&lab);
    limiter.ok(&["ban", "203.0.113.8", "--service", "imap"]);
    limiter.ok(&BAN);
    at_each_step(&limiter, &UNBAN, &BAN);
}

#[test]
fn a_failure_at_any_step_of_a_ban_of_a_list_bans_nobody_or_all_and_so_does_unban() {
    let Some(lab) = Lab::new() else { return };
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
    let Some(lab) = Lab::new() else { return };
    let mut limiter = limiter(&lab);
    limiter.stop();
    let log = limiter.config_path().with_file_name("log");
    let reading = Arc::new(Mutex::new(Reading { nth: usize::MAX, ..Reading::default() }));
    let mut command = Command::new(BINARY);
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
        let said = || limiter.log()[before..].to_owned();
        eventually("the daemon says what became of it", SOON, || {
            let done = ["and in force", "in force already", "what was in force stays"];
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
    assert!(said.contains("the configuration is read again, and in force"), "{said}");
    let wanted = state(&limiter);
    assert_ne!(before, wanted);
    let chosen = chosen(&steps);
    assert!(chosen.len() > 20, "there are few steps: {steps:?}");
    let mut failed = 0;
    for nth in chosen {
        back();
        let (said, steps) = hang_up(nth);
        let about = format!("step {nth} fails ({:?}): {said}", steps.get(nth));
        let of_reload: Vec<_> = said.lines().filter(|line| !line.contains("by hand, ")).collect();
        assert_eq!(of_reload.len(), 1, "{about}");
        if said.contains("what was in force stays") {
            failed += 1;
            assert!(said.contains(" ERROR "), "{about}");
            assert_same(&state(&limiter), &before, &about);
            let (said, _) = hang_up(usize::MAX);
            assert!(said.contains("the configuration is read again, and in force"), "{about}; {said}");
        }
        assert_same(&state(&limiter), &wanted, &about);
    }
    assert!(failed > 10, "few of the steps have it fail: {failed}");
    daemon.child.kill().unwrap();
    daemon.wait();
}

/// As on kernels with `nohz_full`, and under many a seccomp filter.
#[test]
fn nothing_needs_membarrier() {
    let Some(lab) = Lab::new() else { return };
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
    let Some(lab) = Lab::new() else { return };
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
        let said = "the kernel refuses a map to wait for the verdicts under way with (EPERM: Operation not permitted): a \
                    seccomp filter is in force for limiter";
        assert!(outcome.stderr.contains(said) && is_a_sentence(&outcome.stderr), "{outcome:?}");
        assert_same(&state(&limiter), &before, &format!("{arguments:?}: {outcome:?}"));
    }
}

/// Of a daemon that starts: until it serves, or has ended. What it gave, if it has ended, and its steps.
fn start_with_failure(limiter: &Limiter, nth: usize) -> (Option<Outcome>, Vec<Step>) {
    let mut command = Command::new(BINARY);
    command.args(limiter.run_arguments()).stdout(Stdio::null()).stderr(Stdio::piped());
    let fails = move |index, _: &Step, _| index == nth;
    let mut daemon = Supervised::start(command, &SYSCALLS, Errno::EPERM, fails);
    let pid = daemon.child.id();
    loop {
        if daemon.child.try_wait().unwrap().is_some() {
            let (outcome, steps) = daemon.wait();
            return (Some(outcome), steps);
        }
        // Without a command of its own: one a look would take most of the time.
        let number = fs::read_to_string(format!("/run/limiter/{}.pid", limiter.instance));
        if number.is_ok_and(|number| number == format!("{pid}\n")) {
            let steps = daemon.steps();
            daemon.child.kill().unwrap();
            daemon.wait();
            return (None, steps);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
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
    let Some(lab) = Lab::new() else { return };
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
    let Some(lab) = Lab::new() else { return };
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
    let Some(lab) = Lab::new() else { return };
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
    let Some(lab) = Lab::new() else { return };
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
            assert_eq!(said.contains(") has ended, and "), has_ended, "{about}");
            if said.contains("nothing is limited any more") {
                assert!(!left(&limiter).iter().any(|file| file.starts_with("/sys/fs/bpf")), "{about}");
            } else if said.contains("lifted in part") {
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
    let Some(lab) = Lab::new() else { return };
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
    command.args(["--nofile=140:140", BINARY]).args(arguments);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("what was in force before stays in force"), "{outcome:?}");
    assert_eq!(fs::read_to_string(&named).unwrap(), before);
    limiter.run();
}
