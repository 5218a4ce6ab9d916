// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The file system that a kernel's tests run in.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::{
    archive::Archive,
    kernel::Kernel,
    plan::{self, Plan, Work},
    suite::{self, Suite},
};
use crate::{command, packages};

/// Modules: network namespaces are joined by veth, ss asks two more, the shield meets three, a client has a
/// firewall, and a wire has a delay and loses packets (both ways: at each end its own).
const MODULES: &[&str] =
    &["veth", "inet_diag", "tcp_diag", "bridge", "tun", "8021q", "nf_tables", "sch_netem"];

/// Programs that the tests call, from this machine. What is not among them is busybox's.
const PROGRAMS: &[&str] =
    &["bpftool", "dash", "install", "ip", "nft", "nsenter", "setpriv", "ss", "tc", "unshare"];

/// Directories that are there whatever else is.
const DIRECTORIES: &[&str] = &["/dev", "/proc", "/run", "/sys", "/tmp"];

/// Writes the image for a kernel, and returns where it is. Uncompressed: unpacking would take the emulated
/// machine longer than reading.
///
/// # Errors
///
/// When something that belongs in it cannot be read.
pub fn write(kernel: &Kernel, suite: &Suite, work: &Work) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for path in DIRECTORIES {
        archive.directory(Path::new(path))?;
    }
    for name in PROGRAMS {
        program(&mut archive, name)?;
    }
    busybox(&mut archive)?;
    for path in suite.tests.iter().chain([&suite.limiter]) {
        copy(&mut archive, path, path)?;
    }
    archive.link(Path::new("/usr/bin/limiter"), &suite.limiter)?;
    copy(&mut archive, &suite.init, Path::new("/init"))?;

    let mut modules = Vec::new();
    for module in kernel.modules(MODULES)? {
        let path = format!("/modules/{}.ko", module.name);
        archive.file(Path::new(&path), &module.content)?;
        modules.push(path);
    }
    let plan = Plan { modules, work: work.clone() };
    archive.file(Path::new(plan::PLACE), &serde_json::to_vec(&plan)?)?;

    let image = suite::image(&kernel.release);
    fs::write(&image, archive.finish()?).with_context(|| format!("cannot write {}", image.display()))?;
    Ok(image)
}

/// Adds a program of this machine, and the libraries it is linked with.
fn program(archive: &mut Archive, name: &str) -> Result<()> {
    let path = packages::program(name).with_context(|| format!("cannot find {name}"))?;
    let file = fs::canonicalize(&path)?;
    copy(archive, &file, &file)?;
    let place = Path::new("/usr/bin").join(name);
    if place != file {
        archive.link(&place, &file)?;
    }
    // It fails where there are none.
    let libraries =
        Command::new("ldd").arg(&file).stderr(Stdio::null()).output().context("cannot start ldd")?;
    let libraries = String::from_utf8(libraries.stdout).context("ldd printed what is not UTF-8")?;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
        copy(archive, library, library)?;
    }
    Ok(())
}

/// Adds busybox, under the name of each program it stands for and that is not there.
fn busybox(archive: &mut Archive) -> Result<()> {
    program(archive, "busybox")?;
    for applet in command::output(Command::new("busybox").arg("--list"))?.lines() {
        let place = Path::new("/usr/bin").join(applet);
        if !archive.has(&place) {
            archive.link(&place, Path::new("busybox"))?;
        }
    }
    // As scripts know it. Not busybox: as a shell it prefers what it has itself to the programs above.
    archive.link(Path::new("/bin/sh"), Path::new("/usr/bin/dash"))
}

/// Adds a file of this machine.
fn copy(archive: &mut Archive, from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    archive.file(to, &content)
}
