// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter unload`

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Error, Result, bail};
use rustix::process::Signal;

use super::{
    answer::{Answer, Done, word},
    loaded::refuse_elsewhere,
    output::{self, Format},
};
use crate::{
    bans::state,
    instance::Instance,
    kernel::{
        Found, environment,
        pins::{self, Unloaded},
    },
};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub format: Format,
}

/// How long the daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    environment::check()?;
    // All that can be in the way of it is looked at before the daemon is ended.
    let was_loaded = !matches!(Found::inspect(instance)?, Found::Nothing);
    if was_loaded {
        pins::check_writable(instance)?;
    } else {
        refuse_elsewhere(instance)?;
    }
    let stopped = stop_daemon(instance)?;
    let left = |problem: Error, stands: &str| {
        let daemon =
            stopped.map_or_else(String::new, |pid| format!("the daemon (pid {pid}) has stopped, and "));
        problem.context(format!("{daemon}{stands}; fix this, then unload again"))
    };
    // Nobody starts another, and nobody changes anything, until all is gone.
    let lock = || Ok((instance.lock_daemon()?, instance.lock_policy()?, instance.lock_bans()?));
    let stays = if was_loaded { "the limits stay in force" } else { "nothing else was done" };
    let _locks = lock().map_err(|problem| left(problem, stays))?;
    pins::unload(instance).map_err(|(so_far, problem)| match so_far {
        Unloaded::Nothing => left(problem, stays),
        Unloaded::Part => left(problem, "only some of the limits are lifted"),
    })?;
    let cleared = state::remove(instance).and_then(|()| instance.clear());
    cleared.map_err(|problem| left(problem, "all limits are lifted, but a file is left"))?;
    let changed = was_loaded || stopped.is_some();
    let what = match stopped {
        _ if was_loaded => format!("instance {instance} is unloaded: no limits are in force"),
        Some(pid) => format!("instance {instance} was not loaded; its daemon (pid {pid}) has stopped"),
        None => format!("instance {instance} was not loaded"),
    };
    if args.format.json {
        let was = if was_loaded { "loaded" } else { "not loaded" };
        let done = Done::new(format!("instance {instance}"), Some(was.to_owned()), "not loaded");
        Answer::new(vec![done]).show(&args.format);
    } else {
        output::done(&[format!("{what}: {}", word(changed))]);
    }
    Ok(ExitCode::SUCCESS)
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
