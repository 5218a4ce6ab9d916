// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask build`: the kernel programs, and the `limiter` that carries them.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{command, compiler::Compiler, linker::Linker, paths};

/// The BPF target of this machine's byte order.
const TARGET: &str = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`, where they may hold spaces.
pub const SEPARATOR: &str = "\x1f";

/// Arguments of the verb.
#[derive(Args)]
pub struct Build {
    /// Build optimised (the default)
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Build limiter unoptimised; the verifier needs optimised kernel programs, so these stay optimised
    #[arg(long)]
    debug: bool,
}

impl Build {
    /// Builds both.
    ///
    /// # Errors
    ///
    /// When something to build with is missing and cannot be installed, or does not compile.
    pub fn run(&self) -> Result<()> {
        object()?;
        limiter(!self.debug)
    }
}

/// Builds `limiter` for this machine.
///
/// # Errors
///
/// When it does not compile.
pub fn limiter(release: bool) -> Result<()> {
    let mut cargo = Command::new(paths::cargo());
    cargo.current_dir(paths::root()).args(["build", "--package", "limiter"]);
    if release {
        cargo.arg("--release");
    }
    command::run(&mut cargo)
}

/// Builds the kernel programs and puts them where `limiter/build.rs` finds them.
///
/// # Errors
///
/// As [`Build::run`].
pub fn object() -> Result<()> {
    command::run(&mut cargo("build")?)?;
    let built = built("limiter");
    let built = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = paths::object();
    // Left alone when nothing changed, so that cargo does not build limiter again.
    if fs::read(&object).is_ok_and(|present| present == built) {
        return Ok(());
    }
    let new = object.with_extension("new");
    fs::write(&new, built).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &object).with_context(|| format!("cannot write {}", object.display()))
}

/// Programs that do nothing, built along with [`object`].
#[cfg(feature = "bench")]
pub fn empty_object() -> PathBuf {
    built("empty")
}

/// Where cargo leaves kernel programs.
fn built(name: &str) -> PathBuf {
    paths::bpf_target().join(TARGET).join("release").join(name)
}

/// The compiler of the kernel programs.
///
/// # Errors
///
/// When it is missing and cannot be installed.
pub fn compiler() -> Result<Compiler> {
    Compiler::find(&Linker::find()?)
}

/// A cargo that builds, or checks, the kernel programs for the BPF target.
///
/// # Errors
///
/// When something to build with is missing and cannot be installed.
pub fn cargo(verb: &str) -> Result<Command> {
    let linker = Linker::find()?;
    let compiler = Compiler::find(&linker)?;
    let flags = [
        // What aya-ebpf needs to know of the host: `pt_regs` differ.
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        "-Cdebuginfo=2".into(), // from which bpf-linker makes BTF
        "-Clink-arg=--btf".into(),
        "-Ctarget-cpu=v3".into(), // atomics that return a value, and 32-bit operations: kernel 5.12
        format!("-Clinker={}", linker.path.display()),
    ];
    let mut cargo = Command::new(paths::cargo());
    cargo
        .current_dir(paths::root())
        .args([verb, "--package", "limiter-ebpf", "--release", "-Zbuild-std=core", "--target", TARGET])
        .arg("--target-dir")
        .arg(paths::bpf_target())
        .env("RUSTC", compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR))
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    Ok(cargo)
}
