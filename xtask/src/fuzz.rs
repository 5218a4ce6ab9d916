// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask fuzz`: the configuration's parser, with texts that nobody would write.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, value_parser};

use crate::{artifacts, build, command, paths};

/// The test that makes them.
const TEST: &str = "config::tests::fuzz::no_text_whatever_confuses_the_parser";

/// Arguments of the verb.
#[derive(Args)]
pub struct Fuzz {
    /// How long to run
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,

    /// Seed; the same number generates the same texts
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl Fuzz {
    /// Builds, optimised and with every check that a test has, and runs it.
    ///
    /// # Errors
    ///
    /// When it does not build, or a text confuses the parser; the text is shown.
    pub fn run(&self) -> Result<()> {
        // limiter includes the kernel programs.
        build::object()?;
        let mut cargo = Command::new(paths::cargo());
        cargo
            .current_dir(paths::root())
            .args(["test", "--no-run", "--release", "--package", "limiter", "--bin", "limiter"])
            .args(["--config", "profile.release.debug-assertions=true"])
            .args([
                "--config",
                "profile.release.overflow-checks=true",
                "--config",
                "profile.release.lto=false",
            ])
            .args(["--message-format", "json-render-diagnostics"]);
        let built = artifacts::executables(&mut cargo)?;
        let test = built.first().context("cargo built no test")?;
        command::run(
            Command::new(&test.path)
                .args(["--exact", TEST, "--nocapture"])
                .env("LIMITER_FUZZ_SECONDS", self.seconds.to_string())
                .env("LIMITER_FUZZ_SEED", self.seed.to_string()),
        )
    }
}
