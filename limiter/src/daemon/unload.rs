// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The end of an instance: its daemon, its limits, and all that it has left on the host.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};
use rustix::process::Signal;

use crate::{
    bans::state,
    instance::Instance,
    kernel::pins::{self, Unloaded},
};

/// How long the daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends the daemon of an instance that is loaded, or of which only that is left, then removes the limits and its files.
/// Returns the number of the daemon, if there was one.
///
/// # Errors
/// When something fails. The error says how far it came; done again, it goes on from there.
pub fn unload(instance: &Instance, is_loaded: bool) -> Result<Option<i32>> {
    // All that can be in the way of it is looked at before the daemon is ended.
    if is_loaded {
        pins::check_writable(instance)?;
    }
    let stopped = stop_daemon(instance)?;
    let left = |problem: Error, stands: &str| {
        let daemon =
            stopped.map_or_else(String::new, |pid| format!("the daemon (pid {pid}) has stopped, and "));
        problem.context(format!("{daemon}{stands}; fix this, then unload again"))
    };
    // Nobody starts another, and nobody changes anything, until all is gone.
    let lock = || Ok((instance.lock_daemon()?, instance.lock_policy()?, instance.lock_bans()?));
    let stays = if is_loaded { "the limits stay in force" } else { "nothing else was done" };
    let _locks = lock().map_err(|problem| left(problem, stays))?;
    pins::unload(instance).map_err(|(so_far, problem)| match so_far {
        Unloaded::Nothing => left(problem, stays),
        Unloaded::Part => left(problem, "only some of the limits are lifted"),
    })?;
    let cleared = state::remove(instance).and_then(|()| instance.clear());
    cleared.map_err(|problem| left(problem, "all limits are lifted, but a file is left"))?;
    Ok(stopped)
}

/// Ends the daemon first: it would otherwise hold the maps. Its number, if there was one.
fn stop_daemon(instance: &Instance) -> Result<Option<i32>> {
    let Some(daemon) = instance.daemon_process()? else { return Ok(None) };
    daemon.signal(Signal::USR2)?;
    let pid = daemon.pid;
    let deadline = Instant::now() + PATIENCE;
    while instance.daemon()?.running {
        if Instant::now() > deadline {
            bail!("the daemon (pid {pid}) does not stop: kill it with `kill -9 {pid}`, then unload again");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(pid))
}
