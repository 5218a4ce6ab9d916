// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! bpf-linker, which makes the kernel programs from the bitcode that the compiler leaves.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{
    command, packages, paths,
    versions::{BPF_LINKER, LLVM},
};

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
        let folder = paths::tools().join(format!("bpf-linker-{BPF_LINKER}-llvm-{LLVM}"));
        let own = Self { path: folder.join("bin/bpf-linker"), llvm: Some(LLVM) };
        if own.path.exists() {
            return Ok(own);
        }
        eprintln!("missing: bpf-linker {BPF_LINKER}: links the kernel programs");
        if let Err(error) = packages::ensure(packages::LINKER) {
            if let Ok(path) = which::which("bpf-linker") {
                eprintln!("using {} (no LLVM to build our own: {error:#})", path.display());
                return Ok(Self { path, llvm: None });
            }
            bail!(
                "{error:#}\nor put a bpf-linker on PATH: cargo install bpf-linker --version {BPF_LINKER} --locked"
            );
        }
        let mut install = Command::new(paths::cargo());
        install
            .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--no-default-features"])
            .args(["--features", &format!("llvm-{LLVM}"), "--root"])
            .arg(&folder)
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
            .env_remove("CARGO_TARGET_DIR");
        command::run(&mut install)?;
        Ok(own)
    }
}
