// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Configurations that cannot be meant: each is refused in one sentence that names the place, however it is
//! read, and what is in force stays.
//!
//! The sentences themselves are in `src/config/tests/malformed.rs`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use limiter_lab::command::Outcome;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually};

/// A text, the place in it, and a word of the sentence.
const TEXTS: &[(&str, &str, &str)] = &[
    ("max_sources = \"many\"", "1:15", "max_sources"),
    ("mode = 5", "1:8", "mode"),
    ("hostname = [\"a\", \"b\"]", "1:12", "hostname"),
    ("interfaces = 7", "1:14", "interfaces"),
    ("[defaults]\nmax_connections = 2.5", "2:19", "a fraction"),
    ("[defaults]\nrate = 60", "2:8", "rate"),
    ("[service.smtp]\nnetwork = \"10.0.0.0/8\"", "2:11", "network"),
    ("service = [\"smtp\"]", "1:11", "service"),
    ("[rule]\nallow = true", "1:1", "[[rule]]"),
    ("\n[defaults]\nmax_conections = 5", "3:1", "did you mean max_connections?"),
    ("[service.smpt]\nmax_connections = 5", "1:10", "smpt"),
    ("[ladder]\nladders = 5", "2:1", "ladders"),
    ("[default]\nmax_connections = 5", "1:2", "default"),
    (
        "[service.smtp]\nports = [25]\n[service.imap]\nports = [143, 25]",
        "4:15",
        "already belongs to service smtp (line 2)",
    ),
    ("[service.mx]\nports = [25]\nprotocol = \"smtp\"", "2:10", "built-in service smtp"),
    ("[service.smtp]\nports = [25, 25]", "2:14", "listed twice"),
    ("[service.smtp]\nports = [25, 70000]", "2:14", "70000"),
    ("[service.smtp]\nports = [0]", "2:10", "port"),
    ("[[rule]]\nnetwork = \"10.0.0.1/8\"\ndeny = true", "2:11", "10.0.0.0/8"),
    ("[[rule]]\nnetwork = \"2001:db8::1/32\"\ndeny = true", "2:11", "2001:db8::/32"),
    ("[[rule]]\nnetwork = \"10.0.0.0/33\"\ndeny = true", "2:11", "10.0.0.0/33"),
    (
        "[[rule]]\nnetwork = \"10.0.0.7\"\ndeny = true\n[[rule]]\nnetwork = \"10.0.0.7/32\"\nallow = true",
        "5:11",
        "on line 2",
    ),
    ("[[rule]]\nnetwork = \"10.0.0.0/8\"\nallow = true\ndeny = true", "2:11", "more than one"),
    ("[[rule]]\nnetwork = \"10.0.0.0/8\"\nmax_connections = { imaps = 5 }", "3:21", "imaps"),
    ("[defaults]\nmax_connections = 0", "2:19", "between 1 and 1000000, not 0"),
    ("[defaults]\nmax_connections = -5", "2:19", "-5"),
    ("[defaults]\nmax_connections = 99999999999999999999999999999999999999999999", "2:19", "99999"),
    ("[service.smtp]\nmax_total = 0", "2:13", "max_total"),
    ("[service.smtp]\nmax_total = 19", "2:13", "less than the 20 connections"),
    ("[service.smtp]\nreserve = 5", "2:11", "max_total"),
    ("[service.smtp]\nburst = 5", "2:1", "without a rate"),
    ("[service.smtp]\nnetwork = { max_connections = 0 }", "2:31", "between 1"),
    ("[service.smtp]\nipv6_prefix = 0", "2:15", "ipv6_prefix"),
    ("[service.smtp]\nkeepalive = \"1s\"", "2:13", "keepalive"),
    ("[service.smtp]\nwait = \"61s\"", "2:8", "between \"0s\" and \"60s\""),
    ("[service.smtp]\nresponse = \"shout\"", "2:12", "shout"),
    ("[service.smtp]\nprotocol = \"http\"", "2:12", "http"),
    ("max_sources = 2048\nmax_sources = 2048", "2:1", "duplicate key"),
    ("[defaults]\nmax_connections = = 5", "2:19", "TOML"),
    ("[service.smtp", "1:14", "TOML"),
    ("hostname = 'a\n", "1:14", "TOML"),
    ("[defaults]\nmax\0", "2:4", "NUL"),
];

/// What is at the path before it is tried; the place, and a word of the sentence.
type Made = (fn(&Path), &'static str, &'static str);

const FILES: &[Made] = &[
    (|path| fs::write(path, b"# gr\xfc\xdfe").unwrap(), ":1:5: ", "UTF-8"),
    (|path| fs::write(path, vec![b'#'; 10 << 20]).unwrap(), ": ", "larger than 8 MiB"),
    (|path| fs::write(path, format!("hostname = {}", "[".repeat(100_000))).unwrap(), ":1:", "TOML"),
    (|path| fs::write(path, format!("{}a = 1", "a.".repeat(100_000))).unwrap(), ":1:", "TOML"),
    (|_| {}, ": ", "no such file"),
    (|path| fs::create_dir(path).unwrap(), ": ", "directory"),
    (|path| symlink(path, path).unwrap(), ": ", "form a loop"),
    (|path| symlink("nowhere", path).unwrap(), ": ", "no such file"),
    (|path| mkfifo(path, Mode::S_IRWXU).unwrap(), ": ", "a pipe"),
    (|path| drop(UnixListener::bind(path).unwrap()), ": ", "a socket"),
    (|path| symlink("/dev/zero", path).unwrap(), ": ", "a device"),
    // Root may open anything; this one cannot be read from its beginning.
    (|path| symlink("/proc/self/mem", path).unwrap(), ": ", "cannot be read"),
    (|path| with_mode(path, 0o666), ": ", "anyone can write"),
    (
        |path| {
            with_mode(path, 0o644);
            chown(path, Some(65534), None).unwrap();
        },
        ": ",
        "user 65534 can write",
    ),
    (
        |path| {
            with_mode(path, 0o664);
            chown(path, None, Some(65534)).unwrap();
        },
        ": ",
        "group 65534 can write",
    ),
    (
        |path| {
            let foreign = path.with_file_name("foreign");
            fs::create_dir_all(&foreign).unwrap();
            with_mode(&foreign.join("limiter.toml"), 0o644);
            chown(&foreign, Some(65534), None).unwrap();
            symlink("foreign/limiter.toml", path).unwrap();
        },
        ": ",
        "user 65534 can replace this file",
    ),
    (
        |path| {
            let above = path.with_file_name("above");
            fs::create_dir_all(above.join("below")).unwrap();
            with_mode(&above.join("below/limiter.toml"), 0o644);
            fs::set_permissions(&above, Permissions::from_mode(0o777)).unwrap();
            symlink("above/below/limiter.toml", path).unwrap();
        },
        ": ",
        "anyone can replace this file",
    ),
    (
        |path| {
            let open = path.with_file_name("open");
            fs::create_dir_all(&open).unwrap();
            fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
            with_mode(&open.join("limiter.toml"), 0o644);
            symlink("open/limiter.toml", path).unwrap();
        },
        ": ",
        "can replace this file",
    ),
];

/// A file that is right in what it says, and would be another policy.
fn with_mode(path: &Path, mode: u32) {
    fs::write(path, "[defaults]\nmax_connections = 7\n").unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn clear(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
}

/// Runs a verb that must be refused, and must not wait for anything.
fn refused(limiter: &Limiter, arguments: &[&str], place: &str, word: &str) {
    let mut command = Command::new("timeout");
    command.args(["20", crate::BINARY, "--instance", &limiter.instance]).args(arguments);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
    let said = outcome.stderr.trim_end();
    assert!(said.contains(&format!("limiter.toml{place}")) && said.contains(word), "{arguments:?}: {said}");
    assert!(said.lines().count() == 1 && said.contains("; "), "one sentence: {said}");
}

#[test]
fn what_cannot_be_meant_changes_nothing_however_it_is_read() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let good = "[defaults]\nmax_connections = 1\nresponse = \"reset\"\n";
    let limiter = Limiter::start_with(&lab, good);
    let held = [V4, V6].map(|family| lab.served(family.source(), family.port(25)));
    let path = limiter.config_path();
    let before = (limiter.state(), limiter.json(&["rules"]));
    let run = ["run", "--netns", lab.host.path().to_str().unwrap(), "--config", path.to_str().unwrap()]
        .map(str::to_owned);
    let run: Vec<&str> = run.iter().map(String::as_str).collect();
    let try_it = |place: &str, word: &str| {
        refused(&limiter, &["reload"], place, word);
        // The file is looked at before the other daemon is.
        refused(&limiter, &run, place, word);
        let said = |log: &str| log.matches("the old configuration stays in force").count();
        let (count, mark) = (said(&limiter.log()), limiter.log().len());
        kill(Pid::from_raw(i32::try_from(limiter.pid().unwrap()).unwrap()), Signal::SIGHUP).unwrap();
        eventually("the daemon says so", SOON, || {
            let log = limiter.log();
            if said(&log) > count { Ok(()) } else { Err(log[mark..].to_owned()) }
        });
        let log = limiter.log()[mark..].to_owned();
        assert!(log.contains(&format!("limiter.toml{place}")) && log.contains(word), "{log}");
        assert_eq!((limiter.state(), limiter.json(&["rules"])), before, "{place} {word}");
    };
    for (text, place, word) in TEXTS {
        limiter.configure_all(text);
        try_it(&format!(":{place}: "), word);
    }
    for (make, place, word) in FILES {
        clear(path.as_path());
        make(path.as_path());
        try_it(place, word);
    }
    clear(path.as_path());
    for family in [V4, V6] {
        assert_eq!(
            lab.answer(family.source(), family.port(25)),
            Answer::Reset,
            "the limit is still in force"
        );
    }
    drop(held);
    // And nothing has to be started anew.
    limiter.configure(good);
    assert!(limiter.ok(&["reload"]).contains("already in force"));
    // An empty file is no mistake: it says the defaults.
    limiter.configure_all("");
    assert!(limiter.ok(&["reload"]).contains(": in force"));
}
