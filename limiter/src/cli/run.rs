// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter run`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use super::log;
use crate::{config, daemon, instance::Instance};

#[derive(clap::Args)]
pub struct Args {
    /// Configuration file [default: /etc/limiter/limiter.toml if it exists, else the built-in services]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Protect this network namespace, such as /run/netns/NAME or /proc/PID/ns/net
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,

    /// Protect only sockets in this cgroup v2 directory and below it [default: all]
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
}

pub fn run(instance: &Instance, args: Args) -> Result<ExitCode> {
    // First, so that a mistake in it changes nothing.
    let file = args.config.or_else(|| Some(PathBuf::from(config::DEFAULT_PATH)).filter(|path| path.exists()));
    let config = file.as_deref().map(config::load).transpose()?.unwrap_or_default();
    log::start()?;
    daemon::run(instance, &daemon::Options { netns: args.netns, cgroup: args.cgroup, file, config })?;
    Ok(ExitCode::SUCCESS)
}
