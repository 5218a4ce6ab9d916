// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A file system in memory, in the form the kernel unpacks: cpio's "newc", described in the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Types of files, and their permissions.
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// Ends the archive.
const END: &str = "TRAILER!!!";

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    paths: BTreeSet<PathBuf>,
}

impl Archive {
    /// Adds a file, executable, and the directories it is in. What is at that path already stays.
    ///
    /// # Errors
    ///
    /// When it is larger than the form allows: 4 GiB.
    pub fn file(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        self.add(path, EXECUTABLE, content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    ///
    /// As [`Self::file`].
    pub fn link(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.add(path, LINK, target.as_os_str().as_encoded_bytes())
    }

    /// Adds a directory.
    ///
    /// # Errors
    ///
    /// As [`Self::file`].
    pub fn directory(&mut self, path: &Path) -> Result<()> {
        self.add(path, DIRECTORY, &[])
    }

    /// Whether something is at this path.
    pub fn has(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }

    /// The whole of it.
    ///
    /// # Errors
    ///
    /// As [`Self::file`].
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.entry(END.as_bytes(), 0, &[])?;
        Ok(self.bytes)
    }

    fn add(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        // The kernel makes no directory that was not named before.
        if let Some(parent) = path.parent().filter(|parent| parent.parent().is_some()) {
            self.directory(parent)?;
        }
        if self.paths.insert(path.to_owned()) {
            let name = path.strip_prefix("/").unwrap_or(path);
            self.entry(name.as_os_str().as_encoded_bytes(), mode, content)?;
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8], mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).context("a file too large for an archive")?;
        let inode = u32::try_from(self.paths.len())?;
        let name_size = u32::try_from(name.len() + 1)?;
        // Inode, mode, uid, gid, links, time, size, 4 numbers of devices, size of the name with its zero, sum.
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them_and_each_path_once() {
        let mut archive = Archive::default();
        archive.file(Path::new("/usr/bin/ip"), b"first").expect("small");
        archive.file(Path::new("/usr/bin/ip"), b"second").expect("small");
        archive.link(Path::new("/usr/bin/a"), Path::new("ip")).expect("small");
        let bytes = archive.finish().expect("small");
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).expect("nothing but text in it");
        let mut rest = text.as_str();
        for part in ["usr\0", "usr/bin\0", "usr/bin/ip\0", "first", "usr/bin/a\0", "ip\0", END] {
            (_, rest) = rest.split_once(part).unwrap_or_else(|| panic!("no {part:?} in {rest:?}"));
        }
        assert!(!text.contains("second"));
        assert_eq!(text.matches("070701").count(), 5);
    }
}
