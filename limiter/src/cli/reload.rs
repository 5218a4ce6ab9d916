//! `limiter reload`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use rustix::process::Signal;

use super::{loaded, output};
use crate::{
    config,
    instance::Instance,
    policy::{self, Applied},
};

#[derive(clap::Args)]
pub struct Args {
    /// The file to read; the one `limiter run` was started with if left out
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let mut tables = loaded(instance)?;
    let path = match &args.config {
        Some(path) => Some(path.clone()),
        None => instance.config_path()?,
    };
    let applied = {
        // Before the file is read, or one who saves a change at this moment would be overruled by what was
        // there before.
        let _policy = instance.lock_policy()?;
        // All of it before anything is touched: one mistake and nothing changes.
        let config = path.as_deref().map(config::load).transpose()?.unwrap_or_default();
        // What the kernel does not know of: the host name, and how often the daemon looks after the ledger.
        // Not the file itself: it may have changed by the time the daemon reads it.
        let for_daemon = instance.prepare_applied(&config.to_string())?;
        let applied = policy::reapply(&config, &mut tables)?;
        for_daemon.leave()?;
        applied
    };
    if let Some(pid) = instance.daemon()?.pid {
        instance.signal(pid, Signal::USR1)?;
    }
    let file = path.map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
    output::line(&match applied {
        Applied::Changed => format!("{file}: in force"),
        Applied::Kept => format!("{file}: was in force already"),
    })?;
    Ok(ExitCode::SUCCESS)
}
