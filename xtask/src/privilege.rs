// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Root, or what stands in for it.

use std::{env, process::Command};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use crate::command;

/// Whether we are root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// A command that runs as root with these variables: directly, or through sudo.
///
/// # Errors
///
/// When we are not root and there is no sudo.
pub fn command(program: &str, variables: &[(&str, &str)]) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return Ok(command);
    }
    if which::which("sudo").is_err() {
        bail!("{program} needs root, and sudo is missing");
    }
    let mut command = Command::new("sudo");
    // sudo clears the environment, so the variables go through env.
    command.arg("env").args(variables.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
    Ok(command)
}

/// Runs xtask again as root, as it was called, but with `--built`: what the caller has built and installed is there.
///
/// # Errors
///
/// When there is no sudo, or it fails.
pub fn again() -> Result<()> {
    let xtask = env::current_exe().context("cannot tell where xtask itself is")?;
    let xtask = xtask.to_str().context("the path of the workspace is not UTF-8")?;
    command::run(command(xtask, &[])?.args(env::args_os().skip(1)).arg("--built"))
}
