// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How it goes, and how it went.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::churn::Churn;
use crate::ending::{ALL, COUNTED};
use crate::lab::{ChurnLab, DOORS, port};
use limiter_lab::output::grouped;
use limiter_lab::{Limiter, eventually, interrupt, let_time_pass, poll, proc_net, say, sockets};

/// Between two lines of progress.
const EVERY: Duration = Duration::from_secs(10);
/// Between two looks at how far it is.
const EACH_LOOK: Duration = Duration::from_millis(100);
/// So long without any connection that ends, and something hangs.
const HUNG: Duration = Duration::from_secs(60);
/// Within this time the kernel has forgotten what nobody holds any more, and so has the limiter.
const SETTLED: Duration = Duration::from_secs(60);
/// A reservation of which nothing came is given back within this time.
const GIVEN_BACK: Duration = Duration::from_secs(5);
/// At most one in so many of the kernel's `PassiveOpens` never becomes a connection. It counts a socket when it
/// is made of the ACK (`tcp_create_openreq_child`, `net/ipv4/tcp_minisocks.c`), and the socket is given up at
/// once if by then a reset on another CPU, or another ACK, has ended the handshake (`own_req` in
/// `tcp_check_req`), or the listener was closed (`inet_csk_reqsk_queue_add`).
const LOST: u64 = 200_000;

/// Says how it goes until it is over.
pub fn progress(churn: &Churn) {
    let (mut said, mut moved, mut before) = (Instant::now(), Instant::now(), 0);
    while !churn.is_over() {
        let_time_pass(EACH_LOOK, "the pace of the report");
        if interrupt::check().is_err() {
            churn.interrupt();
        }
        let done = churn.done();
        if done != before {
            (moved, before) = (Instant::now(), done);
        } else if moved.elapsed() > HUNG {
            churn.interrupt();
            panic!("no connection has ended for {HUNG:?}, at {done} of {}", churn.goal);
        }
        if said.elapsed() >= EVERY {
            said = Instant::now();
            say(&format!(
                "churn: {} of {} connections ended, {}/s; {} changes, {} daemons killed\n",
                grouped(done),
                grouped(churn.goal),
                grouped(rate(done, churn.took())),
                churn.changes.load(Ordering::Relaxed),
                churn.kills.load(Ordering::Relaxed),
            ));
        }
    }
}

fn rate(connections: u64, took: Duration) -> u64 {
    (u128::from(connections) * 1000 / took.as_millis().max(1)) as u64
}

/// What the limiter and the kernel say when all is over.
pub struct Books {
    /// What `limiter status --verify` says.
    status: Value,
    /// Counts of sources that are not 0.
    left: Vec<Value>,
    /// Connections that the mail host has ever accepted, by the kernel's own statistics, the greeter's too.
    passive_opens: u64,
    /// Counts that daemons found wrong, and ends that they had to find.
    corrections: usize,
}

/// Waits until the kernel has no connection to any door, and looks.
pub fn settled(lab: &ChurnLab, limiter: &Limiter) -> Books {
    for port in (0..DOORS).flat_map(|door| [port(0, door), port(1, door)]) {
        eventually(&format!("no connection to port {port} is left"), SETTLED, || {
            let left = [sockets::established(&lab.host, port), sockets::half_open(&lab.host, port)].concat();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        });
    }
    let status = limiter.json(&["status", "--verify"]);
    let uneven = || -> Vec<Value> {
        let list = limiter.json(&["list"]);
        let sources = list["sources"].as_array().expect("a list of sources");
        let is_uneven = |source: &&Value| source["connections"] != 0 || source["reserved"] != 0;
        sources.iter().filter(is_uneven).cloned().collect()
    };
    let even = || Ok(uneven().is_empty().then_some(()));
    // What is left then is a fault, and in the books.
    let left = match poll::until(GIVEN_BACK, EACH_LOOK, even).unwrap() {
        Some(()) => Vec::new(),
        None => uneven(),
    };
    let passive_opens = proc_net::counter(&lab.host, "PassiveOpens").unwrap();
    let is_correction =
        |line: &&str| line.contains(": drift, corrected") || line.contains("ended without a report");
    let corrections = limiter.log().lines().filter(is_correction).count();
    Books { status, left, passive_opens, corrections }
}

impl Books {
    /// A counter of all services.
    fn sum(&self, counter: &str) -> u64 {
        let services = self.status["services"].as_array().expect("a list of services");
        services.iter().map(|service| service["counters"][counter].as_u64().expect("a number")).sum()
    }

    fn connections(&self) -> u64 {
        let services = self.status["services"].as_array().expect("a list of services");
        services.iter().map(|service| service["connections"].as_u64().expect("a number")).sum()
    }

    /// Every count is 0, and none was ever wrong.
    pub fn check(&self, looks: u64) {
        assert_eq!((self.sum("drift"), self.sum("uncounted")), (0, 0), "{:#}", self.status);
        assert_eq!(self.connections(), 0, "{:#}", self.status);
        assert_eq!(self.left, Vec::<Value>::new(), "sources that are still counted");
        let verified = &self.status["verified"];
        assert_eq!(verified["differences"], serde_json::json!([]), "{verified:#}");
        assert_eq!(verified["connections"], 0, "{verified:#}");
        assert_eq!(
            self.corrections, 0,
            "daemons have corrected counts, or found ends that nobody had reported"
        );
        // One that its owner is just closing, given back and not shut yet, may be counted again until it is, a moment
        // later: see "Known faults" in docs/operations.md. For each look at the table one at most.
        assert!(
            self.sum("adopted") <= looks,
            "{} connections that nobody had counted, in {looks} looks",
            self.sum("adopted"),
        );
        let counted = self.sum("accepted") + self.sum("replied");
        let lost = self.passive_opens.checked_sub(counted);
        assert!(
            lost.is_some_and(|lost| lost <= 1 + self.passive_opens / LOST),
            "counted: {counted}, accepted by the kernel: {}",
            self.passive_opens
        );
    }
}

/// Says how it went.
pub fn summary(churn: &Churn, books: &Books, took: Duration) {
    let mut text = format!("churn, {} s:\n", took.as_secs());
    let mut line = |what: &str, number: u64| {
        let _ = writeln!(text, "  {what:<42} {:>12}", grouped(number));
    };
    for (index, &(ending, words)) in ALL.iter().enumerate() {
        if index == COUNTED {
            line("connections that ended", churn.done());
        }
        line(words, churn.of(ending));
    }
    line("connections/s", rate(churn.done(), took));
    line("changes of limits", churn.changes.load(Ordering::Relaxed));
    line("daemons killed", churn.kills.load(Ordering::Relaxed));
    line("comparisons with the socket table", churn.verifications.load(Ordering::Relaxed));
    for counter in ["accepted", "replied", "refused", "held", "contended", "unreserved", "uncounted", "drift"]
    {
        line(&format!("limiter status: {counter}"), books.sum(counter));
    }
    line("corrections", books.corrections as u64);
    line("accepted, by the kernel's statistics", books.passive_opens);
    say(&text);
}
