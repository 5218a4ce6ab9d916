// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A root directory with a few files and nothing else: Landlock does not say which sockets of this host a process may
//! connect to, and whoever is root is obeyed at many.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{chdir, chroot},
};

/// Where the new root is put together: nothing that is below it is needed.
const PLACE: &str = "/proc";

/// Makes these files and directories all that this process sees, where they are now; those that are not there are left
/// out. It has one thread.
///
/// # Errors
/// As of the system calls: it takes `CAP_SYS_ADMIN`.
pub fn leave_only<'a>(seen: impl Iterator<Item = &'a Path>) -> Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot have mounts of its own")?;
    // Nobody else is to see them.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("cannot keep its mounts to itself")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("limiter"), PLACE, Some("tmpfs"), flags, Some("mode=755,size=1m"))
        .context("cannot make an empty root")?;
    for path in seen {
        show(path).with_context(|| format!("cannot keep {}", path.display()))?;
    }
    chroot(PLACE).and_then(|()| chdir("/")).context("cannot enter its root")
}

/// Puts what is at `path` at the same place of the new root.
fn show(path: &Path) -> Result<()> {
    const NONE: Option<&str> = None;
    let about = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        about => about?,
    };
    let inside: PathBuf = Path::new(PLACE).join(path.strip_prefix("/").unwrap_or(path));
    if about.is_dir() {
        fs::create_dir_all(&inside)?;
    } else {
        fs::create_dir_all(inside.parent().unwrap_or(&inside))?;
        File::create(&inside)?;
    }
    mount(Some(path), &inside, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    if about.is_dir() || about.is_file() {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
        mount(NONE, &inside, NONE, flags, NONE)?;
    }
    Ok(())
}
