// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where Debian's kernels come from: the releases of Debian that this system reads, and others read beside
//! them, since a release has one or two series of the kernel, and the newest are in none that is stable.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::release::{is_release, newest_of};
use crate::{command, packages};

/// Packages of a kernel are named like this, followed by its release. Each kernel has one.
const KERNEL: &str = "linux-image-";

/// Since 6.19 the former is empty, and what was in it is in these: the kernel, its modules, what is built in.
const PARTS: [&str; 3] = [BINARY, MODULES, "linux-base-"];
const BINARY: &str = "linux-binary-";
const MODULES: &str = "linux-modules-";

/// Releases of Debian that are read beside the system's own: what has 6.1, and what has newer kernels than
/// Debian 13.
const BESIDE: [&str; 3] = ["bookworm", "trixie-backports", "unstable"];

/// What their lists are signed with: the keys that Debian's installation has brought.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The file in our folder that says where they are.
const ENTRIES: &str = "sources.list";

/// Releases of Debian that apt can read.
pub enum Source {
    /// Those that this system reads.
    System,
    /// Those of [`BESIDE`], with a configuration and lists of our own, in this folder: the system's are left
    /// alone, and nobody has to be root.
    Beside(PathBuf),
}

/// The first of the sources that has the kernel, and its release; with their lists brought up to date, if asked.
///
/// # Errors
///
/// When apt cannot be asked.
pub fn find<'a>(sources: &'a [Source], wanted: &str, update: bool) -> Result<Option<(&'a Source, String)>> {
    for source in sources {
        // One that cannot be brought up to date may know the kernel all the same, or the next one may.
        if update && let Err(error) = source.update() {
            eprintln!("{error:#}");
        }
        if let Some(release) = newest_of(source.kernels()?, wanted) {
            return Ok(Some((source, release)));
        }
    }
    Ok(None)
}

impl Source {
    /// The kernels that it has, as far as its lists say.
    ///
    /// # Errors
    ///
    /// When apt cannot be asked.
    pub fn kernels(&self) -> Result<Vec<String>> {
        Ok(whole(self.releases(KERNEL)?, &self.releases(BINARY)?, &self.releases(MODULES)?))
    }

    /// The packages that a kernel consists of.
    ///
    /// # Errors
    ///
    /// When apt cannot be asked.
    pub fn packages_of(&self, release: &str) -> Result<Vec<String>> {
        let is_split = self.releases(BINARY)?.iter().any(|split| split == release);
        let names: &[&str] = if is_split { &PARTS } else { &[KERNEL] };
        Ok(names.iter().map(|name| format!("{name}{release}")).collect())
    }

    /// Fetches packages into a folder.
    ///
    /// # Errors
    ///
    /// When one cannot be fetched.
    pub fn download(&self, packages: &[String], folder: &Path) -> Result<()> {
        let mut apt_get = self.apt("apt-get");
        // apt's own user could not write there.
        apt_get.current_dir(folder).args(["--quiet", "--option=APT::Sandbox::User=root", "download"]);
        command::run(apt_get.args(packages))
    }

    /// Releases of which there is a package that is named like this, as far as the lists say.
    fn releases(&self, prefix: &str) -> Result<Vec<String>> {
        let unknown = matches!(self, Self::Beside(folder) if !configuration(folder).exists());
        if unknown {
            return Ok(Vec::new());
        }
        let names = command::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        let releases = names.lines().filter_map(|name| name.strip_prefix(prefix));
        Ok(releases.filter(|release| is_release(release)).map(str::to_owned).collect())
    }

    /// Brings its lists up to date.
    fn update(&self) -> Result<()> {
        let Self::Beside(folder) = self else { return packages::update() };
        eprintln!(
            "reading what Debian has in {}, with lists kept in {}",
            BESIDE.join(", "),
            folder.display()
        );
        let lines = ["--format=$(REPO_URI) $(RELEASE)", "Created-By: Packages", "Origin: Debian"];
        let own = command::output(Command::new("apt-get").arg("indextargets").args(lines))?;
        let entries =
            entries(&own).context("this system has no Debian release configured, so no mirror is known")?;
        write(&folder.join(ENTRIES), &entries)?;
        write(&configuration(folder), &settings(folder))?;
        command::run(self.apt("apt-get").args(["--quiet", "update"]))
    }

    /// A program of apt, reading these releases.
    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        if let Self::Beside(folder) = self {
            apt.arg("--config-file").arg(configuration(folder));
        }
        apt
    }
}

/// The file that says how apt is to read what is beside the system's own.
fn configuration(folder: &Path) -> PathBuf {
    folder.join("apt.conf")
}

/// The kernels of which everything is there. Packages with a signature outlast those without, so that there may
/// be an old kernel that has lost its modules.
fn whole(kernels: Vec<String>, split: &[String], modules: &[String]) -> Vec<String> {
    let is_whole = |release: &String| !split.contains(release) || modules.contains(release);
    kernels.into_iter().filter(is_whole).collect()
}

/// What apt is to read: [`BESIDE`] without what the system reads itself, from the mirror that it reads them from.
/// `own` has a line for each release that it reads, with the mirror and the release's name.
fn entries(own: &str) -> Option<String> {
    let own: Vec<_> = own.lines().filter_map(|line| line.split_once(' ')).collect();
    // Mirrors of security updates have nothing else.
    let (mirror, _) = own.iter().find(|(_, release)| !release.ends_with("-security"))?;
    let others = BESIDE.iter().filter(|&&beside| own.iter().all(|&(_, release)| release != beside));
    // Of all that apt might fetch only the lists of packages.
    let line = |release| format!("deb [target=Packages signed-by={KEYS}] {mirror} {release} main\n");
    Some(others.map(line).collect())
}

/// How apt is to read it. It reads the system's settings first, so a proxy is known.
fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"Dir::State "{folder}";
Dir::State::status "/dev/null"; // as if nothing were installed
Dir::Cache "{folder}";
Dir::Etc::sourcelist "{folder}/{ENTRIES}";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null"; // which may rule out a release
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root"; // apt's own user could not write here
Acquire::Languages "none";
Acquire::GzipIndexes "true";
// What the system does whenever its own lists have changed.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"#
    )
}

/// Writes a file, in a folder that need not be there.
fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_that_the_system_reads_itself_are_not_read_twice() {
        let own = "http://security.example/debian-security/ bookworm-security\n\
            http://mirror.example/debian/ bookworm\n\
            http://mirror.example/debian/ bookworm-updates\n";
        let entries = entries(own).expect("a mirror");
        let read: Vec<_> = entries.lines().map(|line| line.split("] ").nth(1).expect("a source")).collect();
        assert_eq!(
            read,
            [
                "http://mirror.example/debian/ trixie-backports main",
                "http://mirror.example/debian/ unstable main"
            ]
        );
    }

    #[test]
    fn a_kernel_that_has_lost_its_modules_is_none() {
        let releases = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let split = releases(&["7.0.13", "7.3.4"]);
        let found = whole(releases(&["6.18.15", "7.0.13", "7.3.4"]), &split, &releases(&["7.3.4"]));
        assert_eq!(found, ["6.18.15", "7.3.4"]);
    }

    #[test]
    fn without_a_mirror_of_debian_nothing_is_read() {
        assert_eq!(entries(""), None);
        assert_eq!(entries("http://security.example/debian-security/ bookworm-security\n"), None);
    }
}
