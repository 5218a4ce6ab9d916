// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask run`: the `limiter` just built, as root, in the foreground.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{bpffs, build, command, paths, privilege};

/// Arguments of the verb.
#[derive(Args)]
pub struct Run {
    /// Arguments for `limiter run`
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Run {
    /// Builds, and becomes `limiter run`.
    ///
    /// # Errors
    ///
    /// When it does not build, or cannot be started as root.
    pub fn run(&self) -> Result<()> {
        build::object()?;
        build::limiter(true)?;
        bpffs::ensure()?;
        let limiter = paths::limiter("release")?;
        let limiter = limiter.to_str().context("the path of the workspace is not UTF-8")?;
        let mut limiter = privilege::command(limiter, &[])?;
        limiter.arg("run").args(&self.arguments);
        // Signals go to the limiter alone, and its exit code is ours.
        let error = limiter.exec();
        bail!("cannot start {}: {error}", command::line(&limiter))
    }
}
