// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter explain`: what it takes, and what it says of real connections.

use limiter_lab::{Lab, Limiter, Sink, V4, V6, sockets};
use serde_json::Value;

use crate::support::schema::is_as_its_schema_says;

#[test]
fn the_document_of_a_source_at_its_limit_is_as_its_schema_says() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 4, "reply");
    for family in [V4, V6] {
        let source = family.source();
        is_as_its_schema_says("explain", &limiter.json(&["explain", &source.to_string()]));
        let held: Vec<_> = (0..4).map(|_| lab.served(source, family.port(25))).collect();
        assert!(!lab.answer(source, family.port(25)).is_service());
        let explained = limiter.json(&["explain", &source.to_string()]);
        is_as_its_schema_says("explain", &explained);
        let services = explained["services"].as_array().expect("services");
        let smtp = services.iter().find(|at| at["service"] == "smtp").expect("smtp");
        assert!(smtp["diagnosis"].is_object(), "{smtp:#}");
        let imap = services.iter().find(|at| at["service"] == "imap").expect("imap");
        assert!(imap["diagnosis"].is_null(), "nothing is asked of it: {imap:#}");
        let text = limiter.ok(&["explain", &source.to_string()]);
        assert!(text.starts_with(&format!("{source} is refused at smtp: ")), "{text}");
        assert!(text.contains("no connection to imap, pop3, "), "{text}");
        drop(held);
        sockets::settled(&lab.host, &limiter, 25);
    }
}

#[test]
fn a_line_of_a_log_and_the_text_of_a_refusal_name_the_address() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start_with(&lab, "");
    let own = V4.host;
    for line in [
        "postfix/smtpd[4711]: connect from office.example.net[203.0.113.9]",
        "dovecot: imap-login: Login: user=<anna>, method=PLAIN, rip=203.0.113.9, lip=192.0.2.25, TLS",
        "421 4.7.0 mx.example.net Too many connections (8 of 8) from this IP [203.0.113.9], close one or wait",
    ] {
        let words: Vec<&str> = std::iter::once("explain").chain(line.split(' ')).collect();
        for arguments in [vec!["explain", line], words] {
            let explained = limiter.json(&arguments);
            is_as_its_schema_says("explain", &explained);
            assert_eq!(explained["address"], "203.0.113.9", "{explained:#}");
            assert_eq!(explained["asked"], line);
        }
    }
    let elsewhere = format!(
        "421 4.7.0 other.example.org Too many connections (8 of 8) from this IP [{own}], close one or wait"
    );
    let told = limiter.json(&["explain", &elsewhere]);
    is_as_its_schema_says("explain", &told);
    assert_eq!([&told["server"], &told["refused"]], ["other.example.org", own.to_string().as_str()]);
    let text = limiter.ok(&["explain", &elsewhere]);
    assert!(text.starts_with("This is a refusal by other.example.org, not by this host. "), "{text}");
    assert!(
        text.contains("remote_max_parallel") && text.contains("_destination_concurrency_limit"),
        "{text}"
    );
}

#[test]
fn a_name_is_looked_up_and_each_of_its_addresses_is_explained() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 4, "reset");
    let explained = limiter.json(&["explain", "localhost"]);
    is_as_its_schema_says("explain", &explained);
    assert_eq!([&explained["asked"], &explained["local"]], [&Value::from("localhost"), &Value::from(true)]);
}

#[test]
fn the_text_for_a_mail_user_has_the_figures_and_both_languages() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 143);
    let limiter = Limiter::start_with(&lab, "[service.imap]\nmax_connections = 3\n");
    let source = V4.source();
    let held: Vec<_> = (0..3).map(|_| lab.served(source, V4.port(143))).collect();
    for (language, hello) in [("en", "Hello,\n"), ("de", "Guten Tag,\n")] {
        let text = limiter.ok(&["explain", &source.to_string(), "--for-user", "--language", language]);
        assert!(text.starts_with(hello) && text.contains("mx.example.net"), "{text}");
        assert!(text.contains(&source.to_string()) && text.contains("IMAP"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 72), "{text}");
    }
    drop(held);
    sockets::settled(&lab.host, &limiter, 143);
}
