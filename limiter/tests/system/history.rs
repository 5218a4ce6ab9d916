// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The history of real connections, and what becomes of it when its file is not as it should be.

mod million;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually};

use crate::support::schema::is_as_its_schema_says;

/// The daemon looks once a minute.
const LOOK: Duration = Duration::from_secs(75);

/// From now on the daemon sees what happens.
pub fn watches(limiter: &Limiter) {
    eventually("the history has begun", SOON, || {
        if limiter.history_path().exists() { Ok(()) } else { Err(limiter.log()) }
    });
}

/// What `limiter history` says of a source at smtp.
fn of(limiter: &Limiter, source: std::net::IpAddr) -> Option<Value> {
    let history = limiter.json(&["history", &source.to_string()]);
    is_as_its_schema_says("history", &history);
    let sources = history["sources"].as_array().expect("a list").clone();
    sources.into_iter().find(|one| one["service"] == "smtp")
}

fn now_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("the clock is right").as_secs().cast_signed()
}

fn warnings(limiter: &Limiter) -> String {
    limiter.json(&["status"])["warnings"].to_string()
}

/// One connection is let in, and no more than that.
fn limit_holds(lab: &Lab) {
    let held = lab.served(V4.source(), V4.port(25));
    assert!(matches!(lab.answer(V4.source(), V4.port(25)), Answer::Line(_)));
    drop(held);
}

#[test]
fn a_peak_between_two_looks_is_in_the_history_and_who_was_refused_is_with_the_reason() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start_patient(&lab, 4, "reply");
    watches(&limiter);
    for family in [V4, V6] {
        let held: Vec<_> = (0..4).map(|_| lab.served(family.source(), family.port(25))).collect();
        assert!(matches!(lab.answer(family.source(), family.port(25)), Answer::Line(_)));
        drop(held);
    }
    let refused_at = now_s() - 1;
    let stays = lab.served(V4.sources[1], V4.port(25));
    for family in [V4, V6] {
        let found = eventually("it is in the history", LOOK, || {
            of(&limiter, family.source()).ok_or_else(|| limiter.log())
        });
        assert_eq!((&found["peak"], &found["limit"]), (&4.into(), &4.into()), "{found:#}");
        assert_eq!(found["accepted"], 4, "{found:#}");
        assert_eq!(found["refused_for"]["concurrency"], 1, "{found:#}");
        assert!(found["refused"].as_u64() >= Some(1), "{found:#}");
        assert_eq!(found["durations"]["under_1_min"], 4, "{found:#}");
        assert_eq!(found["rows"][0]["seconds"], 900, "{found:#}");
        let last = found["last_refused"].as_i64().expect("it was refused");
        assert!((refused_at..=refused_at + 60).contains(&last), "{refused_at}: {found:#}");
    }
    let mode = fs::metadata(limiter.history_path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(warnings(&limiter), "[]");
    let said = limiter.ok(&["history", "--refused"]);
    let is_told = said.starts_with("in the last 1 d, until ") && said.contains(": 2 sources were refused ");
    assert!(is_told, "{said}");
    let csv = limiter.ok(&["history", "--csv", "--service", "smtp"]);
    assert!(csv.lines().any(|line| line.contains(&format!(",900,smtp,{}/32,4,4,4,", V4.source()))), "{csv}");

    // An orderly end leaves nothing out, and no daemon is needed to read.
    limiter.stop();
    let one = of(&limiter, V4.sources[1]).expect("it holds a connection");
    assert_eq!(
        (&one["peak"], &one["accepted"], &one["rows"][0]["seconds"]),
        (&1.into(), &1.into(), &3600.into())
    );
    let said = limiter.ok(&["history", "forget", &V4.source().to_string()]);
    assert!(said.ends_with("1 source: changed\n"), "{said}");
    assert_eq!(of(&limiter, V4.source()), None);
    let said = limiter.ok(&["history", "forget", &V4.source().to_string()]);
    assert!(said.ends_with("0 sources: unchanged\n"), "{said}");
    assert!(of(&limiter, V6.source()).is_some());
    drop(stays);
}

#[test]
fn whatever_becomes_of_the_database_the_limits_hold_and_status_says_so() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start_patient(&lab, 1, "reply");
    watches(&limiter);
    limit_holds(&lab);
    limiter.stop();
    let path = limiter.history_path();
    assert!(of(&limiter, V4.source()).is_some());
    let set_version = |version: i64| {
        Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
    };
    let says = |limiter: &Limiter, what: &str| {
        eventually("status says so", LOOK, || {
            let said = warnings(limiter);
            if said.contains(what) { Ok(()) } else { Err(format!("no {what:?} in {said}")) }
        });
        limit_holds(&lab);
    };

    set_version(99);
    limiter.run();
    says(&limiter, "a newer limiter wrote it");
    let refused = limiter.cli(&["history"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("a newer limiter wrote it"), "{refused:?}");
    limiter.stop();
    set_version(2);
    assert!(of(&limiter, V4.source()).is_some(), "nothing was changed in it");

    fs::write(&path, vec![0x5a; 100_000]).unwrap();
    limiter.run();
    says(&limiter, "was damaged: it is now");
    assert!(path.with_extension("db.damaged").exists());
    assert_eq!(of(&limiter, V4.source()), None, "a new one has begun");

    fs::remove_file(&path).unwrap();
    says(&limiter, "was removed or replaced while the daemon ran");
    eventually("another has begun", LOOK, || if path.exists() { Ok(()) } else { Err(limiter.log()) });

    // Somebody else could write to it.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let refused = limiter.cli(&["history"]);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("anyone can write to this file"),
        "{refused:?}"
    );
    limiter.kill();
    limiter.run();
    says(&limiter, "anyone can write to this file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    eventually("it goes on", LOOK, || {
        let log = limiter.log();
        if log.contains("the history is written again") { Ok(()) } else { Err(log) }
    });
}

#[test]
fn where_nobody_wants_a_history_there_is_none() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start_with(
        &lab,
        "history = false\n[defaults]\nmax_connections = 1\n[ladder]\nreplies = \"none\"\n",
    );
    limit_holds(&lab);
    limiter.stop();
    assert!(!limiter.history_path().exists());
    let said = limiter.cli(&["history", "--json"]);
    let failure: Value = serde_json::from_str(&said.stdout).expect("one document");
    assert_eq!((said.code, &failure["exit_code"]), (Some(1), &1.into()));
    assert!(said.stderr.contains("has no history"), "{said:?}");
    let said = limiter.ok(&["history", "forget", "192.0.2.7"]);
    assert!(said.contains("0 sources: unchanged"), "{said}");
}

#[test]
fn mistakes_are_one_sentence() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 4, "reply");
    watches(&limiter);
    for (words, code, said) in [
        (&["history", "203.0.113.7/24"][..], 2, "write 203.0.113.0/24 for the network"),
        (&["history", "--since", "yesterday"], 2, "give a time from 1s to 3650days"),
        (&["history", "--service", "nntp"], 2, "there is no service nntp in the history"),
        (&["history", "--csv", "--json"], 2, "cannot be used with"),
        (&["history", "forget"], 2, "required arguments were not provided"),
    ] {
        let outcome = limiter.cli(words);
        assert_eq!(outcome.code, Some(code), "{words:?}: {outcome:?}");
        assert!(outcome.stderr.contains(said), "{words:?}: {outcome:?}");
    }
}
