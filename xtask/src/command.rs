// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Runs other programs, and says which one failed.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use limiter_lab::poll;

pub use limiter_lab::command::line;

/// How often a program with a time limit is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Runs it to its end with our terminal.
///
/// # Errors
///
/// When it cannot be started, or ends with anything but success.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// Runs it to its end and returns what it printed; its errors go to our stderr.
///
/// # Errors
///
/// When it cannot be started, ends with anything but success, or prints what is not UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed what is not UTF-8", line(command)))
}

/// Whether it succeeds within the time limit; past it, it is killed.
///
/// # Errors
///
/// When it cannot be started.
pub fn succeeds_within(command: &mut Command, limit: Duration) -> Result<bool> {
    let mut child = command.spawn().with_context(|| format!("cannot start {}", line(command)))?;
    let ended = poll::until(limit, POLL, || Ok(child.try_wait()?))?;
    if ended.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(ended.is_some_and(|status| status.success()))
}
