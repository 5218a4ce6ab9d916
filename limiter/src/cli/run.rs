// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter run`

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

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
    start_log()?;
    daemon::run(instance, &daemon::Options { netns: args.netns, cgroup: args.cgroup, file, config })?;
    Ok(ExitCode::SUCCESS)
}

/// What the libraries that load programs say of every relocation buries everything else: it has to be asked for by name.
fn without_libraries(filter: EnvFilter, asked: &str) -> Result<EnvFilter> {
    ["aya", "aya_obj", "mio", "tokio"]
        .iter()
        .filter(|name| !asked.contains(**name))
        .try_fold(filter, |filter, name| Ok(filter.add_directive(format!("{name}=warn").parse()?)))
}

/// The log goes to stderr, at the level `RUST_LOG` says, or `info`.
fn start_log() -> Result<()> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .context("RUST_LOG is not a valid log filter: use a level such as debug, or limiter=debug")?;
    let filter = without_libraries(filter, &std::env::var("RUST_LOG").unwrap_or_default())?;
    // Colours are for terminals: a journal or a file would keep them as noise.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}
