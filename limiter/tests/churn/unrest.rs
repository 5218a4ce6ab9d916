// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The administrator who cannot leave it alone, and the daemon that dies.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::churn::Churn;
use crate::dice::Dice;
use crate::support::Limiter;

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
    let mut dice = Dice::new(500);
    while !churn.is_over() {
        let until = Instant::now() + Duration::from_millis(dice.below(LIFE.as_millis() as u64));
        while Instant::now() < until && !churn.is_over() {
            change(limiter, churn, &mut dice);
        }
        let verified = limiter.json(&["status", "--verify"])["verified"].clone();
        assert_eq!(verified["differences"], serde_json::json!([]), "{verified:#}");
        churn.verifications.fetch_add(1, Ordering::Relaxed);
        limiter.kill();
        churn.kills.fetch_add(1, Ordering::Relaxed);
        (0..dice.below(4)).for_each(|_| change(limiter, churn, &mut dice));
        limiter.run();
    }
}

fn change(limiter: &Limiter, churn: &Churn, dice: &mut Dice) {
    let (service, settings) = dice.one_of(&CHANGES);
    limiter.ok(&[&["set", service], settings].concat());
    churn.changes.fetch_add(1, Ordering::Relaxed);
    std::thread::sleep(REST);
}
