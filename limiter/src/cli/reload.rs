// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter reload`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use super::{
    answer::{Answer, Done, word},
    keepalive,
    loaded::locked,
    output::Format,
};
use crate::{
    instance::Instance,
    policy::{self, Difference, Later, Saved, Until},
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
    let (mut tables, policy) = locked(instance, Instance::lock_policy)?;
    let path = match &args.config {
        Some(path) => Some(std::path::absolute(path)?),
        None => instance.config_path()?,
    };
    let reloaded = policy::reload(instance, &mut tables, path.as_deref(), args.config.is_some())?;
    drop(policy);
    // It is done, whatever can be said of it.
    match reloaded.later {
        Ok(None) => {}
        Ok(Some(later)) => eprintln!("limiter: warning: {}", sentence(instance, &later)),
        Err(problem) => eprintln!("limiter: warning: {problem:#}"),
    }
    let done = reloaded.changes.into_iter().map(|policy::Changed { difference, is_reverted }| {
        let Difference { what, key, was, is } = difference;
        Done { what, key, is, was: Some(was), changed: true, taken_back: is_reverted }
    });
    let done: Vec<Done> = done.collect();
    keepalive::reach(instance, &tables, &done);
    let mut answer = Answer::new(done);
    let file = path.as_ref().map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
    let said = if answer.changed { "in force" } else { "already in force" };
    answer.summary = Some(format!("{file}: {said}: {}", word(answer.changed)));
    answer.file = path.map(|path| Saved { path, changed: false });
    answer.show(&args.format);
    Ok(ExitCode::SUCCESS)
}

/// Which keys are not in force yet, and what to do.
fn sentence(instance: &Instance, Later { keys, until }: &Later) -> String {
    let run = format!("`{} run`", instance.program());
    let (names, are) = (keys.join(", "), if keys.len() == 1 { "is" } else { "are" });
    match until {
        Until::Restart => {
            format!("{names} {are} read only when the daemon starts: stop it and start {run}")
        }
        Until::Start => {
            format!("{names} {are} applied by the daemon, which is not running: start {run}")
        }
    }
}
