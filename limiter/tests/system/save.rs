// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `--save`: what is changed live is changed in the file, too, or neither is.

use std::fs;

use limiter_lab::{Answer, Lab, Limiter, Sink, V4, V6, skip, sockets};

const FILE: &str = "# mx1
hostname = \"mx.example.net\" # as in DNS

[defaults]
max_connections = 2 # few
response = \"reset\"

# people
[service.imap]
rate = \"60/min\"

# the end
";

fn with_file(lab: &Lab, text: &str) -> Limiter {
    let limiter = Limiter::start_with(lab, "");
    limiter.configure_all(text);
    limiter.ok(&["reload"]);
    limiter
}

fn text(limiter: &Limiter) -> String {
    fs::read_to_string(limiter.config_path()).unwrap()
}

/// What is in force and what the file says are the same: reading it again changes nothing.
#[track_caller]
fn is_the_files(limiter: &Limiter) {
    let before = (limiter.state(), limiter.json(&["rules"]));
    let said = limiter.ok(&["reload"]);
    assert!(said.contains("limiter.toml: already in force"), "{said}");
    assert_eq!((limiter.state(), limiter.json(&["rules"])), before);
}

fn every_verb_saves(limiter: &Limiter) {
    let said = limiter.ok(&["set", "smtp", "max_connections=3", "rate=600/min", "--save"]);
    assert!(said.contains("max_connections 2 -> 3") && said.contains("limiter.toml: saved"), "{said}");
    is_the_files(limiter);
    limiter.ok(&[
        "set",
        "imap",
        "rate=none",
        "network_max_connections=50",
        "max_total=90",
        "wait=10s",
        "--save",
    ]);
    is_the_files(limiter);
    for (arguments, network) in [("198.51.100.0/24", "10.0.0.0/8"), ("2001:db8:7::/48", "2001:db8:99::1")] {
        limiter.ok(&["allow", network, "--save"]);
        is_the_files(limiter);
        limiter.ok(&["limit", arguments, "9", "--save"]);
        limiter.ok(&["limit", arguments, "4", "--service", "smtp", "--save"]);
        is_the_files(limiter);
        limiter.ok(&["deny", network, "--save"]);
        is_the_files(limiter);
    }
    limiter.ok(&["forget", "10.0.0.0/8", "--save"]);
    is_the_files(limiter);
    let said = limiter.ok(&["set", "smtp", "max_connections=3", "--save"]);
    assert!(said.contains("limiter.toml: unchanged"), "{said}");
    let expected = FILE
        .replace(
            "rate = \"60/min\"\n",
            "rate = \"none\"\nnetwork = { max_connections = 50 }\nmax_total = 90\nwait = \"10s\"\n",
        )
        .replace("\n# the end\n", "\n[service.smtp]\nmax_connections = 3\nrate = \"600/min\"\n\n# the end\n");
    let rule = |network: &str, says: &str| format!("\n[[rule]]\nnetwork = \"{network}\"\n{says}\n");
    let limits = "max_connections = { smtp = 4, \"*\" = 9 }";
    let rules = [
        rule("198.51.100.0/24", limits),
        rule("2001:db8:99::1", "deny = true"),
        rule("2001:db8:7::/48", limits),
    ];
    let written = text(limiter);
    // The end may stand above or below what is new at the end; everything else is told.
    let lines = |text: &str| {
        let mut lines: Vec<String> =
            text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&written), lines(&(expected + &rules.concat())), "{written}");
    for comment in
        ["# mx1\nhostname", " # as in DNS\n", "max_connections = 2 # few\n", "# people\n[service.imap]"]
    {
        assert!(written.contains(comment), "{written}");
    }
}

#[test]
fn what_is_saved_is_in_force_and_in_the_file_with_a_daemon_and_without_one() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    for with_daemon in [true, false] {
        let mut limiter = with_file(&lab, FILE);
        if !with_daemon {
            limiter.kill();
        }
        every_verb_saves(&limiter);
        for family in [V4, V6] {
            let held = [(); 4].map(|()| lab.served(family.source(), family.port(25)));
            assert_eq!(lab.answer(family.source(), family.port(25)), Answer::Reset);
            drop(held);
            sockets::agree(&lab.host, &limiter, ("smtp", 25), family.source(), 0);
        }
        if with_daemon {
            limiter.stop();
        }
        let (before, mark) = (limiter.json(&["rules"]), limiter.log().len());
        limiter.run();
        assert!(limiter.log()[mark..].contains("the configuration is already in force"), "{}", limiter.log());
        assert_eq!(limiter.json(&["rules"]), before);
    }
}

#[test]
fn a_file_that_somebody_else_has_changed_is_not_overwritten() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = with_file(&lab, FILE);
    let theirs = FILE.replace("= 2 # few", "= 7 # more");
    limiter.configure_all(&theirs);
    let before = limiter.state();
    for verb in
        [&["set", "smtp", "max_connections=3"] as &[&str], &["deny", "10.0.0.0/8"], &["forget", "10.0.0.0/8"]]
    {
        let outcome = limiter.cli(&[verb, &["--save"]].concat());
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(
            outcome.stderr.contains("limiter.toml: the file has changed since it was last applied"),
            "{outcome:?}"
        );
        assert!(outcome.stderr.contains(" reload`, then repeat this command"), "{outcome:?}");
        assert_eq!((text(&limiter), limiter.state()), (theirs.clone(), before.clone()));
    }
    limiter.ok(&["reload"]);
    limiter.ok(&["set", "smtp", "max_connections=3", "--save"]);
    assert!(text(&limiter).contains("= 7 # more"));
    // A comment is nobody's policy: it stays, and is no reason to refuse.
    limiter.configure_all(&format!("{}# mine\n", text(&limiter)));
    limiter.ok(&["set", "smtp", "max_connections=4", "--save"]);
    assert!(text(&limiter).contains("# mine\n"), "{}", text(&limiter));
    is_the_files(&limiter);
}

#[test]
fn what_is_changed_live_only_stays_out_of_the_file() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = with_file(&lab, FILE);
    limiter.ok(&["set", "smtp", "max_connections=9"]);
    limiter.ok(&["deny", "10.0.0.0/8"]);
    limiter.ok(&["set", "pop3", "max_connections=3", "--save"]);
    assert!(!text(&limiter).contains("smtp") && !text(&limiter).contains("10.0.0.0"), "{}", text(&limiter));
    assert!(limiter.json(&["rules"]).to_string().contains("10.0.0.0/8"), "and in force");
    // Said once more, it is saved; and what is in the file only can be forgotten there.
    limiter.ok(&["deny", "10.0.0.0/8", "--save"]);
    limiter.ok(&["set", "smtp", "max_connections=9", "--save"]);
    is_the_files(&limiter);
    limiter.ok(&["forget", "10.0.0.0/8"]);
    limiter.ok(&["forget", "10.0.0.0/8", "--save"]);
    is_the_files(&limiter);
    assert!(!text(&limiter).contains("10.0.0.0/8"));
}

#[test]
fn what_cannot_be_in_force_is_not_written_and_what_cannot_be_written_is_not_in_force() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let file = format!("{FILE}[service.smtp]\nmax_total = 50\n");
    let limiter = with_file(&lab, &file);
    let before = limiter.state();
    let refused = |arguments: &[&str], words: &str| {
        let outcome = limiter.cli(&[arguments, &["--save"]].concat());
        assert_ne!(outcome.code, Some(0), "{outcome:?}");
        assert!(
            outcome.stderr.contains(words) && outcome.stderr.trim_end().lines().count() == 1,
            "{outcome:?}"
        );
        assert_eq!(limiter.state(), before);
        text(&limiter)
    };
    assert_eq!(refused(&["set", "smtp", "max_connections=51"], "max_total 50 of service smtp"), file);
    assert_eq!(refused(&["set", "smpt", "max_connections=5"], "smpt"), file);
    // The same configuration, in a form that would become another.
    let mixed = "hostname = 'mx.example.net'\ndefaults.max_connections = 2\nservice.imap.rate = '60/min'\n\
                 defaults.response = 'reset'\nservice.smtp.max_total = 50\n";
    limiter.configure_all(mixed);
    assert_eq!(refused(&["set", "smtp", "max_connections=5"], "edit the file"), mixed);
    // A second file in its place, in which there is no room.
    limiter.configure_all(&file);
    let dir = limiter.config_path().with_file_name("full");
    fs::create_dir(&dir).unwrap();
    let [full, link] = [dir.join("limiter.toml"), limiter.config_path()];
    fs::rename(&link, &full).unwrap();
    std::os::unix::fs::symlink(&full, &link).unwrap();
    let immutable = |flag: &str| {
        std::process::Command::new("chattr").arg(flag).arg(&dir).status().is_ok_and(|status| status.success())
    };
    if immutable("+i") {
        let outcome = limiter.cli(&["set", "smtp", "max_connections=5", "--save"]);
        immutable("-i");
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(
            outcome.stderr.contains("cannot write ") && outcome.stderr.contains("nothing was changed"),
            "{outcome:?}"
        );
        assert_eq!((text(&limiter), limiter.state()), (file.clone(), before.clone()));
    } else {
        skip("this file system has no flag for what may not change (chattr +i)");
    }
    limiter.ok(&["set", "smtp", "max_connections=5", "--save"]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "it is followed");
    is_the_files(&limiter);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left there");
}

#[test]
fn a_missing_file_is_made_with_just_the_change() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = with_file(&lab, "");
    fs::remove_file(limiter.config_path()).unwrap();
    limiter.ok(&["set", "smtp", "max_connections=5", "--save"]);
    assert_eq!(text(&limiter), "[service.smtp]\nmax_connections = 5\n");
    is_the_files(&limiter);
    // Gone again, and this time it said something.
    fs::remove_file(limiter.config_path()).unwrap();
    let before = limiter.state();
    let outcome = limiter.cli(&["set", "smtp", "max_connections=6", "--save"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("the applied file no longer exists"), "{outcome:?}");
    assert_eq!(limiter.state(), before);
    assert!(!limiter.config_path().exists());
}
