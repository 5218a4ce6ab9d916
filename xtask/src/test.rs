// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask test`: every test, with the mail software they talk to.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::{bpffs, build, command, packages, paths, privilege, unpacked::EXIM};

/// Arguments of the verb.
#[derive(Args)]
pub struct Test {
    /// Fail a test that would be skipped: without root, or without a program or file system that it needs. A feature that
    /// the kernel configuration lacks may still skip it
    #[arg(long)]
    no_skips: bool,
    /// Arguments for `cargo test`
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Test {
    /// Builds, installs what the tests talk to, and runs them.
    ///
    /// # Errors
    ///
    /// When something is missing and cannot be installed, does not compile, or fails.
    pub fn run(&self) -> Result<()> {
        let has_sudo = which::which("sudo").is_ok();
        if self.no_skips && !privilege::is_root() && !has_sudo {
            bail!("sudo is missing: run as root, or the tests that load the kernel programs cannot run");
        }
        build::object()?;
        packages::ensure(packages::TESTS)?;
        EXIM.ensure("the mail server whose queue meets a limit in the tests")?;
        let mut cargo = Command::new(paths::cargo());
        cargo
            .current_dir(paths::root())
            // The kernel programs have no tests of their own; limiter's load them.
            .args(["test", "--workspace", "--exclude", "limiter-ebpf", "--features", "xtask/bench"])
            .env("PATH", limiter_lab::command::path());
        if self.no_skips {
            cargo.env(limiter_lab::skip::NO_SKIPS, "1");
        }
        if privilege::is_root() || has_sudo {
            bpffs::ensure()?;
        }
        if !privilege::is_root() {
            if has_sudo {
                cargo.args(["--config", "target.'cfg(unix)'.runner = ['sudo', '--preserve-env']"]);
            } else {
                eprintln!("NOT ROOT, and no sudo: the tests that load the kernel programs will be SKIPPED");
            }
        }
        command::run(cargo.args(&self.arguments))
    }
}
