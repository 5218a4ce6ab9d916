// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! As many rules as anyone imports from a list.
//!
//! What it takes is printed; to measure it: `sysctl kernel.bpf_stats_enabled=1`, then `cargo xtask test --
//! --release --test system many_rules -- --nocapture`.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use limiter_lab::command::Outcome;
use limiter_lab::{Lab, Limiter, Sink, V4, V6, sockets};

const MANY: u32 = 100_000;

/// `rules` rules for networks in which nobody of the lab is, of all lengths and kinds, with a comment each as
/// lists have them; and those that are looked for.
fn config(rules: u32) -> String {
    let mut text = "[defaults]\nmax_connections = 2\nresponse = \"reset\"\n".to_owned();
    for index in 0..rules - 6 {
        let network = match index % 4 {
            0 => format!("10.{}.{}.{}", index >> 14 & 255, index >> 6 & 255, index << 2 & 255),
            1 => format!("172.{}.{}.0/24", index >> 10 & 255, index >> 2 & 255),
            2 => format!("2001:db9:{:x}:{:x}::/64", index >> 8, index & 255),
            _ => format!("2001:dba:{:x}::{:x}", index >> 8, index & 255),
        };
        let says = match index % 40 {
            0 => "allow = true",
            1 => "max_connections = { imap = 5, smtp = 7 }",
            2 => "max_connections = 30",
            _ => "deny = true",
        };
        write!(text, "[[rule]]\nnetwork = \"{network}\"\n{says}\ncomment = \"list, {index}\"\n").unwrap();
    }
    for (network, says) in [
        ("198.51.100.0/24", "max_connections = { smtp = 3 }"),
        ("198.51.100.8", "deny = true"),
        ("203.0.112.0/20", "deny = true"),
        ("2001:db8:7::/48", "max_connections = 3"),
        ("2001:db8:8::7", "deny = true"),
        ("2001:db8:9::/64", "deny = true"),
    ] {
        write!(text, "[[rule]]\nnetwork = \"{network}\"\n{says}\n").unwrap();
    }
    text
}

/// Nanoseconds a run of admission takes, over some hundred connections, if the kernel measures.
fn admission_ns(lab: &Lab, limiter: &Limiter) -> Option<u64> {
    let figures = || {
        let bpftool = |arguments: &[&str]| -> Option<Value> {
            let mut command = Command::new("bpftool");
            command.arg("--json").args(arguments);
            serde_json::from_str(&Outcome::of(command).stdout).ok()
        };
        let link = limiter.pins().join("link-admission");
        let link = bpftool(&["link", "show", "pinned", link.to_str()?])?;
        let program = bpftool(&["prog", "show", "id", &link["prog_id"].to_string()])?;
        // Zeros are left out.
        let number = |key: &str| program[key].as_u64().unwrap_or(0);
        Some((number("run_time_ns"), number("run_cnt")))
    };
    let is_measured =
        std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|on| on.starts_with('1'));
    let before = figures().filter(|_| is_measured)?;
    for _ in 0..200 {
        for family in [V4, V6] {
            drop(lab.served(family.source(), family.port(25)));
        }
    }
    let after = figures()?;
    (after.0 - before.0).checked_div(after.1 - before.1)
}

#[test]
fn of_a_hundred_thousand_rules_the_right_one_applies() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, &config(10));
    let mut said = String::new();
    for rules in [10, MANY] {
        let text = config(rules);
        limiter.configure(&text);
        let start = Instant::now();
        let outcome = limiter.ok(&["reload"]);
        writeln!(said, "{rules} rules, {} bytes: reload in {:.3?}", text.len(), start.elapsed()).unwrap();
        assert!(outcome.contains("in force"), "{outcome}");
        if let Some(ns) = admission_ns(&lab, &limiter) {
            writeln!(said, "{rules} rules: {ns} ns a run of admission").unwrap();
        }
    }
    println!("{said}");
    let shown = limiter.json(&["rules"]);
    let admins = shown["rules"].as_array().unwrap().iter().filter(|rule| rule["built_in"] == false).count();
    assert_eq!(admins, MANY as usize);
    for family in [V4, V6] {
        let [bounded, denied, also_denied] = family.sources;
        let held = [(); 3].map(|()| lab.served(bounded, family.port(25)));
        for source in [bounded, denied, also_denied] {
            assert!(!lab.answer(source, family.port(25)).is_service(), "{source}");
        }
        drop(held);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), bounded, 0);
    }
    // One more, live; then the same file again.
    for arguments in [&["allow", "198.51.100.8"] as &[&str], &["reload"]] {
        let start = Instant::now();
        limiter.ok(arguments);
        println!("limiter {}: {:.3?}", arguments.join(" "), start.elapsed());
        let is_served = lab.answer(V4.sources[1], V4.port(25)).is_service();
        assert_eq!(is_served, arguments[0] == "allow");
    }
    limiter.configure(&config(10));
    limiter.ok(&["reload"]);
    assert!(limiter.json(&["rules"])["rules"].as_array().unwrap().len() < 30);
    sockets::settled(&lab.host, &limiter, 25);
}
