// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What TLS may cost: a token bucket of handshakes, in which a slow one counts for several.

use std::time::{Duration, Instant};

/// A token bucket. A token is a handshake, or a millisecond of the CPU where one takes longer.
#[derive(Debug)]
pub struct Bucket {
    /// Tokens a second.
    rate: u32,
    /// The most that there can be.
    burst: f64,
    /// What there is; less than nothing where handshakes took longer than was foreseen.
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: u32, burst: u32, now: Instant) -> Self {
        Self { rate, burst: f64::from(burst), tokens: f64::from(burst), at: now }
    }

    /// Whether there is a token, which is taken.
    pub fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.tokens = self.burst.min(self.tokens + f64::from(self.rate) * since.as_secs_f64());
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }

    /// Pays for so much of the CPU beyond the millisecond that each token is for. The debt is never more than a
    /// second makes up for: whatever happened, handshakes begin again then.
    pub fn pay(&mut self, beyond: Duration) {
        self.tokens = (self.tokens - beyond.as_secs_f64() * 1000.0).max(-f64::from(self.rate));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slow_handshake_counts_for_as_many_as_it_has_milliseconds() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 5, start);
        assert!(bucket.take(start));
        assert!(bucket.take(start));
        bucket.pay(Duration::from_millis(5));
        assert!(!bucket.take(start), "2 below nothing");
        assert!(!bucket.take(start + Duration::from_millis(290)));
        assert!(bucket.take(start + Duration::from_millis(310)));
    }

    #[test]
    fn a_debt_is_paid_within_a_second_and_a_token_however_large_it_was() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 5, start);
        for _ in 0..3 {
            bucket.pay(Duration::from_secs(3600));
        }
        assert!(!bucket.take(start + Duration::from_millis(1090)));
        assert!(bucket.take(start + Duration::from_millis(1110)));
    }

    proptest! {
        #[test]
        fn no_time_has_more_than_its_rate_and_one_burst(
            rate in 1u32..500, burst in 1u32..50, steps in prop::collection::vec(0u64..20_000, 1..300),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(rate, burst, start);
            let mut now = start;
            let mut taken = 0u32;
            for micros in steps {
                now += Duration::from_micros(micros);
                taken += u32::from(bucket.take(now));
                let most = f64::from(burst) + f64::from(rate) * (now - start).as_secs_f64();
                prop_assert!(f64::from(taken) <= most + 1e-6);
            }
        }
    }
}
