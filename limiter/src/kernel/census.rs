//! Reading the census: the kernel's own socket table, as the limiter sees it.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use limiter_common::census::Record;

use super::{environment, pins, tables::Tables};

/// Takes a census of the instance pinned in `dir`: a record for each socket of its mail ports. What
/// nobody has counted yet is counted by it. `None` where this kernel has no census.
///
/// # Errors
/// When this process is in another network namespace than the instance: the kernel shows each
/// process its own namespace's sockets only.
pub fn take(dir: &Path, tables: &Tables) -> Result<Option<Vec<Record>>> {
    let (netns, _) = tables.protects()?;
    ensure!(
        netns == environment::netns_cookie()?,
        "the instance protects another network namespace: its sockets can only be seen from there, with nsenter(1)"
    );
    let path = dir.join(pins::CENSUS);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let records = bytes.chunks_exact(size_of::<Record>());
    Ok(Some(records.map(bytemuck::pod_read_unaligned).collect()))
}
