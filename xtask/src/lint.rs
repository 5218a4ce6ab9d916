// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask lint`: all that can be said of the sources without running them.

mod circles;
mod files;
mod licence;
mod links;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    build, command,
    compiler::Compiler,
    packages::{self, Package},
    paths, sleeping,
    versions::{CARGO_DENY, TYPOS},
};

/// Arguments of the verb.
#[derive(Args)]
pub struct Lint {}

type Step = fn() -> Result<()>;

/// What is checked, the cheap first.
const STEPS: &[(&str, Step)] = &[
    ("formatting", formatting),
    ("spelling", spelling),
    ("licence of each source file", licence),
    ("no test sleeps", sleeping::check),
    ("no files import each other in a circle", circles),
    ("links of the documents", links),
    ("shell scripts", shell),
    ("licences and origin of the libraries", libraries),
    ("the daemon and xtask", host),
    ("the kernel programs", kernel),
    ("links of the code's documentation", documentation),
];

impl Lint {
    /// Checks all; a warning is an error.
    ///
    /// # Errors
    ///
    /// When there is something to complain about, or a tool is missing and cannot be installed.
    #[expect(clippy::unused_self, reason = "every verb runs the same way")]
    pub fn run(&self) -> Result<()> {
        for (what, step) in STEPS {
            let start = Instant::now();
            step().with_context(|| format!("lint: {what}"))?;
            eprintln!("lint: {what}: ok ({:.1} s)", start.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

fn formatting() -> Result<()> {
    beside(&paths::cargo(), "rustfmt", "rustfmt", packages::RUSTFMT)?;
    command::run(cargo().args(["fmt", "--all", "--check"]))
}

/// What is none of ours to spell is in `typos.toml`.
fn spelling() -> Result<()> {
    let mut typos = Command::new(TYPOS.ensure()?);
    command::run(typos.current_dir(paths::root()).args(["--format", "brief", ".", ".ci"]))
}

fn licence() -> Result<()> {
    licence::check(&files::all()?, paths::root())
}

fn circles() -> Result<()> {
    circles::check(&files::all()?, paths::root())
}

fn links() -> Result<()> {
    links::check(&files::all()?, paths::root())
}

fn shell() -> Result<()> {
    packages::ensure(packages::SHELLCHECK)?;
    let mut shellcheck = Command::new("shellcheck");
    command::run(shellcheck.args(files::all()?.iter().filter(|file| is_shell(file))))
}

/// By its name, or by its first line.
fn is_shell(file: &Path) -> bool {
    let first = || fs::read_to_string(file).ok()?.lines().next().map(str::to_owned);
    let runs_shell = |line: String| line.starts_with("#!") && line.ends_with("sh");
    file.extension().map_or_else(|| first().is_some_and(runs_shell), |extension| extension == "sh")
}

/// What is allowed is in `deny.toml`.
fn libraries() -> Result<()> {
    let mut deny = Command::new(CARGO_DENY.ensure()?);
    deny.current_dir(paths::root())
        .args(["--all-features", "--locked", "check", "--hide-inclusion-graph"])
        // Known holes are in a repository that not every machine reaches.
        .args(["bans", "licenses", "sources"]);
    command::run(&mut deny)
}

fn host() -> Result<()> {
    // limiter includes the kernel programs.
    build::object()?;
    beside(&paths::cargo(), "cargo-clippy", "clippy", packages::CLIPPY)?;
    let all = ["clippy", "--workspace", "--exclude", "limiter-ebpf", "--all-targets"];
    // xtask as it is built for most verbs, and for the benchmark.
    for features in ["", "xtask/bench"] {
        command::run(cargo().args(all).args(["--features", features, "--", "-Dwarnings"]))?;
    }
    Ok(())
}

fn kernel() -> Result<()> {
    let Compiler { rustc } = build::compiler()?;
    let clippy = beside(&rustc, "clippy-driver", "clippy", packages::CLIPPY)?;
    // What `cargo clippy` does, with the clippy of the compiler that has core for BPF.
    let mut check = build::cargo("check")?;
    check.env("RUSTC_WORKSPACE_WRAPPER", clippy).env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
    command::run(&mut check)
}

fn documentation() -> Result<()> {
    let private = ["--no-deps", "--document-private-items"];
    let host =
        ["doc", "--workspace", "--exclude", "limiter-ebpf", "--features", "xtask/bench,limiter-lab/maps"];
    command::run(cargo().args(host).args(private).env("RUSTDOCFLAGS", "-Dwarnings"))?;
    let Compiler { rustc } = build::compiler()?;
    let mut kernel = build::cargo("doc")?;
    // That of the same toolchain: another does not read what this compiler has made of core.
    kernel.env("RUSTDOC", rustc.with_file_name("rustdoc"));
    command::run(kernel.args(private).env("RUSTDOCFLAGS", "-Dwarnings"))
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
            .with_context(|| format!("install {component}"))?;
    }
    Ok(wanted)
}
