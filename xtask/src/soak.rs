// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask soak`: what takes too long, or too much of a machine, for `cargo xtask test`. A census of a hundred
//! thousand sockets while others connect, then connections by the million that end in every way.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use clap::{Args, value_parser};
use limiter_lab::interrupt;

use crate::{artifacts, bpffs, build, command, packages, paths, privilege};

/// Arguments of the verb.
#[derive(Args)]
pub struct Soak {
    /// Number of connections to open and end
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = value_parser!(u64).range(1..))]
    connections: u64,
}

impl Soak {
    /// Builds, optimised, and runs the census of the target `attack` and the test of the target `churn`, for as
    /// long as it takes.
    ///
    /// # Errors
    ///
    /// When it does not build, cannot become root, is interrupted, or a test fails: a count was wrong.
    pub fn run(&self) -> Result<()> {
        build::object()?;
        packages::ensure(packages::SOAK)?;
        bpffs::ensure()?;
        let mut cargo = Command::new(paths::cargo());
        cargo
            .current_dir(paths::root())
            .args([
                "test",
                "--no-run",
                "--release",
                "--package",
                "limiter",
                "--test",
                "churn",
                "--test",
                "attack",
            ])
            .args(["--message-format", "json-render-diagnostics"]);
        let built = artifacts::executables(&mut cargo)?;
        let named = |name: &str| {
            let is_it = |path: &Path| {
                let stem = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
                stem.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
            };
            let found = built.iter().find(|built| built.kind == "test" && is_it(&built.path));
            let found = found.with_context(|| format!("cargo built no test {name}"))?;
            found.path.to_str().context("the path of the workspace is not UTF-8")
        };
        let path = limiter_lab::command::path();
        let path = path.to_str().context("PATH is not UTF-8")?;
        let connections = self.connections.to_string();
        let variables = [("LIMITER_CHURN_CONNECTIONS", connections.as_str()), ("PATH", path)];
        // They heed Ctrl-C and clear up, which takes some seconds.
        interrupt::hold()?;
        for (test, arguments) in [("attack", ["census::", "--ignored"].as_slice()), ("churn", &[])] {
            let mut test = privilege::command(named(test)?, &variables)?;
            let outcome = command::run(test.args(arguments).arg("--nocapture"));
            interrupt::check()?;
            outcome?;
        }
        Ok(())
    }
}
