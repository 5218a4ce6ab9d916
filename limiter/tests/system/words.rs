// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What people type, and what they are told: taken in the forms they know, answered with what is, what was and whether
//! that is a change; for monitoring and programs as well.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::tproxy::firewall;
use limiter_lab::command::Outcome;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, sockets};

/// Long enough for a SYN that is repeated once.
const A_WHILE: Duration = Duration::from_millis(1500);

/// What `limiter status` says of a service.
#[track_caller]
fn service(limiter: &Limiter, name: &str) -> Value {
    let status = limiter.json(&["status"]);
    let found = status["services"].as_array().unwrap().iter().find(|service| service["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {status:#}")).clone()
}

/// What `limiter explain` says of an address at a service.
#[track_caller]
fn explained(limiter: &Limiter, address: &str, name: &str) -> Value {
    let explanation = limiter.json(&["explain", address]);
    let found = explanation["services"].as_array().unwrap().iter().find(|service| service["service"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {explanation:#}")).clone()
}

/// The rules that somebody has made, as `NETWORK ACTION`.
fn rules(limiter: &Limiter) -> Vec<String> {
    let rules = limiter.json(&["rules"]);
    let made = rules["rules"].as_array().unwrap().iter().filter(|rule| rule["built_in"] == false);
    made.map(|rule| format!("{} {}", rule["network"].as_str().unwrap(), rule["action"].as_str().unwrap()))
        .collect()
}

#[test]
fn services_addresses_and_networks_are_taken_as_people_type_them() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 3, "reset");
    limiter.ok(&["set", "IMAP,Submission", "max_connections=7"]);
    assert_eq!(
        ["imap", "submission", "smtp"]
            .map(|name| service(&limiter, name)["max_connections"].as_u64().unwrap()),
        [7, 7, 3]
    );
    limiter.ok(&["set", "all", "max_connections=8"]);
    assert_eq!(service(&limiter, "sieve")["max_connections"], 8);
    for same in ["203.0.113.7", "203.0.113.7/32", "[203.0.113.7]", "::ffff:203.0.113.7"] {
        assert_eq!(explained(&limiter, same, "smtp")["source"], "203.0.113.7/32", "{same}");
    }
    for same in ["2001:db8::5", "[2001:db8::5]", "2001:db8::5/128"] {
        assert_eq!(explained(&limiter, same, "smtp")["source"], "2001:db8::/64", "{same}");
    }
    limiter.ok(&["deny", "203.0.113.0/24", "[2001:db8:9::]/48", "198.51.100.9"]);
    limiter.ok(&["limit", "10.0.0.0/8", "9.0.0.0/8", "40", "--service", "IMAP,pop3"]);
    assert_eq!(
        rules(&limiter),
        [
            "9.0.0.0/8 limit",
            "10.0.0.0/8 limit",
            "198.51.100.9/32 deny",
            "203.0.113.0/24 deny",
            "2001:db8:9::/48 deny"
        ],
        "sorted by number"
    );
    assert_eq!(
        ["imap", "pop3", "smtp"].map(|name| explained(&limiter, "9.1.2.3", name)["limit"].as_u64().unwrap()),
        [40, 40, 8]
    );
    limiter.ok(&["forget", "9.0.0.0/8", "10.0.0.0/8", "203.0.113.0/24", "2001:db8:9::/48", "198.51.100.9"]);
    assert!(rules(&limiter).is_empty());
    limiter.ok(&["ban", "192.0.2.9", "[2001:db8:9::5]", "--service", "SMTP,imap"]);
    assert_eq!(limiter.json(&["bans"])["bans"].as_array().unwrap().len(), 4);
    limiter.ok(&["unban", "192.0.2.9/32", "2001:db8:9::/64", "--service", "all"]);
    assert!(limiter.json(&["bans"])["bans"].as_array().unwrap().is_empty());
}

#[test]
fn one_mistake_among_several_changes_nothing_and_the_form_that_is_wanted_is_said() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 3, "reset");
    let before = (limiter.state(), limiter.json(&["rules"]), limiter.json(&["bans"]));
    for (arguments, form) in [
        (vec!["deny", "203.0.113.0/24", "203.0.113.256"], "an address or a network such as"),
        (vec!["deny", "203.0.113.0/24", "203.0.113.7/24"], "write 203.0.113.0/24 for the network"),
        (vec!["limit", "203.0.113.0/24", "many"], "give a whole number of connections, from 1 to 1000000"),
        (vec!["limit", "203.0.113.0/24", "0"], "give a whole number of connections, from 1 to 1000000"),
        (
            vec!["limit", "203.0.113.0/24", "4", "--service", "imap,smpt"],
            "unknown service smpt: choose from imap,",
        ),
        (vec!["ban", "192.0.2.9", "mx.example.net"], "an address or a network such as"),
        (vec!["ban", "192.0.2.9", "--for", "10"], "give a time from 1s to 30days, such as 10m"),
        (vec!["ban", "192.0.2.9", "203.0.113.0/24"], "deny 203.0.113.0/24`, until `limiter"),
        (vec!["unban", "192.0.2.9", "2001:db8::/129"], "an address or a network such as"),
        (vec!["list", "--over", "x"], "give a whole number of connections, such as 10"),
        (vec!["explain", "203.0.113.0/24"], "this is a network; give one address"),
        (vec!["set", "imap,smpt", "max_connections=5"], "unknown service smpt"),
        (vec!["set", "imap,", "max_connections=5"], "a service name is missing before or after a comma"),
    ] {
        let outcome = limiter.cli(&arguments);
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains(form), "{arguments:?}: {outcome:?}");
        assert!(!outcome.stderr.contains("invalid digit"), "{outcome:?}");
        assert_eq!(outcome.stderr.trim_end().lines().count(), 1, "{outcome:?}");
    }
    assert_eq!((limiter.state(), limiter.json(&["rules"]), limiter.json(&["bans"])), before);
}

#[test]
fn a_list_of_some_says_nothing_of_those_that_were_not_asked_for() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 3, "reset");
    let all = "no source holds a connection, or was connected or refused recently\n";
    let some = "no matching source holds a connection, or was connected or refused recently\n";
    assert_eq!(limiter.ok(&["list"]), all);
    assert_eq!(limiter.ok(&["list", "--over", "5"]), some);
    assert_eq!(limiter.ok(&["list", "--service", "imap"]), some);
}

#[test]
fn a_verb_says_what_was_and_said_twice_it_says_unchanged() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 3, "reset");
    let network = "203.0.113.0/24";
    for (arguments, once) in [
        (vec!["allow", network], format!("{network}: allow: changed\n")),
        (vec!["deny", network], format!("{network}: deny (was: allow): changed\n")),
        (vec!["limit", network, "4"], format!("{network}: limit 4 to each service (was: deny): changed\n")),
        (
            vec!["limit", network, "9", "--service", "imap"],
            format!(
                "{network}: limit 9 to imap, 4 to each other service (was: limit 4 to each service): changed\n"
            ),
        ),
        (vec!["set", "smtp", "max_connections=5"], "smtp: max_connections 3 -> 5: changed\n".to_owned()),
    ] {
        assert_eq!(limiter.ok(&arguments), once);
        let twice = limiter.ok(&arguments);
        assert!(twice.ends_with(": unchanged\n") && !twice.contains("was"), "{twice}");
        let json: Value = serde_json::from_str(&limiter.ok(&[&arguments[..], &["--json"]].concat())).unwrap();
        assert_eq!(json["changed"], false, "{json:#}");
    }
    let forgotten = limiter.ok(&["forget", network]);
    assert!(forgotten.starts_with(&format!("{network}: no rule (was: limit 9 to imap, ")), "{forgotten}");
    assert_eq!(limiter.ok(&["forget", network]), format!("{network}: no rule: unchanged\n"));
    assert_eq!(
        limiter.ok(&["ban", "192.0.2.9", "--service", "smtp", "--for", "2h"]),
        "smtp: 192.0.2.9/32: banned for 2 h: changed\n"
    );
    let again = limiter.ok(&["ban", "192.0.2.9", "--service", "smtp", "--for", "1h"]);
    assert!(again.starts_with("smtp: 192.0.2.9/32: banned for 1 h (was: banned for another 2 h)"), "{again}");
    let unbanned = limiter.ok(&["unban", "192.0.2.9", "--service", "smtp"]);
    assert!(
        unbanned.starts_with("smtp: 192.0.2.9/32: not banned (was: banned for another 1 h)"),
        "{unbanned}"
    );
    assert_eq!(
        limiter.ok(&["unban", "192.0.2.9", "--service", "smtp"]),
        "smtp: 192.0.2.9/32: not banned: unchanged\n"
    );
}

#[test]
fn to_shut_out_oneself_the_host_or_everybody_takes_force() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 3, "reset");
    let from = |address: &str, arguments: &[&str]| {
        let mut command = limiter.command(arguments);
        command.env("SSH_CONNECTION", format!("{address} 50022 192.0.2.1 22"));
        Outcome::of(command)
    };
    // As sudo does it: the shell above has the variable, and the command has not.
    let by_sudo = |address: &str, arguments: &[&str]| {
        let mut command = Command::new("sh");
        let line = "env -u SSH_CONNECTION \"$@\"; exit $?";
        command.args(["-c", line, "sh", crate::BINARY, "--instance", &limiter.instance]).args(arguments);
        command.env("SSH_CONNECTION", format!("{address} 50022 192.0.2.1 22"));
        Outcome::of(command)
    };
    let host = V4.host.to_string();
    for (outcome, why) in [
        (from("198.51.100.7", &["deny", "198.51.100.0/24"]), "logged in from 198.51.100.7"),
        (from("2001:db8:7::7", &["deny", "9.0.0.0/8", "2001:db8:7::/48"]), "logged in from 2001:db8:7::7"),
        (by_sudo("198.51.100.7", &["deny", "198.51.100.7"]), "logged in from 198.51.100.7"),
        (by_sudo("198.51.100.7", &["ban", "198.51.100.7"]), "logged in from 198.51.100.7"),
        // A neighbour in the same /64 is the same source.
        (from("2001:db8:7::7", &["ban", "2001:db8:7::8"]), "logged in from 2001:db8:7::7"),
        (from("198.51.100.7", &["ban", "64:ff9b::198.51.100.7"]), "logged in from 198.51.100.7"),
        (from("203.0.113.7", &["deny", "0.0.0.0/0"]), "0.0.0.0/0 covers much of the Internet"),
        (from("203.0.113.7", &["deny", "::/0"]), "::/0 covers much of the Internet"),
        (from("203.0.113.7", &["deny", &host]), "is a local address of this host"),
    ] {
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(why) && outcome.stderr.contains("--force"), "{outcome:?}");
    }
    assert!(rules(&limiter).is_empty(), "and nothing was changed");
    // What a local address is without a rule is said, before and after.
    let own = format!("{host}/32");
    assert_eq!(
        limiter.ok(&["deny", &host, "--force"]),
        format!("{own}: deny (was: allow (local address)): changed\n")
    );
    assert_eq!(
        limiter.ok(&["forget", &host]),
        format!("{own}: allow (local address) (was: deny): changed\n")
    );
    assert_eq!(limiter.ok(&["forget", &host]), format!("{own}: allow (local address): unchanged\n"));
    // What is meant is done; and what shuts out nobody of these needs no force.
    assert_eq!(from("198.51.100.7", &["deny", "203.0.113.0/24"]).code, Some(0));
    assert_eq!(from("198.51.100.7", &["allow", "198.51.100.7"]).code, Some(0));
    assert_eq!(
        from("198.51.100.7", &["deny", "198.51.100.0/24"]).code,
        Some(0),
        "the rule for the address itself counts"
    );
    assert_eq!(from("198.51.100.7", &["deny", "198.51.100.7", "--force"]).code, Some(0));
    assert!(rules(&limiter).contains(&"198.51.100.7/32 deny".to_owned()));
}

#[test]
fn a_reload_says_what_has_changed_and_what_it_took_back_and_remembers_its_file() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let file = "[defaults]\nmax_connections = 3\n[[rule]]\nnetwork = \"9.0.0.0/8\"\ndeny = true\n";
    let limiter = Limiter::start_with(&lab, file);
    limiter.ok(&["set", "smtp", "max_connections=9"]);
    limiter.ok(&["allow", "10.0.0.0/8"]);
    limiter.configure(&format!("interfaces = []\n{file}[service.imap]\nmax_connections = 4\n"));
    let said = limiter.ok(&["reload"]);
    let path = limiter.config_path().display().to_string();
    for line in [
        "imap: max_connections 3 -> 4: changed".to_owned(),
        "smtp: max_connections 9 -> 3 (live change reverted): changed".to_owned(),
        "rule 10.0.0.0/8: none (was: allow) (live change reverted): changed".to_owned(),
        "the configuration: interfaces \"auto\" -> []: changed".to_owned(),
        format!("{path}: in force: changed"),
    ] {
        assert!(said.lines().any(|known| known == line), "{line:?} is missing in {said}");
    }
    assert_eq!(said.lines().count(), 5, "{said}");
    assert_eq!(limiter.ok(&["reload"]), format!("{path}: already in force: unchanged\n"));
    // What only the daemon knows of is a change, too.
    limiter.configure(&format!(
        "reconcile_seconds = 60\ninterfaces = []\n{file}[service.imap]\nmax_connections = 4\n"
    ));
    let said = limiter.ok(&["reload"]);
    assert_eq!(
        said,
        format!("the configuration: reconcile_seconds 30 -> 60: changed\n{path}: in force: changed\n")
    );
    // A file that was named is the one from now on, for those who name none and for the daemon.
    let other = format!("{path}.other");
    std::fs::write(&other, "[defaults]\nmax_connections = 6\n").unwrap();
    let said = limiter.ok(&["reload", "--config", &other]);
    assert!(said.contains("smtp: max_connections 3 -> 6: changed\n"), "{said}");
    std::fs::write(&other, "[defaults]\nmax_connections = 7\n").unwrap();
    let said = limiter.ok(&["reload"]);
    assert!(said.contains("smtp: max_connections 6 -> 7: changed\n") && said.contains(&other), "{said}");
    std::fs::write(&other, "[defaults]\nmax_connections = 8\n").unwrap();
    let pid = nix::unistd::Pid::from_raw(limiter.pid().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    eventually("the daemon reads it as well", SOON, || {
        match service(&limiter, "smtp")["max_connections"].as_u64() {
            Some(8) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn what_explain_offers_lets_this_address_in_and_changes_nothing_for_others() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nresponse = \"reset\"\n[service.smtp]\nmax_connections = 2\nnetwork = { max_connections = 3 }\n",
    );
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let before = service(&limiter, "smtp");
        let mut held: Vec<TcpStream> = (0..2).map(|_| lab.served(source, smtp)).collect();
        for reason in ["concurrency", "banned", "denied"] {
            if reason != "concurrency" {
                held.clear();
                sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
                limiter.ok(&["forget", &source.to_string()]);
            }
            let network = if source.is_ipv4() { "198.51.100.0/24" } else { "2001:db8:7::/48" };
            match reason {
                "banned" => drop(limiter.ok(&["ban", &source.to_string()])),
                "denied" => drop(limiter.ok(&["deny", network])),
                _ => {}
            }
            let said = explained(&limiter, &source.to_string(), "smtp");
            assert_eq!(said["reason"], reason, "{said:#}");
            let remedy = said["remedy"].as_str().unwrap();
            assert!(!remedy.starts_with("set ") && remedy.contains(&source.to_string()), "{remedy}");
            limiter.ok(&remedy.split(' ').collect::<Vec<_>>());
            held.push(lab.served(source, smtp));
            let after = service(&limiter, "smtp");
            assert_eq!(
                [&after["max_connections"], &after["network"]],
                [&before["max_connections"], &before["network"]],
                "what the service says is for everybody"
            );
        }
        drop(held);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn the_list_has_the_limit_in_force_and_where_it_comes_from() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nmax_connections = 20\n\
         [[rule]]\nnetwork = \"198.51.100.0/24\"\nmax_connections = 40\n\
         [[rule]]\nnetwork = \"2001:db8:7::/48\"\nmax_connections = { smtp = 40 }\n\
         [[rule]]\nnetwork = \"203.0.113.0/24\"\nallow = true\n",
    );
    let held: Vec<TcpStream> = [V4.sources[0], V4.sources[2], V6.sources[0], V6.sources[1]]
        .into_iter()
        .map(|source| {
            let family = if source.is_ipv4() { V4 } else { V6 };
            lab.served(source, family.port(25))
        })
        .collect();
    let list = limiter.json(&["list", "--sort", "source"]);
    let shown: Vec<String> = list["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|source| format!("{} {} {}", source["source"], source["limit"], source["rule"]).replace('"', ""))
        .collect();
    assert_eq!(
        shown,
        [
            "198.51.100.7/32 40 198.51.100.0/24",
            "203.0.113.7/32 null 203.0.113.0/24",
            "2001:db8:7::/64 40 2001:db8:7::/48",
            "2001:db8:8::/64 20 null"
        ]
    );
    limiter.ok(&["deny", "198.51.100.7"]);
    let text = limiter.ok(&["list"]);
    assert!(text.contains("  0*") && text.contains("none*") && text.contains("*: set by a rule"), "{text}");
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn who_is_only_observed_is_not_said_to_be_refused() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, "[service.smtp]\nmax_connections = 2\nmode = \"observe\"\n");
    let source = V4.source();
    let held: Vec<TcpStream> = (0..4).map(|_| lab.served(source, V4.port(25))).collect();
    let said = explained(&limiter, &source.to_string(), "smtp");
    assert_eq!([&said["verdict"], &said["reason"]], ["admit", "concurrency"], "{said:#}");
    assert_eq!(said["observed"], true);
    let text = limiter.ok(&["explain", &source.to_string()]);
    assert!(text.contains("observed: concurrency") && !text.contains("refused: "), "{text}");
    assert!(text.contains("smtp: admitted 2 connections that enforce mode would refuse"), "{text}");
    let text = limiter.ok(&["list"]);
    assert!(text.contains("WOULD REFUSE"), "{text}");
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_refusal_for_its_network_or_for_the_whole_service_is_known_of_the_one_that_was_refused() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    for (limits, reason) in
        [("network = { max_connections = 2, ipv6_prefix = 32 }", "network"), ("max_total = 2", "total")]
    {
        let limiter = Limiter::start_with(
            &lab,
            &format!("[service.smtp]\nmax_connections = 2\nwait = 0\nresponse = \"reply\"\n{limits}\n"),
        );
        for family in [V4, V6] {
            // The others hold all there is, and it has never had a connection.
            let ([other, refused, ..], to) = (family.sources, family.port(25));
            let held: Vec<TcpStream> = (0..2).map(|_| lab.served(other, to)).collect();
            for _ in 0..3 {
                let answer = lab.answer(refused, to);
                assert!(matches!(&answer, Answer::Line(line) if line.starts_with("421")), "{answer:?}");
            }
            let said = explained(&limiter, &refused.to_string(), "smtp");
            assert_eq!(said["refused"], 3, "{said:#}");
            assert_eq!(said["refused_for"], serde_json::json!({ reason: 3 }), "{said:#}");
            assert_eq!(said["last_refused_for"], reason);
            assert!(said["last_refused_seconds"].as_u64().unwrap() < 60, "{said:#}");
            let text = limiter.ok(&["explain", &refused.to_string()]);
            assert!(text.contains(&format!("smtp: refused 3 times ({reason}), the last time ")), "{text}");
            let listed = limiter.source("smtp", refused);
            assert_eq!([listed.connections, listed.refused], [0, 3], "the list knows of it, too");
            drop(held);
            sockets::settled(&lab.host, &limiter, 25);
        }
    }
}

#[test]
fn status_in_brief_is_one_line_and_the_exit_code_of_a_monitoring_plugin() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let brief = |limiter: &Limiter, code: i32, begins: &str| {
        let outcome = limiter.cli(&["status", "--brief"]);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.stdout.starts_with(begins) && outcome.stdout.lines().count() == 1, "{outcome:?}");
        assert!(outcome.stderr.is_empty(), "{outcome:?}");
        outcome.stdout
    };
    let nobody = Limiter::start(&lab, 3, "reset");
    assert!(brief(&nobody, 1, "LIMITER WARNING - ").contains("no program listens on a port of any service"));
    drop(nobody);
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start_with(&lab, "[service.smtp]\nmax_connections = 3\nmax_total = 5\n");
    let held = lab.served(V4.source(), V4.port(25));
    let line = brief(&limiter, 0, "LIMITER OK - ");
    assert!(line.contains(" smtp_connections=1;;;0;5 ") && line.contains(" smtp_accepted=1c "), "{line}");
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
    limiter.kill();
    assert!(brief(&limiter, 1, "LIMITER WARNING - ").contains("the daemon is not running"));
    limiter.ok(&["unload"]);
    brief(&limiter, 2, "LIMITER CRITICAL - ");
    let mistake = limiter.cli(&["status", "--brief", "--colour"]);
    assert_eq!(mistake.code, Some(3));
    assert!(mistake.stdout.starts_with("LIMITER UNKNOWN - ") && mistake.stderr.is_empty(), "{mistake:?}");
}

#[test]
fn with_json_every_verb_prints_one_document_in_every_state() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 3, "reset");
    let verbs = [
        vec!["status"],
        vec!["status", "--verify"],
        vec!["list"],
        vec!["explain", "192.0.2.9"],
        vec!["rules"],
        vec!["bans"],
        vec!["set", "smtp", "max_connections=4"],
        vec!["allow", "192.0.2.9"],
        vec!["deny", "192.0.2.9"],
        vec!["limit", "192.0.2.9", "4"],
        vec!["forget", "192.0.2.9"],
        vec!["ban", "192.0.2.9"],
        vec!["unban", "192.0.2.9"],
        vec!["reload"],
    ];
    let document = |arguments: &[&str]| -> (Option<i32>, Value) {
        let outcome = limiter.cli(&[arguments, &["--json"]].concat());
        let json = serde_json::from_str(&outcome.stdout);
        (outcome.code, json.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {outcome:?}")))
    };
    for verb in &verbs {
        let (code, json) = document(verb);
        assert_eq!(code, Some(0), "{verb:?}: {json:#}");
        assert!(json.get("error").is_none(), "{verb:?}: {json:#}");
        // A mistake is a document as well, and says the same as the sentence.
        let (code, json) = document(&[&verb[..], &["--no-such-flag"]].concat());
        assert_eq!(code, Some(2));
        assert!(json["error"].as_str().unwrap().contains("--no-such-flag"), "{json:#}");
    }
    let (_, json) = document(&["unload"]);
    assert_eq!(json["changed"], true);
    let (_, json) = document(&["unload"]);
    assert_eq!(json["changed"], false);
    for verb in &verbs {
        let (code, json) = document(verb);
        assert_eq!(code, Some(if verb[0] == "status" { 3 } else { 1 }), "{verb:?}");
        assert!(
            json["error"].as_str().unwrap().contains("is not loaded: start it with"),
            "{verb:?}: {json:#}"
        );
    }
    let (_, json) = document(&["status"]);
    assert_eq!(json["in_force"], false);
}

#[test]
fn screens_of_a_real_instance_fit_into_80_and_60_columns() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 2\nnetwork = { max_connections = 3 }\nrate = \"60/min\"\nmax_total = 90\n\
         [[rule]]\nnetwork = \"203.0.113.0/24\"\nmax_connections = { imap = 40, smtp = 30, pop3 = 10, \"*\" = 5 }\n",
    );
    let held: Vec<TcpStream> = [V4, V6]
        .into_iter()
        .flat_map(|family| [0; 2].map(|_| lab.served(family.source(), family.port(25))))
        .collect();
    for family in [V4, V6] {
        let answer = lab.client.run(|| client::answer(family.source(), family.port(25), SOON).1);
        assert!(
            matches!(&answer, Answer::Line(line) if line.contains("Too many connections (2 of 2)")),
            "{answer:?}"
        );
    }
    limiter.ok(&["ban", "203.0.113.9", "--service", "smtp"]);
    let source = V6.source().to_string();
    for width in [80_usize, 60] {
        for verb in [vec!["status"], vec!["list"], vec!["rules"], vec!["bans"], vec!["explain", &source]] {
            let mut command = limiter.command(&verb);
            command.env("COLUMNS", width.to_string());
            let outcome = Outcome::of(command);
            assert_eq!(outcome.code, Some(0), "{outcome:?}");
            for line in outcome.stdout.lines() {
                let fits = line.chars().count() <= width || line.starts_with('`');
                assert!(fits, "{verb:?}: {width} columns are not enough for {line:?}");
            }
        }
        let explained = limiter.ok(&["explain", &source]);
        assert!(explained.contains("refused: concurrency"), "{explained}");
        assert!(explained.contains("smtp: refused once (concurrency), "), "{explained}");
    }
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn ports_that_are_handed_on_to_a_container_are_warned_of() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    lab.host.sysctl("ipv4/ip_forward", "1").unwrap();
    lab.host.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
    // The container's network is on the client's side of the wire; what is sent there comes from the mail host, as with
    // the published ports of containers.
    let containers = [V4.sources[2], V6.sources[2]];
    let [four, six] = containers;
    firewall(
        &lab,
        &format!(
            "table inet publish {{\nchain in {{\ntype nat hook prerouting priority dstnat\n\
             ip saddr 198.51.100.7 tcp dport 25 dnat ip to {four}:25\n\
             ip6 saddr 2001:db8:7::7 tcp dport 25 dnat ip6 to [{six}]:25\n}}\n\
             chain out {{\ntype nat hook postrouting priority srcnat\ntcp dport 25 masquerade\n}}\n}}\n"
        ),
    );
    let listeners: Vec<TcpListener> = containers
        .iter()
        .map(|address: &IpAddr| lab.client.run(|| TcpListener::bind((*address, 25))).unwrap())
        .collect();
    // As a userland proxy does it, somebody listens on the host as well, to whom nobody comes.
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 1, "reset");
    let warned = |address: IpAddr| {
        let warnings = limiter.json(&["status"])["warnings"].to_string();
        warnings.contains(&format!(
            "smtp: a firewall forwards connections from port 25 to port 25 of {address}, "
        ))
    };
    for (family, container) in [V4, V6].into_iter().zip(containers) {
        assert!(!warned(container), "of what nobody has used");
        let _held: Vec<TcpStream> = (0..2)
            .map(|_| {
                let dialled = lab.client.run(|| client::dial(family.source(), family.port(25), A_WHILE));
                dialled.expect("the container is there")
            })
            .collect();
        assert!(warned(container), "{:#}", limiter.json(&["status"])["warnings"]);
        assert_eq!(limiter.source("smtp", family.source()).connections, 0);
    }
    drop(listeners);
}
