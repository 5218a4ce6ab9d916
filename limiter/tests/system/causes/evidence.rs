// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who is logged in, and what ends their sessions.

use std::collections::BTreeMap;

use limiter_lab::{Lab, Limiter, SOON, V4, V6, eventually, sockets};
use serde_json::Value;

use super::scenes::{Crowd, connections, has};
use crate::support::{dovecot, postfix, schema::is_as_its_schema_says};

const LIMIT: u32 = 10;

/// How many connections each user has; "" where the user is not known.
fn users(connections: &[Value]) -> BTreeMap<String, usize> {
    let mut users = BTreeMap::new();
    for one in connections {
        *users.entry(one["user"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    users
}

#[test]
fn connections_without_tls_are_listed_with_their_users() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let _postfix = postfix::start(&lab);
    let limiter = Limiter::start(&lab, LIMIT, "reply");
    for family in [V4, V6] {
        let source = family.source();
        let crowd = Crowd::hold(&lab.client, family.host, source, &["anna", "anna", "ben"]);
        let stranger = lab.served(source, family.port(143));
        let mail = lab.served(source, family.port(25));
        let listed = has(&limiter, source, 5);
        let expected = [("anna", 2), ("ben", 1), ("", 2)].map(|(user, count)| (user.to_owned(), count));
        assert_eq!(users(&listed), BTreeMap::from(expected), "{listed:#?}");
        let imap = listed.iter().filter(|one| one["user"].is_string());
        assert!(imap.clone().all(|one| one["service"] == "imap" && one["process"]["name"] == "imap"));
        is_as_its_schema_says("connections", &limiter.json(&["connections"]));
        let text = limiter.ok(&["connections", &source.to_string()]);
        assert!(text.lines().next().is_some_and(|line| line.ends_with("USER")), "{text}");
        drop((crowd, stranger, mail));
        has(&limiter, source, 0);
    }
}

#[test]
fn a_mail_daemon_that_does_not_answer_keeps_nobody_waiting() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let dovecot = dovecot::start(&lab);
    let limiter = Limiter::start(&lab, LIMIT, "reply");
    let source = V4.source();
    let _crowd = Crowd::hold(&lab.client, V4.host, source, &["anna"]);
    has(&limiter, source, 1);
    let _stopped = dovecot.stop_process("anvil");
    let listed = limiter.json(&["connections", &source.to_string()]);
    assert_eq!(listed["users_not_known"], "doveadm did not answer within 2 s", "{listed:#?}");
    assert_eq!(users(connections(&limiter, source).as_slice()), BTreeMap::from([(String::new(), 1)]));
    let text = limiter.ok(&["connections", &source.to_string()]);
    assert!(text.ends_with("users are not known: doveadm did not answer within 2 s\n"), "{text}");
}

#[test]
fn sessions_of_dovecot_are_ended_by_dovecot_and_their_clients_are_told() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let dovecot = dovecot::start(&lab);
    let limiter = Limiter::start(&lab, LIMIT, "reply");
    for family in [V4, V6] {
        let (source, other) = (family.source(), family.sources[1]);
        let crowd = Crowd::hold(&lab.client, family.host, source, &["anna", "ben"]);
        let bystander = Crowd::hold(&lab.client, family.host, other, &["anna"]);
        // Nobody has logged in: this one is the kernel's.
        let stranger = lab.served(source, family.port(143));
        has(&limiter, source, 3);
        let said = limiter.ok(&["close", &source.to_string()]);
        assert!(
            said.ends_with(": closed 3 connections (2 by the mail daemon, 1 by the kernel), 0 left\n"),
            "{said}"
        );
        has(&limiter, source, 0);
        has(&limiter, other, 1);
        let words = ["Disconnected: Server shutting down", &format!("rip={source}")];
        eventually("Dovecot has ended them", SOON, || {
            // Its log names the user; the address is in the line of the login.
            match dovecot.lines(&words[..1]).len() {
                0 | 1 => Err(dovecot.log()),
                _ => Ok(()),
            }
        });
        drop((crowd, bystander, stranger));
        sockets::agree(&lab.host, &limiter, ("imap", 143), other, 0);
    }
    sockets::settled(&lab.host, &limiter, 143);
}

#[test]
fn a_user_of_whom_only_some_sessions_are_meant_is_not_thrown_out_of_the_others() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter = Limiter::start(&lab, LIMIT, "reply");
    let source = V4.source();
    let old = Crowd::hold(&lab.client, V4.host, source, &["anna", "ben"]);
    eventually("they have been idle for three seconds", SOON, || {
        let listed = connections(&limiter, source);
        let is_idle = |one: &Value| one["idle_seconds"].as_f64() >= Some(3.0);
        if listed.len() == 2 && listed.iter().all(is_idle) { Ok(()) } else { Err(format!("{listed:#?}")) }
    });
    let young = Crowd::hold(&lab.client, V4.host, source, &["anna"]);
    has(&limiter, source, 3);
    let said = limiter.ok(&["close", &source.to_string(), "--idle", "3s"]);
    assert!(
        said.ends_with(": closed 2 connections (1 by the mail daemon, 1 by the kernel), 1 left\n"),
        "{said}"
    );
    let left = has(&limiter, source, 1);
    assert_eq!(users(&left), BTreeMap::from([("anna".to_owned(), 1)]), "{left:#?}");
    drop((old, young));
}

#[test]
fn the_history_knows_who_was_logged_in_and_has_no_names_where_nobody_wants_them() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let source = V4.source();
    let _crowd = Crowd::hold(&lab.client, V4.host, source, &["anna", "anna", "ben"]);
    let mut limiter = Limiter::start(&lab, 4, "reply");
    let of_imap = |limiter: &Limiter| {
        eventually("the history has its users", SOON, || {
            let history = limiter.cli(&["history", &source.to_string(), "--json"]);
            let history: Value = serde_json::from_str(&history.stdout).map_err(|_| limiter.log())?;
            let of_imap = history["sources"].as_array().into_iter().flatten();
            let mut of_imap = of_imap.filter(|one| one["service"] == "imap" && one["users"] == 2);
            of_imap.next().cloned().ok_or_else(|| format!("{history:#}"))
        })
    };
    let found = of_imap(&limiter);
    assert_eq!(found["names"], serde_json::json!(["anna", "ben"]), "{found:#}");
    let said = limiter.ok(&["history", &source.to_string()]);
    assert!(said.contains("2 users or more in a quarter of an hour: anna, ben"), "{said}");
    limiter.stop();
    limiter.ok(&["history", "forget", &source.to_string()]);
    limiter.configure("[defaults]\nmax_connections = 4\n[history]\nusers = false\n");
    limiter.run();
    let found = of_imap(&limiter);
    assert_eq!(found["names"], Value::Null, "{found:#}");
    limiter.stop();
    let database = rusqlite::Connection::open(limiter.history_path()).expect("a database");
    let names = database.query_row("SELECT count(*) FROM names", [], |row| row.get::<_, u32>(0));
    assert_eq!(names, Ok(0));
}
