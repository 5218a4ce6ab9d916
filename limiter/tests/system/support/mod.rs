// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the tests are built from.

pub mod cgroup;
pub mod clients;
pub mod dial;
pub mod dovecot;
pub mod exim;
pub mod lab;
pub mod limiter;
pub mod mail_daemon;
pub mod pinned;
pub mod postfix;
pub mod process;
pub mod seccomp;
pub mod sink;
pub mod skip;
pub mod truth;
pub mod watch;
pub mod xdp;

use std::time::{Duration, Instant};

pub use dial::{Answer, answer};
pub use lab::{Family, Lab, V4, V6};
pub use limiter::Limiter;
pub use sink::Sink;

/// How long anything may take that should take no time at all, on a machine busy with other tests.
pub const SOON: Duration = Duration::from_secs(10);

/// How many times longer to wait than on a machine that is none of software: `LIMITER_TEST_PATIENCE`, which
/// `cargo xtask vm` sets. In emulation the kernel takes half a minute to verify the programs.
fn patience() -> u32 {
    let said = std::env::var("LIMITER_TEST_PATIENCE").ok();
    said.map_or(1, |said| said.parse().expect("a factor"))
}

/// When what may take `within` on a machine that is none of software has taken too long on this one.
pub fn deadline(within: Duration) -> Instant {
    Instant::now() + within * patience()
}

/// Polls until `check` is satisfied, and hands over what it found; fails with its last complaint.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let within = within * patience();
    let deadline = Instant::now() + within;
    loop {
        match check() {
            Ok(found) => return found,
            Err(complaint) if Instant::now() > deadline => {
                panic!("not within {within:?}: {what}\n{complaint}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// `Ok` if the two are equal, otherwise a complaint with both, for [`eventually`].
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}
