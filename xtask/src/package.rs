// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask package`: a Debian package of the limiter for this machine's architecture. Its files have the time of the commit,
//! not that of the build.

mod contents;
mod control;
mod libraries;
mod stage;

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use clap::Args;

use self::{
    control::{Release, depends},
    stage::Stage,
};
use crate::{build, command, packages, paths};

/// Arguments of the verb.
#[derive(Args)]
pub struct Package {
    /// Do not have lintian check the package
    #[arg(long)]
    no_lintian: bool,
    /// Pack this limiter instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

impl Package {
    /// Builds limiter optimised, packs it and has lintian look at the package.
    ///
    /// # Errors
    ///
    /// When something to build or pack with is missing and cannot be installed, when it does not compile, or when
    /// lintian complains.
    pub fn run(&self) -> Result<()> {
        packages::ensure(packages::PACKAGE)?;
        let release = release()?;
        let limiter = self.binary.clone().map_or_else(limiter, Ok)?;
        let architecture = command::output(Command::new("dpkg").arg("--print-architecture"))?;
        let architecture = architecture.trim();

        let stage = Stage::new(release.epoch)?;
        stage.install(&limiter, "usr/sbin/limiter", 0o755)?;
        stage.items()?;
        stage.documents()?;
        stage.generated(&limiter)?;
        stage.compressed("usr/share/doc/limiter/libraries", &libraries::text()?)?;
        stage.compressed("usr/share/doc/limiter/changelog.Debian", &release.changelog())?;
        let linked = stage.linked_with()?;
        let linked = depends(&linked).context("dpkg-shlibdeps does not say what limiter is linked with")?;
        let control = release.control(architecture, linked, stage.kibibytes()?);
        stage.control(&control)?;

        let name = format!("limiter_{}_{architecture}.deb", release.debian_version());
        let package = folder().join(name);
        stage.pack(&package)?;
        if !self.no_lintian {
            let mut lintian = Command::new("lintian");
            command::run(lintian.args(["--allow-root", "--fail-on=error,warning"]).arg(&package))?;
        }
        println!("{}", package.display());
        Ok(())
    }
}

/// Where packages are made.
fn folder() -> PathBuf {
    paths::root().join("target/package")
}

/// What the commit says, or the environment in its place, as for other tools that make packages.
fn release() -> Result<Release> {
    let commit = |format: &str| {
        let mut git = Command::new("git");
        git.current_dir(paths::root()).args(["log", "-1"]).arg(format!("--format={format}"));
        Ok::<_, anyhow::Error>(command::output(&mut git)?.trim().to_owned())
    };
    let epoch = env::var("SOURCE_DATE_EPOCH").or_else(|_| commit("%ct"))?;
    let epoch: u64 = epoch.parse().context("SOURCE_DATE_EPOCH is a number of seconds since 1970")?;
    let date = |format: &str| {
        let mut date = Command::new("date");
        date.args(["--utc", &format!("--date=@{epoch}"), format]).env("LC_ALL", "C");
        Ok::<_, anyhow::Error>(command::output(&mut date)?.trim().to_owned())
    };
    let maintainer = match (env::var("DEBFULLNAME"), env::var("DEBEMAIL")) {
        (Ok(name), Ok(address)) => format!("{name} <{address}>"),
        _ => commit("%cn <%ce>")?,
    };
    Ok(Release {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch,
        stamp: date("+%Y%m%d%H%M%S")?,
        date: date("--rfc-email")?,
        maintainer,
    })
}

/// Builds `limiter` without anything of this machine's paths in it.
fn limiter() -> Result<PathBuf> {
    build::object()?;
    let target = folder();
    let mut cargo = Command::new(paths::cargo());
    let remapped: Vec<_> = paths::nowhere().map(|(from, to)| format!("{from}={to}")).collect();
    let rust: Vec<_> = remapped.iter().map(|map| format!("--remap-path-prefix={map}")).collect();
    let mut c: Vec<_> = remapped.iter().map(|map| format!("-ffile-prefix-map={map}")).collect();
    // What Debian compiles C with.
    c.extend(["-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"].map(str::to_owned));
    cargo
        .current_dir(paths::root())
        .args(["build", "--package=limiter", "--release", "--locked", "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", rust.join(build::SEPARATOR))
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CFLAGS", c.join(" "));
    command::run(&mut cargo)?;
    let limiter = target.join("release/limiter");
    fs::metadata(&limiter).with_context(|| format!("cargo has not built {}", limiter.display()))?;
    Ok(limiter)
}
