// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How much of the CPU something takes.

use std::{cell::Cell, time::Duration};

use nix::time::{ClockId, clock_gettime};

thread_local! {
    /// What others have worked for this thread.
    static CHARGED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The CPU time that this thread has had, and others for it. Unlike the time of day, it stands still while the process
/// or its host is stopped, and while others have the CPU.
pub fn used() -> Duration {
    // Linux has this clock for every thread.
    let own = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    own.saturating_add(CHARGED.get())
}

/// Another process has worked so much for this thread.
pub fn charge(took: Duration) {
    CHARGED.set(CHARGED.get().saturating_add(took));
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_others_work_for_a_thread_counts_as_its_own() {
        let before = used();
        charge(Duration::from_secs(7));
        assert!(used().checked_sub(before).unwrap() >= Duration::from_secs(7));
        std::thread::spawn(|| assert!(used() < Duration::from_secs(7))).join().unwrap();
    }

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
