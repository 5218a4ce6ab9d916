// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter status`

mod brief;
mod screen;

use std::process::ExitCode;

use anyhow::Result;

use super::{
    exit::NOT_IN_FORCE,
    loaded::{nothing_loaded, refuse_elsewhere, steadily},
    output::{self, Format},
};
use crate::{
    instance::Instance,
    kernel::environment,
    status::{Nothing, look},
};

#[derive(clap::Args)]
pub struct Args {
    /// Compare all counts with the kernel's socket table, and correct wrong counts
    #[arg(long)]
    verify: bool,

    /// Print one line for monitoring plugins, and exit with 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN
    #[arg(long, conflicts_with_all = ["json", "verify"])]
    pub brief: bool,

    #[command(flatten)]
    pub format: Format,
}

#[cfg(test)]
pub use brief::line as brief_line;
pub use brief::{UNKNOWN, unknown};
pub use screen::screen;

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    environment::check()?;
    let Some(status) = steadily(instance, || look(instance, args.verify))? else {
        refuse_elsewhere(instance)?;
        let nothing = nothing_loaded(instance);
        if args.brief {
            output::line(&brief::nothing(instance, &nothing))?;
            return Ok(ExitCode::from(brief::CRITICAL));
        }
        if args.format.json {
            let (instance, daemon) = (instance.to_string(), instance.daemon()?);
            let (in_force, services, warnings) = (false, [], []);
            output::json(&Nothing {
                instance,
                in_force,
                daemon,
                services,
                warnings,
                error: nothing.clone(),
            })?;
        }
        eprintln!("limiter: {nothing}");
        return Ok(ExitCode::from(NOT_IN_FORCE));
    };
    if args.brief {
        let (line, code) = brief::line(&status);
        output::line(&line)?;
        return Ok(ExitCode::from(code));
    }
    if args.format.json {
        output::json(&status)?;
    } else {
        screen(&status, output::width()).show()?;
    }
    Ok(if status.in_force { ExitCode::SUCCESS } else { ExitCode::from(NOT_IN_FORCE) })
}
