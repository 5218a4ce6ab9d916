//! `cargo xtask lint`: formatting and lints of every crate, each for the target it is built for.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    build, command,
    compiler::Compiler,
    packages::{self, Package},
    paths,
};

/// Arguments of the verb.
#[derive(Args)]
pub struct Lint {}

impl Lint {
    /// Checks all crates; a warning is an error.
    ///
    /// # Errors
    ///
    /// When there is something to complain about, or a tool is missing and cannot be installed.
    #[expect(clippy::unused_self, reason = "every verb runs the same way")]
    pub fn run(&self) -> Result<()> {
        beside(&paths::cargo(), "rustfmt", "rustfmt", packages::RUSTFMT)?;
        command::run(cargo().args(["fmt", "--all", "--check"]))?;

        // limiter includes the kernel programs.
        build::object()?;
        beside(&paths::cargo(), "cargo-clippy", "clippy", packages::CLIPPY)?;
        let host = ["clippy", "--workspace", "--exclude", "limiter-ebpf", "--all-targets"];
        // xtask as it is built for most verbs, and for the benchmark.
        for features in ["", "xtask/bench"] {
            command::run(cargo().args(host).args(["--features", features, "--", "-Dwarnings"]))?;
        }

        let Compiler { rustc } = build::compiler()?;
        let clippy = beside(&rustc, "clippy-driver", "clippy", packages::CLIPPY)?;
        // What `cargo clippy` does, with the clippy of the compiler that has core for BPF.
        let mut check = build::cargo("check")?;
        check.env("RUSTC_WORKSPACE_WRAPPER", clippy).env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
        command::run(&mut check)
    }
}

/// Our cargo, in the workspace.
fn cargo() -> Command {
    let mut cargo = Command::new(paths::cargo());
    cargo.current_dir(paths::root());
    cargo
}

/// A program of the same toolchain as another; where it is missing, it is installed.
fn beside(program: &Path, name: &str, component: &str, packages: &[Package]) -> Result<PathBuf> {
    let wanted = program.with_file_name(name);
    if wanted.exists() {
        return Ok(wanted);
    }
    if program.starts_with("/usr") {
        packages::ensure(packages)?;
    } else {
        eprintln!("missing: {component}: `cargo xtask lint` runs it");
        let toolchain = program.ancestors().nth(2).and_then(Path::file_name).unwrap_or_default();
        let mut rustup = Command::new("rustup");
        command::run(rustup.args(["component", "add", component, "--toolchain"]).arg(toolchain))
            .with_context(|| format!("install {component} by hand"))?;
    }
    Ok(wanted)
}
