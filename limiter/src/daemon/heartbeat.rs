// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon's heartbeat: without it the kernel brings nobody to the greeter, and `limiter status` says that the daemon
//! does not answer. One that was stopped (SIGSTOP, a frozen cgroup) still has its listener, where nobody accepts. The
//! service manager hears each beat, too.

use std::time::Duration;

use anyhow::Result;
use tracing::error;

use super::supervisor;
use crate::{kernel::Tables, ledger};

/// How often the heart beats.
const EVERY: Duration = Duration::from_secs(1);
/// For how long that holds: a daemon that comes late by two beats still answers.
const HOLDS: Duration = Duration::from_secs(3);
/// The same for the first beat, of a daemon that has its programs in force and more to do before it serves.
const FIRST_HOLDS: Duration = Duration::from_secs(15);

/// The first beat, before refused clients are brought to the greeter.
pub fn first(tables: &mut Tables) -> Result<()> {
    beat(tables, FIRST_HOLDS)
}

/// Beats for as long as the daemon serves.
pub async fn go_on(mut tables: Tables) {
    let mut due = tokio::time::interval(EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut has_failed = false;
    loop {
        due.tick().await;
        match beat(&mut tables, HOLDS) {
            Ok(()) => supervisor::answers(),
            Err(problem) if !std::mem::replace(&mut has_failed, true) => {
                error!("{problem:#}; refused clients get a reset until the daemon restarts");
            }
            Err(_) => {}
        }
    }
}

fn beat(tables: &mut Tables, holds: Duration) -> Result<()> {
    tables.beat(ledger::monotonic_ns()? + holds.as_nanos() as u64)
}
