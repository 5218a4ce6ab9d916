// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Churn: connections by the million that end in every way, while limits change and the daemon dies.
//!
//! Two workers hold both ends of their connections and go as fast as they can ([`worker`]); the ways to
//! end that take more than a system call have a thread each ([`slow`]); one thread changes limits, kills
//! the daemon and starts it again ([`changes`]). Then every count has to be 0, and none may ever have been
//! wrong.
//!
//! Two hundred thousand connections end, or, on a machine that is slow or busy, as many as do in four
//! minutes; `cargo xtask soak` ends ten million.
//! `LIMITER_CHURN_CONNECTIONS` says another number, and takes as long as it takes. The test needs root; without
//! it it says so and does nothing.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, and says where; helpers of tests are no exception"
)]

mod changes;
mod churn;
mod ending;
mod ends;
mod lab;
mod report;
mod slow;
mod worker;

use std::time::Duration;

use crate::churn::{Churn, RECONCILED_EVERY_S};
use crate::lab::ChurnLab;
use limiter_lab::{Limiter, interrupt};

/// How many connections end, unless the environment says otherwise.
const CONNECTIONS: u64 = 200_000;
/// How long that may take.
const WITHIN: Duration = Duration::from_secs(240);

/// Small limits, which change ([`changes`]); sources are forgotten, and counts compared, as often as can be.
fn config() -> String {
    let ports = |service: u16| (0..lab::DOORS).map(move |door| lab::port(service, door).to_string());
    let ports = |service: u16| ports(service).collect::<Vec<_>>().join(", ");
    format!(
        "remember_seconds = 1\nreconcile_seconds = {RECONCILED_EVERY_S}\n\
         [defaults]\nmax_connections = 8\nresponse = \"reset\"\n\
         network = {{ ipv4_prefix = 24, ipv6_prefix = 48, max_connections = 80 }}\n\
         [service.smtp]\nports = [{}]\n[service.imap]\nports = [{}]\nmax_total = 500\n",
        ports(0),
        ports(1)
    )
}

#[test]
fn connections_that_end_in_every_way_while_limits_change_and_daemons_die_leave_every_count_at_0() {
    let Some(lab) = ChurnLab::new() else { return };
    let wanted = std::env::var("LIMITER_CHURN_CONNECTIONS").ok();
    let churn = match wanted {
        Some(number) => Churn::new(number.parse().expect("a number of connections"), None),
        None => Churn::new(CONNECTIONS, Some(WITHIN)),
    };
    let mut limiter = Limiter::start_with(&lab, &config());
    // Ctrl-C ends the churn, and the test with it, in good order: all that was set up is taken down again.
    interrupt::hold().unwrap();
    std::thread::scope(|scope| {
        let (lab, churn) = (&lab, &*churn);
        let mut works: Vec<Box<dyn FnOnce() + Send + '_>> = vec![
            Box::new(|| slow::doors::run(lab, churn)),
            Box::new(|| slow::victims::run(lab, churn)),
            Box::new(|| slow::silence::run(lab, churn)),
            Box::new(|| slow::moves::run(lab, churn)),
            Box::new(|| report::progress(churn)),
        ];
        for seat in 0..lab::WORKERS {
            works.push(Box::new(move || worker::run(lab, churn, seat)));
        }
        for work in works {
            scope.spawn(|| churn.watched(work));
        }
        // Here, since the daemon ends with the thread that started it.
        churn.watched(|| changes::run(&mut limiter, churn));
    });
    let took = churn.took();
    assert!(!churn.interrupted(), "interrupted");
    let books = report::settled(&lab, &limiter);
    report::summary(&churn, &books, took);
    books.check(churn.looks(took));
}
