// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon's log has: who changed what, what was refused, and with `RUST_LOG=debug` more of the limiter.

use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, client, eventually};

fn says(limiter: &Limiter, wanted: &[&str]) {
    eventually("the log has it", SOON, || {
        let log = limiter.log();
        match wanted.iter().find(|words| !log.contains(**words)) {
            None => Ok(()),
            Some(words) => Err(format!("no {words:?} in\n{log}")),
        }
    });
}

#[test]
fn a_change_made_by_hand_is_in_the_log_with_who_made_it_and_what_was() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 5, "reply");
    let me = std::process::id();
    let by = format!("pid {me})");
    limiter.ok(&["set", "smtp", "max_connections=7"]);
    says(&limiter, &["set smtp max_connections=7`: smtp: max_connections 5 -> 7", &by]);
    limiter.ok(&["deny", "203.0.113.0/24"]);
    limiter.ok(&["ban", "192.0.2.77", "192.0.2.78", "--service", "smtp", "--for", "1h"]);
    limiter.ok(&["unban", "192.0.2.77"]);
    limiter.ok(&["reload"]);
    says(
        &limiter,
        &[
            "deny 203.0.113.0/24`: 203.0.113.0/24: deny: changed",
            "smtp: 192.0.2.77/32: banned for 1 h: changed; smtp: 192.0.2.78/32: banned for 1 h: changed",
            "smtp: 192.0.2.77/32: not banned (was: banned for another 1 h): changed",
            "reload`: ",
        ],
    );
    // What fails has changed nothing, and who only looks neither.
    limiter.cli(&["set", "smtp", "max_connections=0"]);
    limiter.ok(&["status"]);
    // Without a daemon it is for the next one.
    limiter.stop();
    limiter.ok(&["limit", "198.51.100.0/24", "9"]);
    limiter.run();
    says(&limiter, &["limit 198.51.100.0/24 9`"]);
    let log = limiter.log();
    assert!(!log.contains("max_connections=0`") && !log.contains("status`"), "{log}");
    assert_eq!(log.matches("max_connections=7`").count(), 1, "{log}");
    limiter.ok(&["unload"]);
    says(&limiter, &["unload`", "is being unloaded"]);
    assert!(!std::path::Path::new(&format!("/run/limiter/{}.changes", limiter.instance)).exists());
}

#[test]
fn refusals_are_in_the_log_by_service_and_reason_and_not_each() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_patient(&lab, 1, "reply");
    let held = lab.served(V4.source(), V4.port(25));
    for _ in 0..20 {
        let (_, answer) = lab.client.run(|| client::answer(V4.source(), V4.port(25), SOON));
        assert!(matches!(answer, Answer::Line(_)), "{answer:?}");
    }
    says(&limiter, &["smtp: packets refused: concurrency "]);
    drop(held);
    assert_eq!(limiter.log().matches("packets refused").count(), 1, "{}", limiter.log());
}

#[test]
fn a_log_of_more_is_about_the_limiter_and_not_about_how_programs_are_relocated() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_by(&lab, "[defaults]\nmax_connections = 1\n", &["env", "RUST_LOG=debug"]);
    let held = lab.served(V4.source(), V4.port(25));
    let (_, answer) = lab.client.run(|| client::answer(V4.source(), V4.port(25), SOON));
    assert!(matches!(answer, Answer::Line(_)), "{answer:?}");
    limiter.ok(&["ban", "192.0.2.77", "--service", "smtp"]);
    says(&limiter, &["applied 6 services", &format!("refused {} at port 25: concurrency", V4.source())]);
    drop(held);
    let log = limiter.log();
    assert!(!log.contains("relocat") && log.lines().count() < 100, "{log}");
}
