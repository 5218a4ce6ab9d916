// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask bench`: the limiter against everything a mail host could use instead.
//!
//! Each contestant has a network namespace of its own, on a wire to the one of the clients, and all of them
//! are up all the time, so that the rounds can alternate between them without a break. The numbers that say
//! most are the ratios within a round: what else the machine does hits both sides of them alike.
//!
//! What this needs and no other verb does is behind the feature `bench`; the verb builds itself again with
//! it, optimised, since a client that is slow measures itself.
#![cfg_attr(
    feature = "bench",
    expect(clippy::cast_precision_loss, reason = "what is measured is far from exact to 52 bits")
)]

#[cfg(feature = "bench")]
mod bulk;
#[cfg(feature = "bench")]
mod cell;
#[cfg(feature = "bench")]
mod flood;
#[cfg(feature = "bench")]
mod hold;
#[cfg(feature = "bench")]
mod hosts;
#[cfg(feature = "bench")]
mod lab;
#[cfg(feature = "bench")]
mod load;
#[cfg(feature = "bench")]
mod machine;
#[cfg(feature = "bench")]
mod outcome;
#[cfg(feature = "bench")]
mod plan;
#[cfg(feature = "bench")]
mod prepare;
#[cfg(feature = "bench")]
mod programs;
#[cfg(feature = "bench")]
mod report;
#[cfg(feature = "bench")]
mod rounds;
#[cfg(feature = "bench")]
mod server;
#[cfg(feature = "bench")]
mod statistics;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

#[cfg(feature = "bench")]
pub use {hold::Hold, server::Server};

/// Arguments of the verb.
#[derive(Args)]
pub struct Bench {
    /// Finish within three minutes: fewer and shorter rounds, at most 8,000 held connections
    #[arg(long)]
    quick: bool,
    /// Run only this contestant, this workload, or this contestant at this workload; may be repeated
    #[arg(long, value_name = "CONTESTANT/WORKLOAD")]
    only: Vec<String>,
    /// Also measure this other build of limiter, as limiter-other
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Write the tables to docs/performance.md
    #[arg(long)]
    write: bool,
    /// Skip the build; set when xtask restarts itself as root
    #[arg(long, hide = true)]
    built: bool,
}

#[cfg(not(feature = "bench"))]
impl Bench {
    /// Builds the verb with what it needs, and runs it.
    ///
    /// # Errors
    ///
    /// When it does not build, or fails.
    pub fn run(&self) -> Result<()> {
        use std::{os::unix::process::CommandExt as _, process::Command};

        use crate::{command, paths};

        let mut cargo = Command::new(paths::cargo());
        cargo.current_dir(paths::root()).args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "xtask",
            "--features",
            "bench",
            "--",
        ]);
        // Signals go to the measuring process alone, and its exit code is ours.
        let error = cargo.arg("bench").args(self.arguments()).exec();
        anyhow::bail!("cannot start {}: {error}", command::line(&cargo))
    }
}

impl Bench {
    /// What was typed, again.
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        arguments.extend(self.quick.then(|| "--quick".into()));
        arguments.extend(self.write.then(|| "--write".into()));
        // The process that measures is started in another directory.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        arguments.extend(self.against.iter().map(|other| format!("--against={}", absolute(other).display())));
        arguments.extend(self.only.iter().map(|only| format!("--only={only}")));
        arguments
    }
}

#[cfg(feature = "bench")]
impl Bench {
    /// Builds, measures and reports.
    ///
    /// # Errors
    ///
    /// When it does not build, cannot become root, is interrupted, or a contestant does not do what it
    /// should.
    pub fn run(&self) -> Result<()> {
        use limiter_lab::interrupt;

        use crate::{bpffs, build, packages, privilege, unpacked};

        let plan = plan::Plan::new(self.quick, &self.only, self.against.is_some())?;
        if !self.built {
            build::object()?;
            build::limiter(true)?;
            packages::ensure(packages::BENCH)?;
            if plan.needs(plan::Contestant::Exim) {
                unpacked::EXIM.ensure("a mail server with limits, for comparison")?;
            }
            bpffs::ensure()?;
        }
        if !privilege::is_root() {
            return privilege::again();
        }
        // Before there is anything to leave behind.
        interrupt::hold()?;
        let command = [vec!["cargo xtask bench".to_owned()], self.arguments()].concat().join(" ");
        let report = rounds::run(&plan, self.against.as_deref(), command)?;
        report.show()?;
        report.save()?;
        if self.write { report.write() } else { Ok(()) }
    }
}
