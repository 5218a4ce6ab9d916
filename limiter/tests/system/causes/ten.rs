// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ten causes, each made for real: the likeliest finding is the right one.
//!
//! What takes hours (idleness, silence) is not waited for: the rules that rest on it have tables in `limiter/src/diagnose`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use limiter_lab::{Answer, Lab, Limiter, SOON, V4, client, eventually};
use serde_json::Value;

use super::scenes::{self, Crowd, Loop, Sender, connections, has};
use crate::support::{dovecot, postfix};

/// Ten for each source, and nobody is banned for asking.
const CONFIG: &str = "[defaults]\nmax_connections = 10\n[ladder]\nreplies = \"none\"\n";

/// The findings of `limiter explain` for an address at a service, the likeliest first.
fn findings(limiter: &Limiter, address: IpAddr, service: &str, more: &[&str]) -> Vec<Value> {
    let address = address.to_string();
    let explained = limiter.json(&[&["explain", &address, "--service", service], more].concat());
    let services = explained["services"].as_array().expect("services");
    let of_service = services.iter().find(|one| one["service"] == service).expect("it is explained");
    let findings = of_service["diagnosis"]["findings"].as_array();
    findings.unwrap_or_else(|| panic!("no findings: {explained:#}")).clone()
}

/// Fails unless the likeliest cause is this; returns the finding.
#[track_caller]
fn first(limiter: &Limiter, address: IpAddr, service: &str, more: &[&str], cause: &str) -> Value {
    let findings = findings(limiter, address, service, more);
    let first = findings.first().unwrap_or_else(|| panic!("nothing is found for {address}"));
    assert_eq!(first["cause"], cause, "{findings:#?}");
    first.clone()
}

/// A figure that a finding rests on.
fn figure(finding: &Value, name: &str) -> u64 {
    let facts = finding["evidence"].as_array().expect("evidence");
    let fact = facts.iter().find(|fact| fact["name"] == name);
    fact.and_then(|fact| fact["value"].as_u64()).unwrap_or_else(|| panic!("no figure {name}: {finding:#}"))
}

fn refused(lab: &Lab, source: IpAddr, port: u16) {
    let answer = lab.client.run(|| client::answer(source, V4.port(port), SOON).1);
    assert!(matches!(&answer, Answer::Line(line) if line.contains("Too many connections")), "{answer:?}");
}

#[test]
fn one_user_with_many_connections_is_one_user() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let source = V4.source();
    let _crowd = Crowd::hold(&lab.client, V4.host, source, &["anna"; 10]);
    refused(&lab, source, 143);
    let found = first(&limiter, source, "imap", &[], "one-user");
    assert_eq!(found["explains"], 10, "{found:#}");
}

#[test]
fn several_users_behind_one_address_are_many_users() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let source = V4.source();
    let users = ["anna", "ben", "carla", "dave", "eva", "fritz", "gerd", "hanna", "ida", "anna"];
    let _crowd = Crowd::hold(&lab.client, V4.host, source, &users);
    refused(&lab, source, 143);
    let found = first(&limiter, source, "imap", &[], "many-users");
    assert_eq!(figure(&found, "users"), 9, "{found:#}");
}

#[test]
#[ignore = "cargo xtask soak runs it: it watches for 40 seconds"]
fn a_program_that_logs_in_every_few_seconds_checks_too_often() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let source = V4.source();
    let _crowd = Crowd::start(&lab.client, "visit", V4.host, source, &["6", "4", "anna"]);
    first(&limiter, source, "imap", &["--watch", "40s"], "checks-too-often");
}

#[test]
fn a_client_that_comes_back_to_postfix_at_once_is_in_a_loop() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _postfix = postfix::start(&lab);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let source = V4.source();
    let _loop = Loop::start(&lab, source, V4.port(25), Duration::from_millis(200));
    let found = first(&limiter, source, "smtp", &["--watch", "21s"], "looping");
    assert!(figure(&found, "begun_per_minute_milli") > 60_000, "{found:#}");
}

#[test]
#[ignore = "cargo xtask soak runs it: it watches for 31 seconds"]
fn a_program_that_opens_sessions_and_closes_none_is_in_a_loop() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let source = V4.source();
    let _crowd = Crowd::start(&lab.client, "leak", V4.host, source, &["4", "anna"]);
    let found = first(&limiter, source, "imap", &["--watch", "31s"], "looping");
    assert!(figure(&found, "grown") >= 5, "{found:#}");
    assert_eq!(found["confidence"], "high", "{found:#}");
}

#[test]
#[ignore = "cargo xtask soak runs it: it waits for a minute of silence"]
fn sessions_of_a_phone_that_vanished_are_ghosts() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    // Dovecot says every few seconds that it is still there.
    let _dovecot = dovecot::start_with(&lab, "imap_idle_notify_interval = 5s\n");
    let limiter = Limiter::start_with(&lab, CONFIG);
    let source = V4.source();
    let _crowd = Crowd::hold(&lab.client, V4.host, source, &["anna"; 10]);
    has(&limiter, source, 10);
    lab.cut();
    let unanswered =
        |one: &Value| one["unanswered"].as_u64() >= Some(3) && one["silent_seconds"].as_f64() >= Some(60.0);
    eventually("nobody has answered for a minute", Duration::from_secs(120), || {
        let listed = connections(&limiter, source);
        if listed.len() == 10 && listed.iter().all(unanswered) { Ok(()) } else { Err(format!("{listed:#?}")) }
    });
    let found = first(&limiter, source, "imap", &[], "ghosts");
    assert_eq!(figure(&found, "gone"), 10, "{found:#}");
}

#[test]
fn a_bridge_that_masquerades_its_clients_is_something_in_front() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let bridge: IpAddr = Ipv4Addr::new(172, 17, 0, 1).into();
    let inside = scenes::hide_behind(&lab, bridge);
    let own: IpAddr = scenes::INSIDE.into();
    let users = ["anna", "ben", "carla", "dave", "eva", "fritz", "gerd", "hanna", "ida", "jan"];
    let _crowd = Crowd::hold(&inside, V4.host, own, &users);
    has(&limiter, bridge, 10);
    assert!(connections(&limiter, own).is_empty(), "its own address is hidden");
    let found = first(&limiter, bridge, "imap", &[], "in-front");
    assert_eq!(figure(&found, "inside"), 1, "{found:#}");
}

#[test]
fn a_webmail_host_in_the_local_network_is_something_in_front() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let webmail: IpAddr = Ipv4Addr::new(10, 1, 2, 3).into();
    scenes::add_address(&lab, webmail);
    let users = ["anna", "ben", "carla", "dave", "eva", "fritz", "gerd", "hanna"];
    let short: Vec<&str> = ["0.3", "0.2"].into_iter().chain(users).collect();
    let _visits = Crowd::start(&lab.client, "visit", V4.host, webmail, &short);
    let _crowd = Crowd::hold(&lab.client, V4.host, webmail, &users);
    first(&limiter, webmail, "imap", &[], "in-front");
}

#[test]
fn another_mail_server_with_a_queue_is_a_sender() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    // Each delivery takes a while, so there are several at a time.
    let _postfix = postfix::start_with(&lab, "smtpd_end_of_data_restrictions = sleep 8\n");
    let limiter = Limiter::start_with(&lab, CONFIG);
    let source = V4.source();
    let _sender = Sender::start(&lab, source, 40);
    has(&limiter, source, 10);
    let found = first(&limiter, source, "smtp", &["--watch", "21s"], "sender");
    assert!(figure(&found, "sending") > 0, "{found:#}");
    assert_eq!(found["confidence"], "high", "{found:#}");
}

#[test]
fn where_many_sources_are_at_their_limit_the_limit_is_too_low() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter =
        Limiter::start_with(&lab, "[defaults]\nmax_connections = 2\n[ladder]\nreplies = \"none\"\n");
    lab.take_network("198.51.100.0/24");
    let source = |last: u8| IpAddr::from([198, 51, 100, last]);
    let _crowds: Vec<Crowd> = (20..32)
        .map(|last| {
            let users = ["anna", "anna"].map(|user| format!("{user}{last}"));
            Crowd::hold(&lab.client, V4.host, source(last), &users.each_ref().map(String::as_str))
        })
        .collect();
    let found = first(&limiter, source(25), "imap", &[], "limit-too-low");
    assert_eq!(figure(&found, "sources_at_limit"), 12, "{found:#}");
}

#[test]
fn a_mail_server_that_does_not_keep_up_is_overloaded() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let postfix = postfix::start_serving(&lab, 2);
    let limiter = Limiter::start_with(&lab, CONFIG);
    // Two are served; the others wait for a greeting.
    let held: Vec<_> = (0..2).map(|_| lab.served(V4.sources[1], V4.port(25))).collect();
    let waiting: Vec<_> = (0..5).map(|_| lab.dial(V4.source(), V4.port(25)).expect("accepted")).collect();
    eventually("they have waited for long", Duration::from_secs(20), || {
        let listed = connections(&limiter, V4.source());
        let is_late = |one: &Value| one["age_seconds"].as_f64() > Some(5.0) && one["sent_bytes"] == 0;
        if listed.iter().filter(|one| is_late(one)).count() == 5 {
            Ok(())
        } else {
            Err(format!("{listed:#?}"))
        }
    });
    let found = first(&limiter, V4.source(), "smtp", &[], "overloaded");
    assert_eq!(figure(&found, "not_greeted"), 5, "{found:#}");
    assert_eq!(figure(&found, "daemon_limit"), 2, "{found:#}");
    drop((held, waiting, postfix));
}

#[test]
fn where_the_service_is_full_of_others_it_is_full_around() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _dovecot = dovecot::start(&lab);
    let limiter = Limiter::start_with(
        &lab,
        "[service.imap]\nmax_connections = 10\nmax_total = 12\n[ladder]\nreplies = \"none\"\n",
    );
    let [victim, other, third] = V4.sources;
    let _others = [
        Crowd::hold(&lab.client, V4.host, other, &["anna"; 6]),
        Crowd::hold(&lab.client, V4.host, third, &["ben"; 6]),
    ];
    let answer = lab.client.run(|| client::answer(victim, V4.port(143), SOON).1);
    assert!(matches!(&answer, Answer::Line(line) if line.contains("to this service")), "{answer:?}");
    first(&limiter, victim, "imap", &[], "full-around");
}
