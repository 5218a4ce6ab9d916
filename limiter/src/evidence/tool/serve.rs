// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter tool`: the process itself.

use std::{os::unix::process::CommandExt as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};

use super::launch::Program;
use crate::sandbox::{self, Tool};

/// What the arguments of the part say.
#[derive(Clone, Debug, clap::Args)]
pub struct Part {
    /// The program.
    #[arg(value_enum)]
    program: Program,
    /// Who has started it.
    #[arg(long)]
    parent: i32,
    /// What it reads.
    #[arg(long)]
    reads: Vec<PathBuf>,
    /// The sockets that it connects to.
    #[arg(long)]
    sockets: Vec<PathBuf>,
    /// Whether it ends processes of others.
    #[arg(long)]
    may_signal: bool,
    /// Its arguments.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Becomes the program.
///
/// # Errors
/// Why it cannot.
pub fn serve(part: &Part) -> Result<ExitCode> {
    let Part { program, parent, reads, sockets, may_signal, arguments } = part;
    let path = program.path().with_context(|| format!("{} is not installed", program.name()))?;
    sandbox::enter_for_tool(&Tool {
        reads: reads.clone(),
        sockets: sockets.clone(),
        may_signal: *may_signal,
        parent: *parent,
    })?;
    // Only what goes wrong returns.
    Err(std::process::Command::new(&path).args(arguments).exec())
        .with_context(|| format!("cannot run {}", path.display()))
}
