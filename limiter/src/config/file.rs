// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The configuration file on disk: opened with care, since root does what it says, and replaced in one
//! step.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{
        DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
        fchown,
    },
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag};

use super::ConfigError;
use crate::{
    staged::{self, Staged},
    trust,
};

/// Opens the file at `path` to be read, unless it is no file, or somebody else than root (or whoever runs
/// this) could decide what is in it.
pub fn open(path: &Path) -> Result<File, ConfigError> {
    let name = path.display().to_string();
    let wrong = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => ConfigError::Missing { file: name.clone() },
        Some(Errno::ELOOP) => ConfigError::Circle { file: name.clone() },
        // So the kernel says of a socket.
        Some(Errno::ENXIO) => ConfigError::NotAFile { file: name.clone(), what: "a socket" },
        _ => ConfigError::Unreadable { file: name.clone(), error },
    };
    // A pipe without a writer would be waited for.
    let nonblock = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(wrong)?;
    let about = file.metadata().map_err(wrong)?;
    let what = match about.file_type() {
        kind if kind.is_dir() => return Err(ConfigError::Directory { file: name }),
        kind if kind.is_file() => None,
        kind if kind.is_fifo() => Some("a pipe"),
        kind if kind.is_char_device() || kind.is_block_device() => Some("a device"),
        _ => Some("something else"),
    };
    if let Some(what) = what {
        return Err(ConfigError::NotAFile { file: name, what });
    }
    let (there, distrust) = trust::look(path).map_err(wrong)?;
    if let Some(distrust) = distrust {
        return Err(ConfigError::Distrusted(distrust, name));
    }
    if (there.dev(), there.ino()) != (about.dev(), about.ino()) {
        return Err(wrong(io::Error::other("another process has just replaced it")));
    }
    Ok(file)
}

/// What a configuration file is to say, [staged](Staged). Dropped, it is gone.
pub struct StagedConfig {
    staged: Staged,
    /// The file itself, behind all symbolic links.
    target: PathBuf,
    /// What the file said when it was read; `None` if there was none.
    before: Option<String>,
}

impl StagedConfig {
    /// Writes `text` beside the file at `path`, which said `before`, with the same owner and mode.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is left of it.
    pub fn write(path: &Path, before: Option<String>, text: &str) -> io::Result<Self> {
        let target = if before.is_some() { fs::canonicalize(path)? } else { std::path::absolute(path)? };
        if let (None, Some(dir)) = (&before, target.parent()) {
            // Whatever the umask: a configuration that others can replace is refused.
            DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        }
        let staged = Staged::write(&target, text.as_bytes(), |file| {
            if before.is_none() {
                return file.set_permissions(Permissions::from_mode(staged::PUBLIC));
            }
            let about = fs::metadata(&target)?;
            fchown(file, Some(about.uid()), Some(about.gid()))?;
            file.set_permissions(Permissions::from_mode(about.mode() & 0o7777))
        })?;
        Ok(Self { staged, target, before })
    }

    /// Puts it in the file's place, in one step.
    ///
    /// # Errors
    /// When the file is not any more what it was, or cannot be replaced; then it stays.
    pub fn commit(self) -> io::Result<()> {
        let now = match fs::read(&self.target) {
            Ok(now) => Some(now),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if now.as_deref() != self.before.as_ref().map(String::as_bytes) {
            return Err(io::Error::other("another process has just changed it"));
        }
        self.staged.put()?.or_not();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::unistd::geteuid;

    use super::*;

    fn is_alone(dir: &Path, names: &[&str]) {
        let mut found: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, names);
    }

    #[test]
    fn a_file_is_replaced_behind_its_link_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let [real, link] = ["real.toml", "link.toml"].map(|name| dir.path().join(name));
        fs::write(&real, "a").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(&real, Some(0), Some(12)).unwrap();
        } else {
            limiter_lab::skip("only root can give files away; it keeps the group it has");
        }
        let before = fs::metadata(&real).unwrap();
        symlink("real.toml", &link).unwrap();
        StagedConfig::write(&link, Some("a".into()), "b").unwrap().commit().unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "b");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let after = fs::metadata(&real).unwrap();
        assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
        assert_ne!(after.ino(), before.ino(), "it was never half written");
        is_alone(dir.path(), &["link.toml", "real.toml"]);
    }

    #[test]
    fn what_is_not_put_in_place_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("limiter.toml");
        fs::write(&path, "a").unwrap();
        drop(StagedConfig::write(&path, Some("a".into()), "b").unwrap());
        let staged = StagedConfig::write(&path, Some("a".into()), "b").unwrap();
        fs::write(&path, "c").unwrap();
        let error = staged.commit().unwrap_err().to_string();
        assert_eq!(error, "another process has just changed it");
        assert_eq!(fs::read_to_string(&path).unwrap(), "c");
        is_alone(dir.path(), &["limiter.toml"]);
    }

    #[test]
    fn a_new_file_is_made_with_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("limiter/limiter.toml");
        StagedConfig::write(&path, None, "a").unwrap().commit().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, staged::PUBLIC);
        is_alone(path.parent().unwrap(), &["limiter.toml"]);
    }
}
