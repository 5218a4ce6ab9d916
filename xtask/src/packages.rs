//! The Debian packages each verb needs, why, and their installation.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{command, privilege};

/// A Debian package.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    name: &'static str,
    why: &'static str,
    /// Any of these files shows that what it provides is there, from a package or not. Without a slash: a program.
    found_at: &'static [&'static str],
}

/// A compiler with the source of `core`, where rustup has none.
pub const COMPILER: &[Package] = &[
    Package {
        name: "rustc-web",
        why: "a compiler of the same release as the source of core",
        found_at: &["/usr/bin/rustc"],
    },
    Package {
        name: "rust-web-src",
        why: "no core is shipped for the BPF target, so it is built from source",
        found_at: &["/usr/lib/rustlib/src/rust/library/core"],
    },
];

/// What bpf-linker is built with.
pub const LINKER: &[Package] = &[Package {
    name: "llvm-22-dev",
    why: "bpf-linker, which makes the kernel programs from what the compiler leaves, is built on LLVM",
    found_at: &["/usr/lib/llvm-22/include/llvm-c/Core.h"],
}];

/// Installs what is missing, saying what and why.
///
/// # Errors
///
/// When something is missing and cannot be installed; then the error is what to type.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !package.is_there()).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// Whether apt could install them as far as its lists say.
pub fn are_known(packages: &[Package]) -> bool {
    packages.iter().all(|package| {
        let known = Command::new("apt-cache")
            .args(["show", "--no-all-versions", package.name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        known.is_ok_and(|status| status.success())
    })
}

/// Installs them, or brings them to the newest version.
///
/// # Errors
///
/// As [`ensure`].
pub fn install(packages: &[Package]) -> Result<()> {
    for package in packages {
        eprintln!("missing: {}: {}", package.name, package.why);
    }
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    let by_hand = format!("install them by hand: apt-get install {}", names.join(" "));
    if which::which("apt-get").is_err() {
        bail!("there is no apt-get here; install what provides them by hand, on Debian: {}", names.join(" "));
    }
    let mut update = apt_get(&["update"]).with_context(|| format!("neither root nor sudo; {by_hand}"))?;
    let install = || {
        apt_get(&["install", "--yes", "--no-install-recommends"]).map(|mut apt| {
            apt.args(&names);
            apt
        })
    };
    if !are_known(packages) {
        command::run(&mut update).context(by_hand.clone())?;
    }
    let mut first = install().context(by_hand.clone())?;
    if command::run(&mut first).is_err() {
        // The lists may be older than what the mirror still has.
        command::run(&mut update).context(by_hand.clone())?;
        command::run(&mut install().context(by_hand.clone())?).context(by_hand)?;
    }
    if let Some(package) = packages.iter().find(|package| !package.is_there()) {
        bail!("{} is installed, and still none of {:?} is there", package.name, package.found_at);
    }
    Ok(())
}

/// apt-get as root, asking nothing; None where we cannot be root.
fn apt_get(arguments: &[&str]) -> Option<Command> {
    let mut command = privilege::command("apt-get", &[("DEBIAN_FRONTEND", "noninteractive")])?;
    command.arg("--quiet").args(arguments).stdin(Stdio::null());
    Some(command)
}

impl Package {
    /// Whether what it provides is there.
    fn is_there(&self) -> bool {
        self.found_at.iter().any(|place| {
            if place.contains('/') { Path::new(place).exists() } else { program(place).is_some() }
        })
    }
}

/// A program on PATH, or where Debian keeps those of root, which are not on everyone's PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let places = env::join_paths(places).ok()?;
    which::which_in(name, Some(places), "/").ok()
}
