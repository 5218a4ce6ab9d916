// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A file that is replaced in one step: what it is to say is written beside it and made safe on disk, then takes its
//! place. Whoever reads it meanwhile, or after a power failure, finds it as it was or as it was wanted.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

/// Mode of a file that is only root's to read.
pub const PRIVATE: u32 = 0o600;
/// Mode of one that everybody may read.
pub const PUBLIC: u32 = 0o644;

/// What a file is to say, and not in its place yet. Dropped, it is gone.
pub struct Staged {
    /// Where it is now; `None` once it is in place.
    written: Option<PathBuf>,
    target: PathBuf,
}

impl Staged {
    /// Writes `bytes` beside the file at `target`, which is no symbolic link. `prepare` gives the new file its owner and
    /// mode, before there is anything in it; it is [`PRIVATE`] until then.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is left of it.
    pub fn write(
        target: &Path,
        bytes: &[u8],
        prepare: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let written = target.with_file_name(format!(".{}.{}", name.display(), std::process::id()));
        // Left by one that had this number and was killed.
        let _may_not_be_there = fs::remove_file(&written);
        sweep(target);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&written)?;
        let staged = Self { written: Some(written), target: target.to_owned() };
        prepare(&file)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Puts it in the file's place. What this gives says whether that is sure to outlive a power failure, too.
    ///
    /// # Errors
    /// When the file cannot be replaced; then it is as it was.
    pub fn put(mut self) -> io::Result<Durable> {
        if let Some(written) = &self.written {
            fs::rename(written, &self.target)?;
        }
        self.written = None;
        let dir = self.target.parent().unwrap_or(Path::new("/"));
        Ok(Durable(File::open(dir).and_then(|dir| dir.sync_all())))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(written) = &self.written {
            let _stays = fs::remove_file(written);
        }
    }
}

/// Removes what writers of the file have left that were killed: it may have what the file is to keep secret. One of
/// another PID namespace may still be at it for a moment.
fn sweep(target: &Path) {
    const MOMENT: Duration = Duration::from_secs(60);
    let (Some(dir), Some(name)) = (target.parent(), target.file_name()) else { return };
    let begin = format!(".{}.", name.display());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(&begin)).and_then(|pid| pid.parse().ok());
        let is_gone = |pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH);
        // There may be thousands of other files, which are not looked at.
        if !pid.is_some_and(is_gone) {
            continue;
        }
        let written = entry.metadata().and_then(|about| about.modified());
        if written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > MOMENT)) {
            let _stays = fs::remove_file(entry.path());
        }
    }
}

/// Whether a file that is in its place stays there after a power failure.
#[must_use = "it may not"]
pub struct Durable(io::Result<()>);

impl Durable {
    /// # Errors
    /// Why it may not.
    pub fn sure(self) -> io::Result<()> {
        self.0
    }

    /// It does not matter, or nobody can do anything about it: the file is in its place.
    pub fn or_not(self) {
        drop(self.0);
    }
}

/// Has the file at `target` say `bytes`, in one step.
///
/// # Errors
/// When it cannot be replaced; then it is as it was.
pub fn replace(target: &Path, bytes: &[u8], mode: u32) -> io::Result<Durable> {
    Staged::write(target, bytes, |file| file.set_permissions(Permissions::from_mode(mode)))?.put()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_with_its_mode_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (text, mode) in [("a", PRIVATE), ("bc", PUBLIC), ("", PRIVATE)] {
            let before = fs::metadata(&path).ok().map(|about| about.ino());
            replace(&path, text.as_bytes(), mode).unwrap().sure().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let about = fs::metadata(&path).unwrap();
            assert_eq!(about.mode() & 0o7777, mode);
            assert_ne!(Some(about.ino()), before, "it was never half written");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_fails_leaves_the_file_as_it_was_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "a").unwrap();
        let refused = Staged::write(&path, b"b", |_| Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::PermissionDenied));
        drop(Staged::write(&path, b"b", |_| Ok(())).unwrap());
        let staged = Staged::write(&path, b"b", |_| Ok(())).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a", "not in place yet");
        drop(staged);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // A directory is in its place.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"b", PRIVATE).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_writer_has_left_goes_with_the_next_write_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("limiter.toml");
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        // Beyond the largest process id there can be (PID_MAX_LIMIT).
        let (gone, own) = (99_999_999, std::os::unix::process::parent_id());
        let names = [
            (format!(".limiter.toml.{gone}"), true, true),
            (format!(".limiter.toml.{}", gone - 1), false, false),
            (format!(".limiter.toml.{own}"), true, false),
            (format!(".limiter.toml.{gone}x"), true, false),
            (format!(".other.toml.{gone}"), true, false),
            (format!("limiter.toml.{gone}"), true, false),
        ];
        for (name, is_old, _) in &names {
            let file = File::create(dir.path().join(name)).unwrap();
            if *is_old {
                file.set_modified(long_ago).unwrap();
            }
        }
        replace(&path, b"new", PRIVATE).unwrap().or_not();
        for (name, _, goes) in &names {
            assert_eq!(dir.path().join(name).exists(), !goes, "{name}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
