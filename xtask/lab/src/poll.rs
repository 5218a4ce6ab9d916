// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Waiting for a condition, with a deadline. Nothing else in a test sleeps, but [`let_time_pass`] where time itself is
//! the subject.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How long anything may take that should take no time at all, on a machine busy with other tests.
pub const SOON: Duration = Duration::from_secs(10);

/// [`eventually`] pauses for at least this long between two looks.
const INTERVAL: Duration = Duration::from_millis(5);

/// And for at most this long.
const LONG_INTERVAL: Duration = Duration::from_millis(50);

/// How many times longer to wait than on hardware: `LIMITER_TEST_PATIENCE`, which `cargo xtask vm` sets. In emulation
/// the kernel takes half a minute to verify the programs.
#[expect(clippy::expect_used, reason = "a wrong setting is said at once")]
pub fn patience() -> u32 {
    let set = std::env::var("LIMITER_TEST_PATIENCE").ok();
    set.map_or(1, |set| set.parse().expect("LIMITER_TEST_PATIENCE is a factor"))
}

/// When what may take `within` on hardware has taken too long on this machine.
pub fn deadline(within: Duration) -> Instant {
    Instant::now() + within * patience()
}

/// Looks every `interval` until `check` finds something; `None` where it has not within the time.
///
/// # Errors
///
/// The first of `check`.
pub fn until<T>(
    within: Duration,
    interval: Duration,
    mut check: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = deadline(within);
    loop {
        if let Some(found) = check()? {
            return Ok(Some(found));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(interval);
    }
}

/// Polls until `check` is satisfied, and returns what it found; fails with its last complaint.
///
/// It pauses as long as a look takes: most looks start programs, and what they wait for needs the processor as well.
#[track_caller]
#[expect(clippy::panic, reason = "the test fails")]
pub fn eventually<T>(what: &str, within: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let within = within * patience();
    let deadline = Instant::now() + within;
    loop {
        let begun = Instant::now();
        match check() {
            Ok(found) => return found,
            Err(complaint) if Instant::now() > deadline => {
                panic!("not within {within:?}: {what}\n{complaint}")
            }
            Err(_) => std::thread::sleep(begun.elapsed().clamp(INTERVAL, LONG_INTERVAL)),
        }
    }
}

/// `Ok` if the two are equal, otherwise a complaint with both, for [`eventually`].
///
/// # Errors
///
/// The complaint.
pub fn same<T: PartialEq + Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}

/// Lets time pass where time itself is the subject: a ban that runs out, the pace of a load. To wait for something to
/// happen, use [`eventually`].
///
/// `why` is for the reader, and for the output of a test that fails.
pub fn let_time_pass(time: Duration, why: &str) {
    if time >= Duration::from_secs(1) {
        eprintln!("{time:?} pass: {why}");
    }
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_polled_for_is_returned_and_what_does_not_come_is_given_up() {
        let mut looks = 0;
        let third = || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        };
        assert_eq!(until(SOON, Duration::ZERO, third).unwrap(), Some(3));
        assert_eq!(until::<()>(Duration::from_millis(1), Duration::ZERO, || Ok(None)).unwrap(), None);
        assert!(until::<()>(SOON, Duration::ZERO, || anyhow::bail!("broken")).is_err());
    }
}
