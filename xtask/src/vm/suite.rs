// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The tests that run on other kernels, and the `limiter` they start, linked statically.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    artifacts::{self, Executable},
    command, paths,
};

/// Tests that need more than a kernel: parts of their names, and what they need.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("real_software::", "talks to Postfix, Exim and Dovecot, with swaks and Python"),
    ("pains::", "has Postfix and Dovecot behind it"),
    ("dovecot", "talks to Dovecot"),
    ("of_a_cgroup", "its server is Python's"),
    ("cgroups::", "its server is Python's"),
    ("peers::", "compares with nftables and iptables, not with the limiter on another kernel"),
    ("tls_cost::", "compares with Dovecot"),
    // For these any kernel does.
    ("bad_input::", "is about what the command line understands"),
    ("malformed::", "is about files"),
    ("messages::", "is about words"),
    ("words::", "is about words"),
    ("log::", "is about words"),
    ("kept_bans::", "is about files"),
    ("locks::", "is about files"),
    ("reload::", "is about the configuration file"),
    ("save::", "is about the configuration file"),
    ("steps::", "is about commands at the same moment"),
    ("instances::", "is about names"),
];

/// A test binary for which any kernel does: its name, and why.
pub const NO_KERNEL: (&str, &str) =
    ("import", "reads what mail daemons print about themselves, and asks nothing of the kernel");

/// The only one that can be linked statically with a toolchain as it comes.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What was built.
pub struct Suite {
    /// The binaries of limiter's integration tests.
    pub tests: Vec<PathBuf>,
    /// The `limiter` they start, at the path by which they know it.
    pub limiter: PathBuf,
    /// xtask, which is init.
    pub init: PathBuf,
}

impl Suite {
    /// Builds them.
    ///
    /// # Errors
    ///
    /// When they do not compile.
    pub fn build() -> Result<Self> {
        let tests =
            artifacts::executables(cargo("test").args(["--no-run", "--package", "limiter", "--test", "*"]))?;
        let init = artifacts::executables(cargo("build").args(["--package", "xtask"]))?;
        let of_kind = |found: &[Executable], kind: &str| -> Vec<PathBuf> {
            let wanted = |found: &&Executable| found.kind == kind && found.name != NO_KERNEL.0;
            found.iter().filter(wanted).map(|found| found.path.clone()).collect()
        };
        Ok(Self {
            limiter: of_kind(&tests, "bin").pop().context("cargo built no limiter")?,
            init: of_kind(&init, "bin").pop().context("cargo built no xtask")?,
            tests: of_kind(&tests, "test"),
        })
    }

    /// The names of all tests, as libtest filters them.
    ///
    /// # Errors
    ///
    /// When a test binary does not list its tests.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for test in &self.tests {
            let list = command::output(Command::new(test).args(["--list", "--format=terse"]))?;
            names.extend(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned));
        }
        Ok(names)
    }
}

/// The place of what is linked statically: cargo would build all again at each change of the flags.
fn target_folder() -> PathBuf {
    paths::root().join("target/vm")
}

/// Where the image of a kernel's file system goes.
pub fn image(release: &str) -> PathBuf {
    target_folder().join(format!("{release}.cpio"))
}

/// A cargo that links statically.
fn cargo(verb: &str) -> Command {
    let mut cargo = Command::new(paths::cargo());
    cargo
        .current_dir(paths::root())
        // With a target named, the flags are not for build scripts and macros.
        .args([verb, "--target", TARGET, "--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(target_folder())
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // An emulated machine is slow, and its memory is its disk.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    cargo
}
