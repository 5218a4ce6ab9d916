//! Which sockets are still there for which something is kept.

use std::{
    collections::HashSet,
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::pins;

/// The cookies of those sockets, of the instance pinned in `dir`. `None` where this kernel does not tell.
pub fn take(dir: &Path) -> Result<Option<HashSet<u64>>> {
    let path = dir.join(pins::SOCKETS);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(bytes.chunks_exact(size_of::<u64>()).map(bytemuck::pod_read_unaligned).collect()))
}
