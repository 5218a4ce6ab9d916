//! bpf-linker, which makes the kernel programs from the bitcode that the compiler leaves.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{command, packages, paths};

/// LLVM of the bpf-linker we build: the newest of Debian 12. It reads the bitcode of older ones, not of newer.
const LLVM: u32 = 22;

/// Version of the bpf-linker we build.
const VERSION: &str = "0.13.0";

/// A bpf-linker.
pub struct Linker {
    /// Where it is.
    pub path: PathBuf,
    /// LLVM it was built with: its compiler's must not be newer. None where that is not known.
    pub llvm: Option<u32>,
}

impl Linker {
    /// Our own, built when it is missing; where it cannot be built, the one on PATH.
    ///
    /// # Errors
    ///
    /// When there is none; then the error is what to type.
    pub fn find() -> Result<Self> {
        let folder = paths::tools().join(format!("bpf-linker-{VERSION}-llvm-{LLVM}"));
        let own = Self { path: folder.join("bin/bpf-linker"), llvm: Some(LLVM) };
        if own.path.exists() {
            return Ok(own);
        }
        eprintln!("missing: bpf-linker {VERSION}: makes the kernel programs from what the compiler leaves");
        if let Err(error) = packages::ensure(packages::LINKER) {
            if let Ok(path) = which::which("bpf-linker") {
                eprintln!("using {} (no LLVM to build our own: {error:#})", path.display());
                return Ok(Self { path, llvm: None });
            }
            bail!(
                "{error:#}\nor put a bpf-linker on PATH: cargo install bpf-linker --version {VERSION} --locked"
            );
        }
        let mut install = Command::new(paths::cargo());
        install
            .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--no-default-features"])
            .args(["--features", &format!("llvm-{LLVM}"), "--root"])
            .arg(&folder)
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
            .env_remove("CARGO_TARGET_DIR");
        command::run(&mut install)?;
        Ok(own)
    }
}
