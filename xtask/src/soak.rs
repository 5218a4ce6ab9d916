//! `cargo xtask soak`: connections by the million, that end in every way.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, value_parser};

use crate::{artifacts, bpffs, build, command, interrupt, packages, paths, privilege};

/// Arguments of the verb.
#[derive(Args)]
pub struct Soak {
    /// How many connections have to end
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = value_parser!(u64).range(1..))]
    connections: u64,
}

impl Soak {
    /// Builds, optimised, and runs the test of the target `churn`, for as long as it takes.
    ///
    /// # Errors
    ///
    /// When it does not build, cannot become root, is interrupted, or a count was wrong.
    pub fn run(&self) -> Result<()> {
        build::object()?;
        packages::ensure(packages::SOAK)?;
        bpffs::ensure()?;
        let mut cargo = Command::new(paths::cargo());
        cargo
            .current_dir(paths::root())
            .args(["test", "--no-run", "--release", "--package", "limiter", "--test", "churn"])
            .args(["--message-format", "json-render-diagnostics"]);
        let built = artifacts::executables(&mut cargo)?;
        let churn = built.iter().find(|built| built.kind == "test").context("cargo built no test")?;
        let churn = churn.path.to_str().context("the path of the workspace is not UTF-8")?;
        let path = packages::path();
        let path = path.to_str().context("PATH is not UTF-8")?;
        let connections = self.connections.to_string();
        let variables = [("LIMITER_CHURN_CONNECTIONS", connections.as_str()), ("PATH", path)];
        // It heeds Ctrl-C and clears up, which takes some seconds.
        interrupt::hold()?;
        let outcome = command::run(privilege::command(churn, &variables)?.arg("--nocapture"));
        interrupt::check()?;
        outcome
    }
}
