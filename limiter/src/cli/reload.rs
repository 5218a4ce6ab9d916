//! `limiter reload`

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::{locked, output};
use crate::{
    config,
    instance::{Applied as ForDaemon, Instance, Process},
    policy::{self, Applied},
};

#[derive(clap::Args)]
pub struct Args {
    /// The file to read; the one `limiter run` was started with if left out
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    // Locked before the file is read, or one who saves a change at this moment would be overruled by what was there before.
    let (mut tables, policy) = locked(instance, Instance::lock_policy)?;
    let path = match &args.config {
        Some(path) => Some(path.clone()),
        None => instance.config_path()?,
    };
    let applied = {
        let _policy = policy;
        // All of it before anything is touched: one mistake and nothing changes.
        let config = path.as_deref().map(config::load).transpose()?.unwrap_or_default();
        // What the kernel does not know of: the host name, and how often the daemon looks after the ledger.
        // Not the file itself: it may have changed by the time the daemon reads it.
        let for_daemon = instance.prepare_applied(&config.to_string())?;
        let daemon = instance.daemon_process()?;
        let before = tables.policy.policy()?;
        let applied = policy::reapply(&config, &mut tables)?;
        if let Err(problem) = tell(daemon, for_daemon) {
            tables.policy.replace(&before).with_context(|| {
                format!("it is in force, and the daemon does not know ({problem:#}): do it again")
            })?;
            return Err(problem);
        }
        applied
    };
    let file = path.map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
    output::done(&[match applied {
        Applied::Changed => format!("{file}: in force"),
        Applied::Kept => format!("{file}: was in force already"),
    }]);
    Ok(ExitCode::SUCCESS)
}

/// Leaves the configuration for the daemon, and tells it: both, or neither.
fn tell(daemon: Option<Process>, for_daemon: ForDaemon) -> Result<()> {
    let left = for_daemon.leave()?;
    let Some(Err(problem)) = daemon.map(|daemon| daemon.signal(Signal::USR1)) else { return Ok(()) };
    // If it stays, nobody reads it before another is there.
    let _stays = left.take_back();
    Err(problem)
}
