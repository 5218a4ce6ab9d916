// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The workspace.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where the kernel programs are compiled. Apart from the host's: other flags, perhaps another compiler.
pub fn bpf_target() -> PathBuf {
    root().join("target/bpf")
}

/// The kernel programs, where `limiter/build.rs` takes them from.
pub fn object() -> PathBuf {
    bpf_target().join("limiter.bpf.o")
}

/// Programs of our own making. Outside `target`, so that `cargo clean` does not cost their build.
pub fn tools() -> PathBuf {
    root().join(".tools")
}

/// What we learned about this machine.
pub fn notes() -> PathBuf {
    root().join("target/xtask")
}

/// Paths of this machine that compilers would write into what they make, and what is to be there instead.
pub fn nowhere() -> impl Iterator<Item = (String, &'static str)> {
    let cargo = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let paths = [Some((root().to_owned(), ".")), cargo.map(|cargo| (cargo, "/cargo"))];
    paths.into_iter().flatten().map(|(from, to)| (from.display().to_string(), to))
}

/// The cargo that runs us.
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// The `limiter` of a profile. It is beside us, whatever target directory cargo was told.
///
/// # Errors
///
/// When the kernel does not tell where we are.
pub fn limiter(profile: &str) -> Result<PathBuf> {
    let xtask = env::current_exe().context("cannot tell where xtask itself is")?;
    let target = xtask.ancestors().nth(2).context("xtask is not in a target directory")?;
    Ok(target.join(profile).join("limiter"))
}
