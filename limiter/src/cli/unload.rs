//! `limiter unload`

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::output;
use crate::{
    bans::state,
    instance::Instance,
    kernel::{Found, environment, pins},
    shield,
};

#[derive(clap::Args)]
pub struct Args {}

/// How long the daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(instance: &Instance, _args: &Args) -> Result<ExitCode> {
    environment::check()?;
    stop_daemon(instance)?;
    let was_loaded = !matches!(Found::inspect(instance)?, Found::Nothing);
    pins::remove(&instance.pins())?;
    pins::remove(&instance.new_pins())?;
    state::remove(instance)?;
    shield::forget(instance)?;
    output::line(&if was_loaded {
        format!("instance {instance} is unloaded: nothing is limited any more")
    } else {
        format!("nothing was loaded as instance {instance}")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Ends the daemon first: it would otherwise hold the maps.
fn stop_daemon(instance: &Instance) -> Result<()> {
    let Some(pid) = instance.daemon()?.pid else { return Ok(()) };
    kill(Pid::from_raw(pid), Signal::SIGTERM)
        .with_context(|| format!("cannot end the daemon (pid {pid})"))?;
    let deadline = Instant::now() + PATIENCE;
    while instance.daemon()?.running {
        if Instant::now() > deadline {
            bail!("the daemon (pid {pid}) does not end: end it with `kill -9 {pid}`, then unload again");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
