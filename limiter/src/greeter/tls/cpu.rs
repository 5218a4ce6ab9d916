// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How much of the CPU something takes.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The CPU time that this thread has had. Unlike the time of day, it stands still while the process or its host is
/// stopped, and while others have the CPU.
pub fn used() -> Duration {
    // Linux has this clock for every thread.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_stands_still_uses_nothing_and_one_that_works_uses_what_it_works() {
        let (begun, before) = (Instant::now(), used());
        limiter_lab::let_time_pass(Duration::from_millis(300), "this thread stands still");
        assert!(begun.elapsed() >= Duration::from_millis(300));
        let still = used().checked_sub(before).unwrap();
        assert!(still < Duration::from_millis(100), "{still:?}");
        let (begun, before) = (Instant::now(), used());
        while used().checked_sub(before).unwrap() < Duration::from_millis(5) {
            assert!(begun.elapsed() < Duration::from_secs(60), "the clock goes");
        }
    }
}
