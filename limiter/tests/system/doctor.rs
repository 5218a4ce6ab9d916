// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter doctor`: each thing that can be wrong in a namespace is made, and has to be found, by its name, with a command;
//! and where nothing is wrong, nothing is.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use limiter_lab::bystander::Bystander;
use limiter_lab::command::Outcome;
use limiter_lab::limiter::HOSTNAME;
use limiter_lab::sink::listener;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, skip_without};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::service::{cgroup, serve};
use crate::support::{dovecot, postfix};
use crate::takeover::bpftool;

/// What `limiter doctor` says, and the code it ends with.
fn examined(limiter: &Limiter) -> (Value, i32) {
    let outcome = limiter.cli(&["doctor", "--json"]);
    let report =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error} in {outcome:?}"));
    (report, outcome.code.expect("it ends by itself"))
}

/// The findings of a check, as grade, sentence and command.
fn of_check(report: &Value, check: &str) -> Vec<(String, String, Option<String>)> {
    let findings = report["findings"].as_array().expect("a list of findings");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    findings
        .iter()
        .filter(|finding| finding["check"] == check)
        .map(|finding| {
            let said = text(&finding["grade"]).zip(text(&finding["sentence"]));
            let (grade, sentence) = said.unwrap_or_else(|| panic!("{finding}"));
            (grade, sentence, text(&finding["command"]))
        })
        .collect()
}

/// Waits until a check says something with all of `words` and this grade; its command.
#[track_caller]
fn found(limiter: &Limiter, check: &str, grade: &str, words: &[&str]) -> Option<String> {
    let mut command = None;
    eventually(&format!("{check} is {grade}"), SOON, || {
        let (report, _) = examined(limiter);
        let said = of_check(&report, check);
        let hit = said
            .iter()
            .find(|(its, sentence, _)| its == grade && words.iter().all(|word| sentence.contains(word)));
        command = hit.and_then(|(_, _, command)| command.clone());
        if hit.is_some() { Ok(()) } else { Err(format!("{said:#?}")) }
    });
    command
}

/// Nothing that this check says is worse than a note.
#[track_caller]
fn fine(limiter: &Limiter, check: &str) {
    let said = of_check(&examined(limiter).0, check);
    assert!(!said.is_empty(), "{check} says something");
    assert!(said.iter().all(|(grade, ..)| ["good", "note"].contains(&grade.as_str())), "{said:#?}");
}

#[test]
fn where_nothing_is_wrong_the_doctor_says_so_in_a_few_lines() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 8, "reply");
    let _sinks = [25, 143, 993, 587].map(|port| Sink::start(&lab, port));
    let outcome = limiter.cli(&["doctor"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let first = outcome.stdout.lines().next().unwrap_or_default();
    assert!(first.starts_with(&format!("instance {}: ", limiter.instance)), "{first}");
    assert!(!first.contains("bad") && !first.contains("warning"), "{}", outcome.stdout);
    let folded = outcome.stdout.contains("\ngood: kernel, ") && outcome.stdout.contains("--all shows them");
    assert!(folded, "{}", outcome.stdout);
    let all = limiter.ok(&["doctor", "--all"]);
    assert!(all.contains("\ngood, kernel: Linux "), "{all}");
    assert!(
        all.contains(&format!("good, limits: the limits of instance {} are in force", limiter.instance)),
        "{all}"
    );
    let (report, code) = examined(&limiter);
    assert_eq!(code, 0);
    assert_eq!(report["skipped"], serde_json::json!([]));
    let (grade, sentence, _) = of_check(&report, "listeners").remove(0);
    assert_eq!(grade, "good", "{sentence}");
    let who = format!("(pid {}", std::process::id());
    let listeners = of_check(&report, "listeners");
    assert!(listeners.iter().any(|(_, said, _)| said.contains(&who)), "{listeners:#?}");
}

#[test]
fn where_nothing_is_loaded_it_looks_at_the_rest_and_says_how_to_start() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::absent(&lab);
    let (report, code) = examined(&limiter);
    assert_eq!(code, 2);
    assert_eq!(report["worst"], "bad");
    let (grade, sentence, command) = of_check(&report, "limits").remove(0);
    assert_eq!(grade, "bad", "{sentence}");
    assert_eq!(command, Some(format!("limiter --instance {} run", limiter.instance)));
    for check in ["kernel", "types", "bpf", "bpffs", "cgroup"] {
        assert_eq!(of_check(&report, check)[0].0, "good", "{check}");
    }
    let skipped = report["skipped"].as_array().expect("a list");
    for check in ["daemon", "ledger", "hooks"] {
        assert!(skipped.contains(&check.into()), "{skipped:?}");
    }
    assert!(!limiter.pins().exists(), "it changes nothing");
}

#[test]
fn a_mail_port_that_listens_for_multipath_tcp_is_bad() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 8, "reset");
    let Some(multipath) = crate::mptcp::multipath(&lab, V4.port(143)) else {
        return skip_without("CONFIG_MPTCP");
    };
    let command = found(&limiter, "listeners", "bad", &["imap", "Multipath TCP", "143"]);
    assert_eq!(command.as_deref(), Some("sysctl -w net.mptcp.enabled=0"));
    assert_eq!(limiter.cli(&["doctor"]).code, Some(2));
    drop(multipath);
    let _plain = listener(&lab, V4.port(143), 16);
    fine(&limiter, "listeners");
}

#[test]
fn an_accept_queue_that_is_full_is_bad_until_it_is_not() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 8, "reset");
    let listener = listener(&lab, V4.port(25), 1);
    let held: Vec<TcpStream> =
        V4.sources[..2].iter().map(|&source| lab.dial(source, V4.port(25)).unwrap()).collect();
    let command = found(&limiter, "queues", "bad", &["port 25: 2 connections", "and 1 may", "full"]);
    assert_eq!(command.as_deref(), Some("ss -ltnp sport = :25"));
    for _ in &held {
        drop(listener.accept());
    }
    fine(&limiter, "queues");
}

#[test]
fn a_file_that_was_changed_and_not_reloaded_is_found_with_what_is_different() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start_with(&lab, "[service.imap]\nmax_connections = 20\n");
    fine(&limiter, "configuration");
    limiter.ok(&["set", "pop3", "max_connections=7"]);
    found(&limiter, "configuration", "note", &["changed live", "max_connections of pop3 is 7"]);
    limiter.configure("[service.imap]\nmax_connections = 10\n");
    let words = ["changed and not reloaded", "max_connections of imap is 20 (file: 10)"];
    let command = found(&limiter, "configuration", "warning", &words).expect("a command");
    assert_eq!(command, format!("limiter --instance {} reload", limiter.instance));
    limiter.configure("[service.imap]\nmax_connections = 0\n");
    found(&limiter, "configuration", "bad", &["the next start fails", "limiter.toml:3:"]);
    limiter.configure("[service.imap]\nmax_connections = 10\n");
    limiter.ok(&["reload"]);
    fine(&limiter, "configuration");
}

#[test]
fn a_program_that_somebody_detached_is_bad() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 8, "reset");
    limiter.stop();
    let pin = limiter.pins().join("link-gate");
    bpftool(&format!("link detach pinned {}", pin.display()));
    let command = found(&limiter, "limits", "bad", &["programs not attached: gate"]);
    assert_eq!(command, Some(format!("limiter --instance {} run", limiter.instance)));
    assert_eq!(limiter.cli(&["doctor"]).code, Some(2));
    limiter.run();
    fine(&limiter, "limits");
}

#[test]
fn another_program_on_a_hook_is_named_as_long_as_it_is_there() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let group = cgroup(&lab);
    let _server = serve(&lab, &group);
    let limiter = Limiter::start_in(&lab, group.path());
    fine(&limiter, "hooks");
    let bystander = Bystander::on(group.path());
    let command =
        found(&limiter, "hooks", "warning", &["another program is on sock_ops, id "]).expect("a command");
    assert!(command.starts_with("bpftool prog show id "), "{command}");
    drop(bystander);
    fine(&limiter, "hooks");
}

#[test]
fn a_daemon_that_has_ended_or_was_stopped_is_a_warning_with_what_to_do() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 8, "reset");
    let _sink = Sink::start(&lab, 25);
    fine(&limiter, "daemon");
    let pid = Pid::from_raw(limiter.pid().expect("it runs") as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let command = found(&limiter, "daemon", "warning", &["does not answer"]);
    assert_eq!(command, Some(format!("kill -CONT {pid}")));
    kill(pid, Signal::SIGCONT).unwrap();
    eventually("it answers again", SOON, || {
        let said = of_check(&examined(&limiter).0, "daemon");
        if said[0].0 == "good" { Ok(()) } else { Err(format!("{said:?}")) }
    });
    limiter.stop();
    let command = found(&limiter, "daemon", "warning", &["the daemon is not running"]);
    assert_eq!(command, Some(format!("limiter --instance {} run", limiter.instance)));
    assert_eq!(limiter.cli(&["doctor"]).code, Some(1));
}

#[test]
fn limits_of_postfix_and_dovecot_that_are_nearer_than_ours_are_found() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let postfix = postfix::start_with(&lab, "smtpd_client_connection_count_limit = 5\n");
    let dovecot = dovecot::start_with(&lab, "service imap {\n  process_limit = 50\n}\n");
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 20\nmax_total = 100\n[service.imap]\nmax_connections = 20\nmax_total = 200\n",
    );
    let words = [
        "smtp: Postfix itself refuses",
        "more than 5 connections",
        "smtpd_client_connection_count_limit = 5",
    ];
    let command = found(&limiter, "mail-limits", "warning", &words).expect("a command");
    let set = |what: &str| format!("limiter --instance {} set {what} --save", limiter.instance);
    assert_eq!(command, set("smtp max_connections=5"));
    let words = ["imap: Dovecot serves 50 connections at most", "process_limit = 50", "lets 200 in"];
    let command = found(&limiter, "mail-limits", "warning", &words).expect("a command");
    assert_eq!(command, set("imap max_total=50"));
    // What it says to do helps.
    limiter.ok(&["set", "smtp", "max_connections=5", "--save"]);
    limiter.ok(&["set", "imap", "max_total=50", "--save"]);
    let said = of_check(&examined(&limiter).0, "mail-limits");
    assert!(said.iter().all(|(grade, ..)| grade != "warning" && grade != "unknown"), "{said:#?}");
    drop((postfix, dovecot));
}

#[test]
fn a_firewall_rule_that_hands_a_mail_port_on_is_bad_before_anybody_connects() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 8, "reset");
    fine(&limiter, "firewall");
    for line in [
        "add table ip nat",
        "add chain ip nat prerouting { type nat hook prerouting priority -100; }",
        "add rule ip nat prerouting tcp dport 143 dnat to 172.17.0.2:1143",
    ] {
        let status = lab.host.command("nft").args(line.split(' ')).status().unwrap();
        assert!(status.success(), "nft {line}");
    }
    found(&limiter, "firewall", "bad", &["imap: a firewall forwards", "port 143 to port 1143 of 172.17.0.2"]);
}

/// The files of an archive, one after the other.
fn unpacked(path: &std::path::Path) -> String {
    let output = Command::new("tar").arg("-xzOf").arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_bundle_has_what_helps_and_nothing_of_who_anybody_is() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 2\n[[rule]]\nnetwork = \"203.0.113.0/24\"\ndeny = true\n",
    );
    let [v4, banned, _] = V4.sources;
    let held = [(); 2].map(|()| lab.served(v4, V4.port(25)));
    limiter.ok(&["ban", &banned.to_string(), "--for", "1h"]);
    limiter.ok(&["limit", &V6.source().to_string(), "7"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle.tar.gz");
    let at = path.to_str().unwrap();
    let said = limiter.ok(&["doctor", "--bundle", at]);
    assert!(
        said.contains("doctor.json, status.json, rules.json, versions.txt, kernel.txt, log.txt"),
        "{said}"
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = unpacked(&path);
    for helps in ["\"check\": \"kernel\"", "\"services\"", "\"deny\"", "limiter 0.", "bpf_jit_enable"] {
        assert!(text.contains(helps), "{helps} is not in {text}");
    }
    let host = nix::unistd::gethostname().unwrap().to_string_lossy().into_owned();
    let sources = [V4.sources, V6.sources].concat();
    let secrets = sources.iter().chain([&V4.host, &V6.host]).map(ToString::to_string);
    let secrets = secrets.chain(["203.0.113.0".to_owned(), HOSTNAME.to_owned(), host]);
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret} is in {text}");
    }
    // The same address is the same word in all files, and another in the next bundle.
    let Outcome { code, stderr, .. } = limiter.cli(&["doctor", "--bundle", at]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("exists, so nothing was written"), "{stderr}");
    let other = dir.path().join("other.tar.gz");
    let said = limiter.json(&["doctor", "--bundle", other.to_str().unwrap()]);
    assert_eq!(said["bundle"], other.to_str().unwrap());
    let word = |text: &str| text.split('"').find(|word| word.starts_with("ipv4-")).map(str::to_owned);
    assert_ne!(word(&text).expect("a rule's network"), word(&unpacked(&other)).expect("the same"));
    drop(held);
}

/// The paragraph of operations.md: what is left is `kill` and `rm`.
#[test]
fn without_its_binary_the_limits_end_with_their_pins() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 2, "reset");
    let mut held: Vec<TcpStream> = (0..2).map(|_| lab.served(V4.source(), V4.port(25))).collect();
    assert_eq!(lab.answer(V4.source(), V4.port(25)), Answer::Reset);
    let pid = limiter.pid().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    limiter.forget_daemon();
    assert_eq!(lab.answer(V4.source(), V4.port(25)), Answer::Reset, "without a daemon the limits hold");
    assert!(Command::new("rm").arg("-r").arg(limiter.pins()).status().unwrap().success());
    eventually("nobody is limited", SOON, || match lab.answer(V4.source(), V4.port(25)) {
        answer if answer.is_service() => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    held.extend((0..6).map(|_| lab.served(V4.source(), V4.port(25))));
    assert_eq!(held.len(), 8);
    // Those who were there before have noticed nothing.
    for stream in &held {
        assert!(stream.peer_addr().is_ok());
    }
    let again = limiter.cli(&["status"]);
    assert_eq!(again.code, Some(3), "{again:?}");
    limiter.run();
    assert_eq!(lab.answer(V4.source(), V4.port(25)), Answer::Reset, "a new start counts those who are there");
}
