// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Mail servers that cannot be installed beside Postfix: Debian lets a host have one. Their packages are unpacked
//! into a folder of their own, and run from there.
//!
//! They insist on paths and accounts that only an installation makes. So each runs in a mount namespace where these
//! are there, and nowhere else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{command, packages, paths};

/// A package that is unpacked, not installed.
pub struct Unpacked {
    /// Its name in Debian.
    package: &'static str,
    /// Its program, below the root.
    program: &'static str,
    /// Users that it insists on, each with a group of the same name and number. No package has made them.
    accounts: &'static [(&'static str, u32)],
    /// Directories that have to be its own: they are empty where it runs.
    own: &'static [&'static str],
    /// Directories that it expects in these.
    expected: &'static [&'static str],
}

/// Exim.
pub const EXIM: Unpacked = Unpacked {
    package: "exim4-daemon-light",
    program: "usr/sbin/exim4",
    accounts: &[("Debian-exim", EXIM_USER)],
    own: &[],
    expected: &[],
};

/// The number of Exim's user and group.
pub const EXIM_USER: u32 = 65533;

/// OpenSMTPD. Its queue and its socket are where it was built for (`/var/spool/smtpd`, `/run/smtpd.sock`), and it
/// locks itself into a directory of its package below `/var/lib`.
pub const OPENSMTPD: Unpacked = Unpacked {
    package: "opensmtpd",
    program: "usr/sbin/smtpd",
    accounts: &[("opensmtpd", 65531), ("opensmtpq", OPENSMTPD_QUEUE)],
    own: &["/run", "/var/spool", "/var/lib"],
    expected: &["/var/lib/opensmtpd/empty"],
};

/// The number of the group whose members give OpenSMTPD messages and orders.
pub const OPENSMTPD_QUEUE: u32 = 65532;

/// All that it sees of `/etc`: copies, with its accounts. Files bound over the machine's own would go, in every mount
/// namespace, when an installation there puts a new one in its place.
const KNOWN: [&str; 7] =
    ["group", "hosts", "nsswitch.conf", "passwd", "protocols", "resolv.conf", "services"];

impl Unpacked {
    /// Gets it, if it is not there. It is needed because of `why`.
    ///
    /// # Errors
    ///
    /// When apt does not have it, or it cannot be unpacked.
    pub fn ensure(&self, why: &str) -> Result<()> {
        if self.program().exists() {
            return Ok(());
        }
        let folder = self.folder();
        eprintln!("missing: {}: {why}", self.package);
        fs::create_dir_all(&folder)?;
        let download = || {
            command::run(
                Command::new("apt-get").args(["--quiet", "download", self.package]).current_dir(&folder),
            )
        };
        if download().is_err() {
            // The lists may be missing, or name what the mirror no longer has.
            packages::update()?;
            download()?;
        }
        for file in fs::read_dir(&folder)? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                command::run(Command::new("dpkg").arg("-x").arg(&file).arg(&folder))?;
            }
        }
        Ok(())
    }

    /// Where it is.
    fn folder(&self) -> PathBuf {
        paths::root().join("target/unpacked").join(self.package)
    }

    /// A file of it, by its path below the root.
    pub fn file(&self, path: &str) -> PathBuf {
        self.folder().join(path)
    }

    /// The program.
    pub fn program(&self) -> PathBuf {
        self.file(self.program)
    }

    /// Its version, as the package's file is named; nothing as long as it is not there.
    pub fn version(&self) -> String {
        let files = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let mut names = files.filter_map(|file| file.file_name().into_string().ok());
        names.find_map(|name| name.strip_suffix(".deb").map(ToOwned::to_owned)).unwrap_or_default()
    }

    /// Has `unshare` start the program where it finds what it insists on; arguments for it may follow. `folder` is
    /// one for the files of this run.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn launch(&self, unshare: &mut Command, folder: &Path) -> Result<()> {
        let etc = folder.join("etc");
        fs::create_dir_all(&etc)?;
        for name in KNOWN {
            // Not every host has all of them.
            let known = fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
            fs::write(etc.join(name), known.clone() + &self.entries(name, &known))?;
        }
        let etc = ["mount --bind \"$0/etc\" /etc".to_owned()];
        // The unpacked package itself is in none of these directories.
        let own = self.own.iter().map(|path| format!("mount -t tmpfs tmpfs {path}"));
        let expected = self.expected.iter().map(|path| format!("mkdir -p {path}"));
        let steps: Vec<String> =
            etc.into_iter().chain(own).chain(expected).chain(["exec \"$@\"".to_owned()]).collect();
        // The mounts end with the last process that sees them.
        unshare.args(["--mount", "sh", "-c", &steps.join(" && ")]).arg(folder).arg(self.program());
        Ok(())
    }

    /// What a file of `/etc` lacks of its accounts. Another package may have made them.
    fn entries(&self, file: &str, known: &str) -> String {
        let is_missing = |name: &str| !known.lines().any(|line| line.starts_with(&format!("{name}:")));
        let missing = self.accounts.iter().filter(|(name, _)| is_missing(name));
        let entry = |(name, id): &(&str, u32)| match file {
            "passwd" => format!("{name}:x:{id}:{id}::/:/bin/false\n"),
            "group" => format!("{name}:x:{id}:\n"),
            _ => String::new(),
        };
        missing.map(entry).collect()
    }
}
