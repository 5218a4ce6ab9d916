// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rate: how many handshakes a source may complete in a time.
//!
//! GCRA (ITU-T I.371, A.1), the token bucket of one timestamp: an entry remembers when its source is
//! *due*, the time up to which its handshakes so far are paid for. A handshake moves that on by the
//! interval; a source whose due time lies further ahead than the tolerance has to wait. Only completed
//! handshakes pay (law 1).

use bytemuck::{Pod, Zeroable};

use crate::count::{TRIES, Word};

/// A rate as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Rate {
    /// Nanoseconds a handshake pays for; 0: no limit.
    pub interval_ns: u64,
    /// Nanoseconds a source may be ahead of its time: `(burst - 1) * interval_ns`.
    pub tolerance_ns: u64,
}

impl Rate {
    /// `count` handshakes (1 to [`Self::MAX_COUNT`]) in `period_s` seconds (1, 60 or 3,600), of which
    /// `burst` (1 to [`Self::MAX_COUNT`]) may come at once.
    #[must_use]
    pub const fn new(count: u32, period_s: u32, burst: u32) -> Self {
        let interval_ns = period_s as u64 * 1_000_000_000 / count as u64;
        Self { interval_ns, tolerance_ns: (burst as u64 - 1) * interval_ns }
    }

    /// The largest count and the largest burst.
    pub const MAX_COUNT: u32 = 1_000_000;

    /// Whether there is a limit at all.
    #[inline(always)]
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.interval_ns != 0
    }

    /// Whether a source due at `due_ns` may complete a handshake at `now_ns`.
    #[inline(always)]
    #[must_use]
    pub const fn allows(&self, due_ns: u64, now_ns: u64) -> bool {
        !self.is_limited() || due_ns <= now_ns.saturating_add(self.tolerance_ns)
    }

    /// The same of one that leaves as many as are `waiting` to go first.
    #[inline(always)]
    #[must_use]
    pub const fn allows_behind(&self, due_ns: u64, now_ns: u64, waiting: u32) -> bool {
        if waiting == 0 || !self.is_limited() {
            return self.allows(due_ns, now_ns);
        }
        let from = if due_ns > now_ns { due_ns } else { now_ns };
        self.allows(from.saturating_add(self.interval_ns.wrapping_mul(waiting as u64)), now_ns)
    }

    /// How many handshakes a source due at `due_ns` may complete at `now_ns`; `u64::MAX` without a limit.
    #[must_use]
    pub const fn left(&self, due_ns: u64, now_ns: u64) -> u64 {
        if !self.is_limited() {
            return u64::MAX;
        }
        if !self.allows(due_ns, now_ns) {
            return 0;
        }
        let from = if due_ns > now_ns { due_ns } else { now_ns };
        now_ns.saturating_add(self.tolerance_ns).saturating_sub(from) / self.interval_ns + 1
    }

    /// When a source due at `due_ns` is due after one more handshake at `now_ns`.
    #[inline(always)]
    #[must_use]
    pub const fn next(&self, due_ns: u64, now_ns: u64) -> u64 {
        let from = if due_ns > now_ns { due_ns } else { now_ns };
        from.saturating_add(self.interval_ns)
    }

    /// Nanoseconds until a source due at `due_ns` may complete a handshake; 0 if it may at `now_ns`.
    #[must_use]
    pub const fn wait_ns(&self, due_ns: u64, now_ns: u64) -> u64 {
        if self.is_limited() { due_ns.saturating_sub(self.tolerance_ns).saturating_sub(now_ns) } else { 0 }
    }

    /// Handshakes that may come at once; 0 without a limit.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        match self.tolerance_ns.checked_div(self.interval_ns) {
            Some(ahead) => (ahead + 1) as u32,
            None => 0,
        }
    }
}

/// Pays for a handshake, if the rate allows one: one successful compare-and-exchange, so two CPUs
/// never pay once for two. `None`: other CPUs were faster [`TRIES`] times.
#[inline(always)]
pub fn pay<W: Word>(due: &W, rate: &Rate, now_ns: u64) -> Option<bool> {
    let mut before = due.load();
    for _ in 0..TRIES {
        if !rate.allows(before, now_ns) {
            return Some(false);
        }
        let found = due.compare_exchange(before, rate.next(before, now_ns));
        if found == before {
            return Some(true);
        }
        before = found;
    }
    None
}

/// Lets a handshake pay that happened already, whether the rate allowed it or not.
#[inline(always)]
pub fn charge<W: Word>(due: &W, rate: &Rate, now_ns: u64) {
    let mut before = due.load();
    for _ in 0..TRIES {
        let found = due.compare_exchange(before, rate.next(before, now_ns));
        if found == before {
            return;
        }
        before = found;
    }
}

/// Gives back what [`pay`] took for a handshake that came to nothing.
#[inline(always)]
pub fn refund<W: Word>(due: &W, interval_ns: u64) {
    due.fetch_add(interval_ns.wrapping_neg());
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        /// What is left is what can be paid, and who goes behind others may go exactly where they leave one.
        #[test]
        fn as_many_are_left_as_can_be_paid_and_who_is_behind_others_leaves_them_theirs(
            count in 1u32..1000, period in prop::sample::select(&[1u32, 60, 3600]), burst in 1u32..50,
            due_s in 0u64..300, waiting in 0u32..60,
        ) {
            let (rate, now) = (Rate::new(count, period, burst), 100 * SECOND);
            let due = AtomicU64::new(due_s * SECOND);
            let left = rate.left(due_s * SECOND, now);
            prop_assert_eq!(rate.allows_behind(due_s * SECOND, now, waiting), left > u64::from(waiting));
            for _ in 0..left {
                prop_assert_eq!(pay(&due, &rate, now), Some(true));
            }
            prop_assert_eq!(pay(&due, &rate, now), Some(false));
        }

        /// In any stretch of time, at most burst + time / interval handshakes.
        #[test]
        fn never_more_than_the_burst_and_what_the_time_brought(
            count in 1u32..1000, period in prop::sample::select(&[1u32, 60, 3600]), burst in 1u32..50,
            steps in prop::collection::vec(0u64..5 * SECOND, 1..300),
        ) {
            let rate = Rate::new(count, period, burst);
            let due = AtomicU64::new(0);
            let mut now = 100 * SECOND;
            let mut paid = Vec::new();
            for step in steps {
                now += step;
                if pay(&due, &rate, now).unwrap() {
                    paid.push(now);
                }
            }
            for (first, &from) in paid.iter().enumerate() {
                for (last, &to) in paid.iter().enumerate().skip(first) {
                    let handshakes = (last - first + 1) as u64;
                    prop_assert!(handshakes <= u64::from(burst) + (to - from) / rate.interval_ns);
                }
            }
        }

        #[test]
        fn a_source_that_keeps_its_rate_never_waits(count in 1u32..10_000, burst in 1u32..50, n in 1u64..500) {
            let rate = Rate::new(count, 60, burst);
            let due = AtomicU64::new(0);
            for i in 0..n {
                prop_assert_eq!(pay(&due, &rate, SECOND + i * rate.interval_ns), Some(true));
            }
        }

        #[test]
        fn what_came_to_nothing_is_not_paid_for(due: u32, now: u32, later in 0u64..1000, count in 1u32..1000) {
            let (due, now) = (u64::from(due), u64::from(now));
            let rate = Rate::new(count, 1, 5);
            let word = AtomicU64::new(due);
            if pay(&word, &rate, now).unwrap() {
                refund(&word, rate.interval_ns);
            }
            let after = word.into_inner();
            // A due time in the past is as good as now.
            prop_assert_eq!(after.max(now), due.max(now));
            prop_assert_eq!(rate.allows(after, now + later), rate.allows(due, now + later));
        }

        #[test]
        fn what_happened_already_is_paid_for_though_it_was_not_allowed(n in 1u64..50, now: u32) {
            let rate = Rate::new(1, 1, 1);
            let due = AtomicU64::new(0);
            for _ in 0..n {
                charge(&due, &rate, u64::from(now));
            }
            prop_assert_eq!(rate.wait_ns(due.into_inner(), u64::from(now)), n * SECOND);
        }

        #[test]
        fn a_source_may_come_when_its_wait_is_over_and_not_before(due: u32, now: u32, count in 1u32..1000) {
            let rate = Rate::new(count, 60, 3);
            let (due, now) = (u64::from(due) * 1000, u64::from(now));
            let wait = rate.wait_ns(due, now);
            prop_assert_eq!(rate.allows(due, now), wait == 0);
            prop_assert!(rate.allows(due, now + wait));
            prop_assert!(wait == 0 || !rate.allows(due, now + wait - 1));
        }
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let none = Rate::default();
        assert!(none.allows(u64::MAX, 0) && none.wait_ns(u64::MAX, 0) == 0 && none.burst() == 0);
    }

    #[test]
    fn the_burst_is_what_it_was_made_with() {
        assert_eq!(Rate::new(60, 60, 30).burst(), 30);
        assert_eq!(Rate::new(7, 3600, Rate::MAX_COUNT).burst(), Rate::MAX_COUNT);
    }
}
