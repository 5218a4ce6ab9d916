// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask vm`: the kernel tests on the kernels that mail hosts run.
//!
//! Each of Debian's own kernels boots under QEMU, in emulation where there is no KVM, with a file system in
//! memory that holds nothing but what the tests need: the test binaries of `limiter`, all linked statically,
//! the `limiter` they start, the programs they call, and a few modules of that kernel. Init is statically
//! linked as well: it is xtask itself ([`init`]), which sets up what the test binaries take for granted and
//! runs one after the other. A test binary could be init only with a harness of its own, since what is to be
//! set up comes before the first test, and somebody has to reap orphans and power off after the last.

mod archive;
mod debian;
mod image;
mod init;
mod kernel;
mod machine;
mod modules;
mod plan;
mod release;
mod smoke;
mod suite;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

pub use init::Init;

use crate::{build, packages};
use kernel::Kernel;
use plan::Work;
use suite::Suite;

/// Arguments of the verb.
#[derive(Args)]
pub struct Vm {
    /// Debian kernels: a series, such as 7.3, or one release, such as 6.12.117
    #[arg(value_name = "KERNEL", default_values = ["6.1", "6.12", "7.3"])]
    kernels: Vec<String>,
    /// Fetch the newest kernel of each series, even if one is cached
    #[arg(long)]
    newest: bool,
    /// Minutes after which the tests of a kernel count as hung
    #[arg(long, value_name = "MINUTES", default_value = "120")]
    limit: u64,
    /// Run only the smoke tests, and tests whose names are passed on
    #[arg(long)]
    smoke: bool,
    /// Run a shell command instead of the tests
    #[arg(long, value_name = "LINE", conflicts_with_all = ["smoke", "arguments"])]
    shell: Option<String>,
    /// Arguments for the test binaries: parts of test names, and flags
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Vm {
    /// Builds, fetches the kernels, and runs the tests on one after the other.
    ///
    /// # Errors
    ///
    /// When something is missing and cannot be installed, does not compile, or a test fails on any kernel.
    pub fn run(&self) -> Result<()> {
        if !cfg!(target_arch = "x86_64") {
            bail!("only kernels for x86-64 are supported");
        }
        packages::ensure(packages::VM)?;
        let kernels: Vec<_> =
            self.kernels.iter().map(|wanted| Kernel::find(wanted, self.newest)).collect::<Result<_>>()?;
        build::object()?;
        let suite = Suite::build()?;
        let work = self.work(&suite)?;
        let limit = Duration::from_secs(60 * self.limit);
        let mut failures = Vec::new();
        for kernel in &kernels {
            let image = image::write(kernel, &suite, &work)?;
            let start = Instant::now();
            let outcome = machine::run(kernel, &image, limit);
            let seconds = start.elapsed().as_secs();
            match outcome {
                Ok(()) => eprintln!("Linux {}: passed, {seconds} s", kernel.release),
                Err(error) => {
                    eprintln!("Linux {}: {error:#}, {seconds} s", kernel.release);
                    failures.push(kernel.release.as_str());
                }
            }
        }
        if !failures.is_empty() {
            bail!("the tests do not pass on Linux {}", failures.join(" and "));
        }
        Ok(())
    }

    /// What the machines are to do.
    fn work(&self, suite: &Suite) -> Result<Work> {
        if let Some(line) = &self.shell {
            return Ok(Work { programs: vec!["/bin/sh".into()], arguments: vec!["-c".into(), line.clone()] });
        }
        for (tests, why) in suite::LEFT_OUT.iter().chain([&suite::NO_KERNEL]) {
            eprintln!("left out: {tests}: {why}");
        }
        // One test at a time: an emulated machine would keep too many waiting too long.
        let mut arguments = vec!["--test-threads=1"];
        arguments.extend(suite::LEFT_OUT.iter().flat_map(|&(tests, _)| ["--skip", tests]));
        if self.smoke {
            smoke::check(suite)?;
            arguments.extend(smoke::SMOKE);
        }
        arguments.extend(self.arguments.iter().map(String::as_str));
        let programs = suite.tests.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        Ok(Work { programs, arguments: arguments.into_iter().map(str::to_owned).collect() })
    }
}
