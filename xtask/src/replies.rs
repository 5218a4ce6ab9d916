// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask replies`: refused clients by the hundred thousand, each of which has to read the whole line; and what one
//! hears while others attack the greeter; and what a refusal inside TLS costs beside Dovecot's own.

use anyhow::Result;
use clap::{Args, value_parser};

use crate::{optimised::Optimised, packages};

/// Arguments of the verb.
#[derive(Args)]
pub struct Replies {
    /// Number of clients of each kind in plain text; inside TLS, a tenth of it
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u32).range(10..))]
    clients: u32,
}

impl Replies {
    /// Builds, optimised, and runs the tests of the greeter in the target `attack`.
    ///
    /// # Errors
    ///
    /// When it does not build, cannot become root, is interrupted, or a test fails: a client was not told.
    pub fn run(&self) -> Result<()> {
        let tests = Optimised::build(&["attack", "system"])?;
        packages::ensure(packages::TESTS)?;
        let clients = self.clients.to_string();
        let variable = ("LIMITER_REPLIES", clients.as_str());
        tests.run("attack", &["greeter::", "--test-threads=1"], variable)?;
        tests.run("system", &["tls_cost::"], variable)
    }
}
