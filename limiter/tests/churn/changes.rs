// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The administrator who cannot leave it alone, and the daemon that dies.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::churn::Churn;
use limiter_lab::random::Random;
use limiter_lab::{Limiter, let_time_pass};

/// What is changed while connections come and go; a source's limit never exceeds its network's.
const CHANGES: [(&str, &[&str]); 14] = [
    ("smtp", &["max_connections=3"]),
    ("smtp", &["max_connections=8"]),
    ("smtp", &["max_connections=16"]),
    ("smtp", &["network_max_connections=none"]),
    ("smtp", &["network_max_connections=40"]),
    ("smtp", &["response=reply"]),
    ("smtp", &["response=reset"]),
    ("smtp", &["rate=6000/min", "burst=500"]),
    ("smtp", &["rate=none", "keepalive=none"]),
    ("smtp", &["keepalive=10m"]),
    ("imap", &["max_connections=4", "response=reply"]),
    ("imap", &["max_connections=12", "response=reset"]),
    ("imap", &["max_total=150"]),
    ("imap", &["max_total=none", "network_max_connections=60"]),
];

/// Between two changes.
const REST: Duration = Duration::from_millis(150);
/// How long a daemon lives, at most.
const LIFE: Duration = Duration::from_secs(6);

/// Changes limits, kills daemons and starts others until it is over; then there is one.
pub fn run(limiter: &mut Limiter, churn: &Churn) {
    let mut random = Random::new(500);
    while !churn.is_over() {
        let until = Instant::now() + Duration::from_millis(random.below(LIFE.as_millis() as u64));
        while Instant::now() < until && !churn.is_over() {
            change(limiter, churn, &mut random);
        }
        let verified = limiter.json(&["status", "--verify"])["verified"].clone();
        assert_eq!(verified["differences"], serde_json::json!([]), "{verified:#}");
        churn.verifications.fetch_add(1, Ordering::Relaxed);
        limiter.kill();
        churn.kills.fetch_add(1, Ordering::Relaxed);
        (0..random.below(4)).for_each(|_| change(limiter, churn, &mut random));
        limiter.run();
    }
}

fn change(limiter: &Limiter, churn: &Churn, random: &mut Random) {
    let (service, settings) = random.one_of(&CHANGES);
    limiter.ok(&[&["set", service], settings].concat());
    churn.changes.fetch_add(1, Ordering::Relaxed);
    let_time_pass(REST, "the pace of the changes");
}
