// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask soak`: what takes too long, or too much of a machine, for `cargo xtask test`. A census of a hundred
//! thousand sockets while others connect, then connections by the million that end in every way.

use anyhow::Result;
use clap::{Args, value_parser};

use crate::optimised::Optimised;

/// Arguments of the verb.
#[derive(Args)]
pub struct Soak {
    /// Number of connections to open and end
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = value_parser!(u64).range(1..))]
    connections: u64,
}

impl Soak {
    /// Builds, optimised, and runs the census of the target `attack`, the slow causes of the target `system`, and the test
    /// of the target `churn`, for as long as it takes.
    ///
    /// # Errors
    ///
    /// When it does not build, cannot become root, is interrupted, or a test fails: a count was wrong.
    pub fn run(&self) -> Result<()> {
        let tests = Optimised::build(&["churn", "attack", "system"])?;
        let connections = self.connections.to_string();
        let variable = ("LIMITER_CHURN_CONNECTIONS", connections.as_str());
        tests.run("attack", &["census::", "--ignored"], variable)?;
        tests.run("system", &["causes::", "--ignored"], variable)?;
        tests.run("churn", &[], variable)
    }
}
