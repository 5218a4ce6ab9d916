// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Reading what a pinned iterator writes.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use bytemuck::AnyBitPattern;

/// The records of one run of the iterator pinned at `path`. `None` where there is none: this kernel has refused it.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read<T: AnyBitPattern>(path: &Path) -> Result<Option<Vec<T>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()))
}
