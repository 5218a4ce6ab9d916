// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The locks of an instance. Only root may take them: whoever can hold one holds up the daemon.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::Seek as _,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::OFlag;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{BANS, CHANGES, Instance, MAINTENANCE, PID, POLICY, RUN_DIR};

/// How long a lock is waited for: longer than any change takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for a daemon that ends or starts just now, or a command that looks whether there is one.
const DAEMON_PATIENCE: Duration = Duration::from_secs(1);
/// The same for word of a change: that takes no time.
const CHANGES_PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

impl Instance {
    /// Becomes the daemon of this instance, for as long as the result lives.
    ///
    /// # Errors
    /// When another daemon serves it.
    pub fn lock_daemon(&self) -> Result<DaemonLock> {
        let begun = Instant::now();
        loop {
            if let Some(file) = self.try_lock(PID)? {
                // Of a daemon that was killed.
                if file.0.metadata().is_ok_and(|about| about.len() > 0) {
                    file.0.set_len(0).context("cannot remove the process ID of the previous daemon")?;
                }
                return Ok(DaemonLock(file.0));
            }
            let daemon = self.daemon()?;
            if daemon.running || begun.elapsed() > DAEMON_PATIENCE {
                let pid = daemon.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                bail!(
                    "a daemon already serves instance {self}{pid}: stop it first, or choose another --instance"
                );
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Holds off every other change of the pinned policy until the result is dropped.
    ///
    /// # Errors
    /// When somebody else holds it for too long.
    pub fn lock_policy(&self) -> Result<Lock> {
        self.lock(POLICY)
    }

    /// Holds off everyone else who bans and unbans, and writes it down, until the result is dropped.
    ///
    /// # Errors
    /// When somebody else holds it for too long.
    pub fn lock_bans(&self) -> Result<Lock> {
        self.lock(BANS)
    }

    /// What whoever runs a request of the maintenance program locks meanwhile.
    pub fn maintenance_lock(&self) -> Result<File> {
        open(&self.run_path(MAINTENANCE))
    }

    /// Has the file with word of changes for itself, for a command.
    ///
    /// # Errors
    /// When somebody else holds it.
    pub fn lock_changes(&self) -> Result<Lock> {
        let lock = self.lock_within(CHANGES, CHANGES_PATIENCE)?;
        lock.with_context(|| format!("another process holds {}", self.changes_path().display()))
    }

    /// The same for the daemon, which does not wait: none where somebody else holds it.
    pub fn try_lock_changes(&self) -> Result<Option<Lock>> {
        self.try_lock(CHANGES)
    }

    fn lock(&self, what: &str) -> Result<Lock> {
        self.lock_within(what, PATIENCE)?.with_context(|| {
            format!(
                "another process has been changing the {what} of instance {self} for {} s (it holds {}): wait \
                 until it ends, or stop it",
                PATIENCE.as_secs(),
                self.run_path(what).display()
            )
        })
    }

    /// Takes a lock; none if somebody else has it for that long.
    fn lock_within(&self, what: &str, patience: Duration) -> Result<Option<Lock>> {
        let begun = Instant::now();
        loop {
            let lock = self.try_lock(what)?;
            if lock.is_some() || begun.elapsed() > patience {
                return Ok(lock);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Takes a lock; `None` if somebody else has it.
    fn try_lock(&self, what: &str) -> Result<Option<Lock>> {
        let path = self.run_path(what);
        let file = open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // An unload may have removed the file while it was waited for: then this is nobody's lock.
            Ok(()) if is_at(&file, &path) => Ok(Some(Lock(file))),
            Ok(()) | Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// A lock that is held as long as this lives: closing the file gives it back, which cannot fail.
#[must_use = "it is given back at once"]
pub struct Lock(File);

impl Lock {
    /// The file that is locked.
    pub fn file(&mut self) -> &mut File {
        &mut self.0
    }
}

/// Held by the daemon of an instance.
pub struct DaemonLock(File);

impl DaemonLock {
    /// Tells everyone that the daemon serves from now on.
    pub fn announce(&mut self) -> Result<()> {
        let number = format!("{}\n", std::process::id());
        let written = self.0.rewind().and_then(|()| self.0.write_all(number.as_bytes()));
        written.context("cannot write the daemon's process ID")
    }
}

impl Drop for DaemonLock {
    fn drop(&mut self) {
        // The number may be another process's soon. If it stays, it is nobody's: the lock is not held.
        let _stays = self.0.set_len(0);
    }
}

/// Opens a file that only root may lock, and makes it one if it was made by an older build.
fn open(path: &Path) -> Result<File> {
    make_run_dir()?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
        .with_context(|| format!("cannot open the lock {}", path.display()))?;
    let about = file.metadata()?;
    // Made while others could write to the directory: its owner could hold the lock for ever.
    if about.uid() != 0 {
        bail!("{} belongs to user {}, not to root: remove it, and try again", path.display(), about.uid());
    }
    if about.mode() & 0o777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))
            .with_context(|| format!("cannot restrict access to {}", path.display()))?;
    }
    Ok(file)
}

/// Makes the directory, if need be, and has it be root's alone to write in.
fn make_run_dir() -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(RUN_DIR);
    made.with_context(|| format!("cannot create {RUN_DIR}"))?;
    let found = fs::symlink_metadata(RUN_DIR).with_context(|| format!("cannot inspect {RUN_DIR}"))?;
    if !found.is_dir() || found.uid() != 0 {
        bail!("{RUN_DIR} is not a directory owned by root: remove it, and try again");
    }
    if found.mode() & 0o777 != 0o755 {
        fs::set_permissions(RUN_DIR, Permissions::from_mode(0o755))
            .with_context(|| format!("cannot restrict access to {RUN_DIR}"))?;
    }
    Ok(())
}

/// Whether an open file is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}
