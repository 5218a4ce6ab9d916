// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Tests of the limiter that are built optimised and run for as long as they take, as root, apart from
//! `cargo xtask test`.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use limiter_lab::interrupt;

use crate::{
    artifacts::{self, Executable},
    bpffs, build, command, packages, paths, privilege,
};

/// What was built.
pub struct Optimised(Vec<Executable>);

impl Optimised {
    /// Builds these targets, and what they need.
    ///
    /// # Errors
    ///
    /// When it does not build, or something is missing that cannot be installed.
    pub fn build(targets: &[&str]) -> Result<Self> {
        build::object()?;
        packages::ensure(packages::SOAK)?;
        bpffs::ensure()?;
        let mut cargo = Command::new(paths::cargo());
        cargo.current_dir(paths::root()).args(["test", "--no-run", "--release", "--package", "limiter"]);
        cargo.args(targets.iter().flat_map(|target| ["--test", target]));
        cargo.args(["--message-format", "json-render-diagnostics"]);
        Ok(Self(artifacts::executables(&mut cargo)?))
    }

    /// Runs tests of one of them, with a variable of the environment. They heed Ctrl-C and clear up, which takes some
    /// seconds.
    ///
    /// # Errors
    ///
    /// When it cannot become root, is interrupted, or a test fails.
    pub fn run(&self, target: &str, tests: &[&str], variable: (&str, &str)) -> Result<()> {
        let path = limiter_lab::command::path();
        let path = path.to_str().context("PATH is not UTF-8")?;
        interrupt::hold()?;
        let mut test = privilege::command(self.path(target)?, &[variable, ("PATH", path)])?;
        let outcome = command::run(test.args(tests).arg("--nocapture"));
        interrupt::check()?;
        outcome
    }

    fn path(&self, target: &str) -> Result<&str> {
        let is_it = |path: &Path| {
            let stem = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            stem.strip_prefix(target).is_some_and(|rest| rest.starts_with('-'))
        };
        let found = self.0.iter().find(|built| built.kind == "test" && is_it(&built.path));
        let found = found.with_context(|| format!("cargo built no test {target}"))?;
        found.path.to_str().context("the path of the workspace is not UTF-8")
    }
}
