// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the service manager is told (`sd_notify(3)`), where there is one: that the daemon serves, that it reloads, that
//! it still answers, and that it ends. Without `NOTIFY_SOCKET` nothing is said.
//!
//! The daemon that begins anew for another cgroup (`exec`) says again that it serves: the process is the same.

use sd_notify::NotifyState;
use tracing::warn;

use crate::instance::Instance;

/// All that can fail has succeeded.
pub fn serves(instance: &Instance) {
    tell(&[NotifyState::Ready, NotifyState::Status(&serving(instance))]);
}

/// The file is read again.
pub fn reloads() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        // A service manager that wants to know when would take it for a mistake.
        Err(problem) => warn!("the service manager is not told of the reload: {problem}"),
    }
}

/// The reload has ended, in force or not: the log says which.
pub fn has_reloaded() {
    tell(&[NotifyState::Ready]);
}

/// It answers: the kernel has been told so as well. Who does not say this in time is killed and started again.
pub fn answers() {
    // Nothing to do about it, and in the log it would be a line a second.
    let _unheard = sd_notify::notify(&[NotifyState::Watchdog]);
}

/// It ends for good. One that begins anew only reloads: whoever has said that it ends is killed if it does not.
pub fn ends(limits_stay: bool) {
    let stands =
        if limits_stay { "stops; the limits stay in force" } else { "stops; the instance is being unloaded" };
    tell(&[NotifyState::Stopping, NotifyState::Status(stands)]);
}

fn serving(instance: &Instance) -> String {
    // Whether it enforces or observes changes later, so it is not said here.
    format!("instance {instance} is loaded and the daemon answers; `limiter status` shows what is in force")
}

fn tell(state: &[NotifyState]) {
    if let Err(problem) = sd_notify::notify(state) {
        warn!("the service manager cannot be told what the daemon does: {problem}");
    }
}
