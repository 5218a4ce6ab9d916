// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Debian's kernels: fetched from its packages once, and kept outside of the repository.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result, bail};

use super::{
    debian::{self, Source},
    modules::{self, Module},
    release::{newest_of, numbers},
};
use crate::command;

/// A kernel that was fetched.
pub struct Kernel {
    /// What `uname -r` says.
    pub release: String,
    /// Its packages, unpacked.
    folder: PathBuf,
}

impl Kernel {
    /// The newest of a series, or of a release, that was fetched before; fetched now where none was, or where
    /// the newest of all is asked for. This system's own releases of Debian come before those that are read
    /// beside them.
    ///
    /// # Errors
    ///
    /// When Debian has no such kernel, or it cannot be fetched.
    pub fn find(wanted: &str, newest: bool) -> Result<Self> {
        let cache = cache()?;
        let kernels = cache.join("kernels");
        if !newest {
            let entries = fs::read_dir(&kernels).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            if let Some(release) = newest_of(names, wanted) {
                return Ok(Self { folder: kernels.join(&release), release });
            }
        }
        let sources = [Source::System, Source::Beside(cache.join("apt"))];
        // Lists that are there will do, unless they name what the mirror no longer has.
        if !newest && let Some((source, release)) = debian::find(&sources, wanted, false)? {
            match Self::fetch(&kernels, source, &release) {
                Ok(kernel) => return Ok(kernel),
                Err(error) => eprintln!("{error:#}; perhaps with newer lists of packages:"),
            }
        }
        let Some((source, release)) = debian::find(&sources, wanted, true)? else {
            let releases = sources.iter().filter_map(|source| source.kernels().ok()).flatten();
            let mut releases: Vec<_> = releases.collect();
            releases.sort_by_key(|release| numbers(release));
            bail!("apt knows no kernel {wanted} of Debian; it has {}", releases.join(", "));
        };
        Self::fetch(&kernels, source, &release)
    }

    /// The kernel itself.
    ///
    /// # Errors
    ///
    /// When it is in none of the paths where Debian has had it.
    pub fn image(&self) -> Result<PathBuf> {
        let (_, modules) = modules::folder(&self.folder, &self.release)?;
        // Beside the modules since 7.1; without a signature where Debian has not signed it yet.
        let mut paths = [
            self.folder.join("boot").join(format!("vmlinuz-{}", self.release)),
            modules.join("vmlinuz"),
            modules.join("vmlinuz.unsigned"),
        ]
        .into_iter();
        paths
            .find(|place| place.is_file())
            .with_context(|| format!("{} has no kernel in it", self.folder.display()))
    }

    /// Files with these modules, uncompressed: each after those it depends on.
    ///
    /// # Errors
    ///
    /// When it has no such module, not built in either.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        modules::read(&self.folder, &self.release, wanted)
    }

    /// Fetches it into a folder: whole, or not at all.
    fn fetch(kernels: &Path, source: &Source, release: &str) -> Result<Self> {
        let kernel = Self { release: release.to_owned(), folder: kernels.join(release) };
        if kernel.folder.exists() {
            return Ok(kernel);
        }
        let packages = source.packages_of(release)?;
        for package in &packages {
            eprintln!("missing: {package}: of a kernel that the tests run on; kept in {}", kernels.display());
        }
        let new = kernels.join(format!("new-{}", process::id()));
        fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
        let fetched = unpack(source, &packages, &new).and_then(|()| find_dependencies(&new, release));
        if fetched.is_ok() {
            fs::rename(&new, &kernel.folder).with_context(|| format!("cannot keep Linux {release}"))?;
        } else {
            // The error that counts is the one before.
            let _ = fs::remove_dir_all(&new);
        }
        fetched.map(|()| kernel)
    }
}

/// Fetches packages and unpacks them into a folder, which is empty.
fn unpack(source: &Source, packages: &[String], folder: &Path) -> Result<()> {
    source.download(packages, folder)?;
    let files = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    for file in files {
        let file = file.path();
        command::run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(folder))?;
        fs::remove_file(&file)?;
    }
    Ok(())
}

/// Debian's packages leave it to the installation to find out which module depends on which.
fn find_dependencies(unpacked: &Path, release: &str) -> Result<()> {
    let (base, _) = modules::folder(unpacked, release)?;
    command::run(Command::new("busybox").args(["depmod", "-b"]).arg(base).arg(release))
}

/// Where what was fetched is kept.
fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    Ok(base.context("no home directory to keep kernels in")?.join("limiter"))
}
