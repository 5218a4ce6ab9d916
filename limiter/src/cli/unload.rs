//! `limiter unload`

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::process::Signal;

use super::output;
use crate::{
    bans::state,
    instance::Instance,
    kernel::{Found, environment, pins},
};

#[derive(clap::Args)]
pub struct Args {}

/// How long the daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(instance: &Instance, _args: &Args) -> Result<ExitCode> {
    environment::check()?;
    stop_daemon(instance)?;
    // Nobody starts another, and nobody changes anything, until all is gone.
    let _daemon = instance.lock_daemon()?;
    let _policy = instance.lock_policy()?;
    let _bans = instance.lock_bans()?;
    let was_loaded = !matches!(Found::inspect(instance)?, Found::Nothing);
    pins::remove(&instance.pins())?;
    pins::remove(&instance.new_pins())?;
    state::remove(instance)?;
    instance.clear()?;
    output::line(&if was_loaded {
        format!("instance {instance} is unloaded: nothing is limited any more")
    } else {
        format!("nothing was loaded as instance {instance}")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Ends the daemon first: it would otherwise hold the maps.
fn stop_daemon(instance: &Instance) -> Result<()> {
    let Some(daemon) = instance.daemon_process()? else { return Ok(()) };
    daemon.signal(Signal::USR2)?;
    let pid = daemon.pid;
    let deadline = Instant::now() + PATIENCE;
    while instance.daemon()?.running {
        if Instant::now() > deadline {
            bail!("the daemon (pid {pid}) does not end: end it with `kill -9 {pid}`, then unload again");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
