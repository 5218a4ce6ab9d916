// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The BPF file system, where the limiter pins what it loads. systemd mounts it; in a container, or with
//! another init, perhaps nobody has.

use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sys::statfs::{FsType, statfs};

use crate::{command, privilege};

/// Where the limiter looks for it.
const PLACE: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const MAGIC: FsType = FsType(0xcafe_4a11);

/// Mounts it where it is missing.
///
/// # Errors
///
/// When it cannot be mounted; then the error is what to type.
pub fn ensure() -> Result<()> {
    if statfs(Path::new(PLACE)).is_ok_and(|found| found.filesystem_type() == MAGIC) {
        return Ok(());
    }
    eprintln!("missing: a BPF file system at {PLACE}: the limiter pins there what it loads");
    let mut mount = privilege::command("mount", &[])?;
    command::run(mount.args(["-t", "bpf", "bpf", PLACE]))
        .with_context(|| format!("mount it as root: mount -t bpf bpf {PLACE}"))
}
