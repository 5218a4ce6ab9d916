// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The folder that becomes the package.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::contents::{CONFIGURATION, DOCUMENTS, How, ITEMS, NOT_FOR_USERS, SCRIPTS, observing};
use crate::{command, paths};

/// What the command line writes completions as, and where each shell looks for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("limiter.bash", "usr/share/bash-completion/completions/limiter"),
    ("_limiter", "usr/share/zsh/vendor-completions/_limiter"),
    ("limiter.fish", "usr/share/fish/vendor_completions.d/limiter.fish"),
];

/// The folder, which is gone with this.
pub struct Stage {
    /// Beside what is packed, `debian/control` is here, from which dpkg-shlibdeps knows that it is in a package.
    folder: TempDir,
    epoch: u64,
}

impl Stage {
    /// An empty one; all of its files are of this time.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn new(epoch: u64) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        Ok(Self { folder, epoch })
    }

    /// What is packed.
    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Puts a file there.
    ///
    /// # Errors
    ///
    /// When it cannot be copied.
    pub fn install(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(to, &content, mode)
    }

    /// Writes a file there.
    fn write(&self, to: &str, content: &[u8], mode: u32) -> Result<()> {
        let to = self.root().join(to);
        let written = || {
            fs::create_dir_all(to.parent().unwrap_or(&to))?;
            fs::write(&to, content)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(mode))
        };
        written().with_context(|| format!("cannot write {}", to.display()))
    }

    /// Writes a file there, compressed.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or there is no gzip.
    pub fn compressed(&self, to: &str, content: &str) -> Result<()> {
        self.write(to, content.as_bytes(), 0o644)?;
        // Without its name and time.
        command::run(Command::new("gzip").args(["-9", "--no-name"]).arg(self.root().join(to)))
    }

    /// Puts [`ITEMS`] there.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or written, or the configuration is not what is expected.
    pub fn items(&self) -> Result<()> {
        for item in ITEMS {
            let from = paths::root().join(item.from);
            let read =
                || fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()));
            match item.how {
                How::Same => self.install(&from, item.to, 0o644)?,
                How::Compressed => self.compressed(item.to, &read()?)?,
                How::Observing => {
                    let text = observing(&read()?)
                        .with_context(|| format!("{} has not one line mode = \"enforce\"", item.from))?;
                    self.write(item.to, text.as_bytes(), 0o644)?;
                }
            }
        }
        Ok(())
    }

    /// Puts the documents there, but for [`NOT_FOR_USERS`].
    ///
    /// # Errors
    ///
    /// When one cannot be copied.
    pub fn documents(&self) -> Result<()> {
        let (from, to) = DOCUMENTS;
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let at = paths::root().join(from).join(&folder);
            for entry in fs::read_dir(&at).with_context(|| format!("cannot read {}", at.display()))? {
                let entry = entry?;
                let name = format!("{folder}{}", entry.file_name().to_string_lossy());
                if NOT_FOR_USERS.contains(&name.as_str()) {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    folders.push(name + "/");
                } else {
                    self.install(&entry.path(), &format!("{to}/{name}"), 0o644)?;
                }
            }
        }
        Ok(())
    }

    /// Puts the man pages and completions there that this `limiter` writes.
    ///
    /// # Errors
    ///
    /// When it does not write them.
    pub fn generated(&self, limiter: &Path) -> Result<()> {
        let made = tempfile::tempdir()?;
        for what in ["man", "completions"] {
            let mut generate = Command::new(limiter);
            command::output(generate.args(["generate", what]).arg(made.path()))?;
        }
        for (name, to) in COMPLETIONS {
            self.install(&made.path().join(name), to, 0o644)?;
        }
        for entry in fs::read_dir(made.path())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(section) =
                path.extension().and_then(|it| it.to_str()).filter(|it| it.parse::<u8>().is_ok())
            {
                let page = fs::read_to_string(&path)?;
                self.compressed(&format!("usr/share/man/man{section}/{name}"), &page)?;
            }
        }
        Ok(())
    }

    /// What dpkg-shlibdeps prints of the program.
    ///
    /// # Errors
    ///
    /// When there is none, or it does not know a library.
    pub fn linked_with(&self) -> Result<String> {
        let debian = self.folder.path().join("debian");
        fs::create_dir_all(&debian)?;
        fs::write(debian.join("control"), "Source: limiter\n\nPackage: limiter\nArchitecture: any\n")?;
        let mut shlibdeps = Command::new("dpkg-shlibdeps");
        command::output(shlibdeps.current_dir(&self.folder).args(["-O", "root/usr/sbin/limiter"]))
    }

    /// How much it takes installed: each file in whole KiB, each folder one.
    ///
    /// # Errors
    ///
    /// When it cannot be walked.
    pub fn kibibytes(&self) -> Result<u64> {
        let (files, folders) = walk(&self.root())?;
        let mut sum = 0;
        for file in files {
            sum += fs::metadata(&file)?.len().div_ceil(1024);
        }
        Ok(sum + folders.len() as u64)
    }

    /// Puts what dpkg reads and runs there. After all files that are installed.
    ///
    /// # Errors
    ///
    /// When something cannot be read or written.
    pub fn control(&self, control: &str) -> Result<()> {
        let root = self.root();
        let (mut files, _) = walk(&root)?;
        files.sort();
        let names = files.iter().map(|file| file.strip_prefix(&root)).collect::<Result<Vec<_>, _>>()?;
        let mut sums = Command::new("md5sum");
        let sums = command::output(sums.current_dir(&root).args(names))?;
        let conffile = format!("/{CONFIGURATION}\n");
        for (name, text) in [("control", control), ("conffiles", &conffile), ("md5sums", &sums)] {
            self.write(&format!("DEBIAN/{name}"), text.as_bytes(), 0o644)?;
        }
        for script in SCRIPTS {
            let from = paths::root().join("dist/debian").join(script);
            self.install(&from, &format!("DEBIAN/{script}"), 0o755)?;
        }
        Ok(())
    }

    /// Packs it.
    ///
    /// # Errors
    ///
    /// When dpkg-deb does not like it.
    pub fn pack(&self, package: &Path) -> Result<()> {
        let root = self.root();
        let (_, folders) = walk(&root)?;
        for folder in folders {
            // Whatever our umask is.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        }
        let mut deb = Command::new("dpkg-deb");
        // More threads would compress in other blocks.
        deb.args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]);
        command::output(deb.arg(root).arg(package).env("SOURCE_DATE_EPOCH", self.epoch.to_string()))?;
        Ok(())
    }
}

/// The files and the folders below one, with itself.
fn walk(root: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    Ok((files, folders))
}
