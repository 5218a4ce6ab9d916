// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A compiler that can build `core` for the BPF target.
//!
//! No toolchain ships `core` for BPF, so it is built from source, which takes the source of the very same
//! release. Any release will do, stable too: `RUSTC_BOOTSTRAP=1` unlocks what is needed for that, and
//! `core_intrinsics`, without which a BPF program has no atomic step that returns a value.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{command, linker::Linker, packages, paths, versions::OLDEST_RUST};

/// How long rustup may take to fetch the source of `core` (3 MB).
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// Debian's compiler.
const DEBIAN: &str = "/usr/bin/rustc";

/// A compiler that has the source of its `core`.
pub struct Compiler {
    /// Where it is.
    pub rustc: PathBuf,
}

impl Compiler {
    /// The one that runs us, else rustup's nightly, else Debian's: the first that has the source of `core`.
    /// Where none has, rustup is asked for the source, once; where it gives none, Debian's pair is installed.
    ///
    /// # Errors
    ///
    /// When there is none; then the error is what to type.
    pub fn find(linker: &Linker) -> Result<Self> {
        let active = active();
        let nightly = active.as_deref().and_then(nightly);
        let present = [active.clone(), nightly, Some(PathBuf::from(DEBIAN))];
        if let Some(rustc) = present.into_iter().flatten().find(|rustc| serves(rustc, linker)) {
            return Ok(Self { rustc });
        }
        if let Some(rustc) = active.filter(|rustc| release(rustc).is_ok_and(|release| release.suits(linker)))
            && ask_rustup()?
            && serves(&rustc, linker)
        {
            return Ok(Self { rustc });
        }
        packages::install(packages::COMPILER)
            .context("or add the source to the toolchain: rustup component add rust-src")?;
        let rustc = PathBuf::from(DEBIAN);
        if !serves(&rustc, linker) {
            bail!("{DEBIAN} does not match its source, or its LLVM is newer than bpf-linker's");
        }
        Ok(Self { rustc })
    }
}

/// The compiler beside the cargo that runs us: not rustup's proxy, so asking it is cheap.
fn active() -> Option<PathBuf> {
    let rustc = paths::cargo().with_file_name("rustc");
    if rustc.exists() { Some(rustc) } else { which::which("rustc").ok() }
}

/// rustup's nightly, when `rustc` is another of rustup's. Not through rustup, which might install it.
fn nightly(rustc: &Path) -> Option<PathBuf> {
    let toolchains = rustc.ancestors().nth(3).filter(|folder| folder.ends_with("toolchains"))?;
    let mut folders = fs::read_dir(toolchains).ok()?.flatten().map(|entry| entry.path());
    folders.find(|folder| is_nightly(folder)).map(|folder| folder.join("bin/rustc"))
}

/// Whether this is the folder of the toolchain `nightly-<host>`, not of a dated one.
fn is_nightly(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix("nightly-").is_some_and(|host| !host.starts_with(|first: char| first.is_ascii_digit()))
}

/// Whether it has the source of its `core`, and fits bpf-linker.
fn serves(rustc: &Path, linker: &Linker) -> bool {
    let source = rustc.ancestors().nth(2).map(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core"));
    source.is_some_and(|source| source.exists()) && release(rustc).is_ok_and(|release| release.suits(linker))
}

/// What a compiler says of itself.
struct Release {
    /// Minor version of 1.x.
    minor: u32,
    /// Major version of its LLVM.
    llvm: u32,
}

impl Release {
    fn suits(&self, linker: &Linker) -> bool {
        self.minor >= OLDEST_RUST && linker.llvm.is_none_or(|llvm| self.llvm <= llvm)
    }
}

/// Asks a compiler for its version.
fn release(rustc: &Path) -> Result<Release> {
    let version = command::output(Command::new(rustc).arg("-vV"))?;
    parse(&version).with_context(|| format!("{} -vV prints neither release nor LLVM", rustc.display()))
}

/// Reads the output of `rustc -vV`.
fn parse(version: &str) -> Option<Release> {
    let value = |key| version.lines().find_map(|line| line.strip_prefix(key));
    let minor = value("release: 1.")?.split('.').next()?.parse().ok()?;
    let llvm = value("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some(Release { minor, llvm })
}

/// Asks rustup for the source of the active toolchain, once: a machine on which it does not answer is not
/// kept waiting for it at each build.
fn ask_rustup() -> Result<bool> {
    let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") else { return Ok(false) };
    let note = paths::notes().join(format!("no-rust-src-{}", toolchain.to_string_lossy()));
    if note.exists() || which::which("rustup").is_err() {
        return Ok(false);
    }
    eprintln!("missing: rust-src: needed to build core for the BPF target from source");
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rust-src", "--toolchain"]).arg(&toolchain);
    let answered = command::succeeds_within(&mut rustup, RUSTUP_LIMIT)?;
    if !answered {
        fs::create_dir_all(paths::notes())?;
        fs::write(&note, "rustup gave no rust-src; delete this file to ask it again\n")?;
    }
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_newer_than_the_linker_does_not_suit() {
        let version = "rustc 1.96.0\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let release = parse(version).expect("it says both");
        let linker = |llvm| Linker { path: PathBuf::new(), llvm };
        assert!(release.suits(&linker(Some(22))));
        assert!(release.suits(&linker(None)));
        assert!(!release.suits(&linker(Some(21))));
    }

    #[test]
    fn a_dated_nightly_is_not_the_nightly() {
        assert!(is_nightly(Path::new("toolchains/nightly-x86_64-unknown-linux-gnu")));
        assert!(!is_nightly(Path::new("toolchains/nightly-2025-01-01-x86_64-unknown-linux-gnu")));
        assert!(!is_nightly(Path::new("toolchains/stable-x86_64-unknown-linux-gnu")));
    }
}
