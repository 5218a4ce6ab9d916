// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter reload`

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::{
    answer::{Answer, Done, Saved, word},
    loaded::locked,
    output::Format,
};
use crate::{
    config::{self, Config},
    instance::{Applied as ForDaemon, Instance, Process},
    kernel::Tables,
    policy::{self, Difference},
};

#[derive(clap::Args)]
pub struct Args {
    /// Read this file, now and at later reloads [default: the file read last]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    pub format: Format,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    // Locked before the file is read, or one who saves a change at this moment would be overruled by what was there before.
    let (mut tables, policy) = locked(instance, Instance::lock_policy)?;
    let path = match &args.config {
        Some(path) => Some(std::path::absolute(path)?),
        None => instance.config_path()?,
    };
    let (differences, later) = {
        let _policy = policy;
        // All of it before anything is touched: one mistake and nothing changes.
        let config = path.as_deref().map(config::load).transpose()?.unwrap_or_default();
        // What tells a change made live from one of the file; where it cannot be read, nothing is said of that.
        let last = config::load(&instance.applied_path()).ok();
        // What the kernel does not know of: the host name, and how often the daemon looks after the ledger.
        // Not the file itself: it may have changed by the time the daemon reads it.
        let for_daemon = instance.prepare_applied(&config.to_string())?;
        let daemon = instance.daemon_process()?;
        let is_served = daemon.is_some();
        let before = tables.policy.policy()?;
        let known = instance.config_path();
        if args.config.is_some() {
            instance.set_config_path(path.as_deref())?;
        }
        let put = policy::reload(&config, last.as_ref(), &mut tables).and_then(|differences| {
            let Err(problem) = tell(daemon, for_daemon) else { return Ok(differences) };
            tables.policy.replace(&before).with_context(|| {
                format!(
                    "the configuration is in force, but the daemon was not told ({problem:#}): repeat the \
                         command"
                )
            })?;
            Err(problem)
        });
        match (put, known) {
            (Err(problem), Ok(known)) => {
                instance.set_config_path(known.as_deref()).with_context(|| {
                    let file = path.as_ref().map_or_else(|| "nothing".into(), |path| path.to_string_lossy());
                    format!("{problem:#}; from now on `limiter reload` reads {file}")
                })?;
                return Err(problem);
            }
            (put, _) => {
                let differences = put?;
                // It is done, whatever can be said of it.
                let later = later(instance, &tables, &config, &differences, is_served);
                (differences, later.unwrap_or_else(|problem| Some(format!("{problem:#}"))))
            }
        }
    };
    if let Some(later) = later {
        eprintln!("limiter: warning: {later}");
    }
    let done: Vec<Done> = differences.into_iter().map(done).collect();
    let mut answer = Answer::new(done);
    let file = path.as_ref().map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
    let said = if answer.changed { "in force" } else { "already in force" };
    answer.summary = Some(format!("{file}: {said}: {}", word(answer.changed)));
    answer.file = path.map(|path| Saved { path, changed: false });
    answer.show(&args.format);
    Ok(ExitCode::SUCCESS)
}

/// What of a configuration is in force only when a daemon starts, in words.
fn later(
    instance: &Instance,
    tables: &Tables,
    config: &Config,
    differences: &[(Difference, bool)],
    is_served: bool,
) -> Result<Option<String>> {
    let run = format!("`limiter --instance {instance} run`");
    let are = |keys: &[&str]| if keys.len() == 1 { "is" } else { "are" };
    // Maps cannot be made larger. Not what has changed: what is loaded may be what the file says again.
    let loaded = [
        ("max_sources", tables.room()?.1 == config.max_sources),
        ("max_bans", tables.max_bans()? == config.ladder.max_bans),
    ];
    let mut keys: Vec<&str> = loaded.iter().filter(|(_, is_so)| !is_so).map(|(key, _)| *key).collect();
    if is_served {
        let sentence = || {
            format!(
                "{} {} read only when the daemon starts: stop it and start {run}",
                keys.join(", "),
                are(&keys)
            )
        };
        return Ok((!keys.is_empty()).then(sentence));
    }
    let of_no_service = differences.iter().filter(|(difference, _)| difference.what == policy::OF_NO_SERVICE);
    keys.extend(
        of_no_service.filter_map(|(difference, _)| difference.key).filter(|key| BY_DAEMON.contains(key)),
    );
    let sentence = || {
        format!("{} {} applied by the daemon, which is not running: start {run}", keys.join(", "), are(&keys))
    };
    Ok((!keys.is_empty()).then(sentence))
}

/// What the daemon does, and the kernel by itself does not.
const BY_DAEMON: [&str; 4] = ["hostname", "remember_seconds", "reconcile_seconds", "interfaces"];

fn done((Difference { what, key, was, is }, taken_back): (Difference, bool)) -> Done {
    Done { what, key, is, was: Some(was), changed: true, taken_back }
}

/// Leaves the configuration for the daemon, and tells it: both, or neither.
fn tell(daemon: Option<Process>, for_daemon: ForDaemon) -> Result<()> {
    let left = for_daemon.leave()?;
    let Some(Err(problem)) = daemon.map(|daemon| daemon.signal(Signal::USR1)) else { return Ok(()) };
    // If it stays, nobody reads it before another is there.
    let _stays = left.take_back();
    Err(problem)
}
