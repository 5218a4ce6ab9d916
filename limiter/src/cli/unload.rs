// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter unload`

use std::process::ExitCode;

use anyhow::Result;

use super::{
    answer::{Answer, Done, word},
    loaded::refuse_elsewhere,
    output::{self, Format},
};
use crate::{
    daemon,
    instance::Instance,
    kernel::{Found, environment},
};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub format: Format,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    environment::check()?;
    let was_loaded = !matches!(Found::inspect(instance)?, Found::Nothing);
    if !was_loaded {
        refuse_elsewhere(instance)?;
    }
    let stopped = daemon::unload(instance, was_loaded)?;
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
