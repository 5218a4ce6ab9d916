// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A daemon that was stopped by a signal: it runs, has its sockets open, and answers nobody.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, let_time_pass, same, sockets};

#[test]
fn while_the_daemon_is_stopped_refused_clients_get_a_reset_and_status_says_so() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_patient(&lab, 1, "reply");
    let held = [V4, V6].map(|family| lab.served(family.source(), family.port(25)));
    let daemon = Pid::from_raw(limiter.pid().unwrap().cast_signed());
    let says = |status: &serde_json::Value| status["daemon"]["answers"].clone();
    eventually("it serves", SOON, || {
        if limiter.log().contains("loaded as instance") { Ok(()) } else { Err(limiter.log()) }
    });
    let_time_pass(Duration::from_secs(2), "the first beat holds for longer than those that follow");
    for round in 0..2 {
        kill(daemon, Signal::SIGSTOP).unwrap();
        // Who comes in the first seconds is answered when it goes on.
        eventually("status says so", SOON, || {
            same("answers", &says(&limiter.json(&["status"])), &false.into())
        });
        let status = limiter.json(&["status"]);
        assert_eq!((&status["daemon"]["running"], &status["in_force"]), (&true.into(), &true.into()));
        let advice = format!("`kill -CONT {daemon}`");
        assert!(status["warnings"].to_string().contains(&advice), "{status:#}");
        let text = limiter.ok(&["status"]);
        assert!(text.contains(&format!("limits in force, daemon not answering, pid {daemon}")), "{text}");
        let brief = limiter.cli(&["status", "--brief"]);
        assert_eq!(brief.code, Some(1), "{brief:?}");
        for family in [V4, V6] {
            let (source, smtp) = (family.source(), family.port(25));
            for _ in 0..3 {
                assert_eq!(lab.answer(source, smtp), Answer::Reset, "{source}, round {round}");
            }
            drop(lab.served(family.sources[1], smtp));
        }
        kill(daemon, Signal::SIGCONT).unwrap();
        eventually("it answers again", SOON, || {
            same("answers", &says(&limiter.json(&["status"])), &true.into())
        });
        for family in [V4, V6] {
            let said = lab.answer(family.source(), family.port(25));
            assert_eq!(said, Answer::Line(Limiter::smtp_reply(1, family.source())));
        }
        assert_eq!(limiter.json(&["status"])["warnings"], serde_json::json!([]));
    }
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
}
