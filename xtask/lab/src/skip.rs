// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Tests that cannot prove anything where they run say so; with `cargo xtask test --no-skips` they fail.

use std::path::Path;
use std::process::Command;

use crate::output;

/// Set by `cargo xtask test --no-skips`.
pub const NO_SKIPS: &str = "LIMITER_TEST_NO_SKIPS";

/// Says that the running test proves nothing, where the test harness does not swallow it.
///
/// # Panics
///
/// Where no test may be skipped.
pub fn skip(why: &str) {
    assert!(std::env::var_os(NO_SKIPS).is_none(), "no test may be skipped ({NO_SKIPS}), but: {why}");
    say(why);
}

/// The same for what the running kernel is built without. The kernel's own configuration is an excuse, too, where no
/// test may be skipped: one that has the option fails.
///
/// # Panics
///
/// Where no test may be skipped and the kernel has the option, or does not tell.
pub fn skip_without(option: &str) {
    let why = format!("this kernel is built without {option}");
    if is_built_without(option) { say(&why) } else { skip(&why) }
}

fn say(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    output::say(&format!("SKIPPED {test}: {why}"));
}

/// Whether the configuration of the running kernel says so.
fn is_built_without(option: &str) -> bool {
    let is_not_set = format!("# {option} is not set");
    configuration().is_some_and(|text| text.lines().any(|line| line == is_not_set))
}

/// The configuration of the running kernel, as it gives it itself (`CONFIG_IKCONFIG_PROC`) or as distributions ship it.
fn configuration() -> Option<String> {
    let own = Path::new("/proc/config.gz");
    if own.exists() {
        let unpacked = Command::new("gzip").arg("-dc").arg(own).output().ok()?;
        return String::from_utf8(unpacked.stdout).ok();
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    std::fs::read_to_string(format!("/boot/config-{}", release.trim())).ok()
}
