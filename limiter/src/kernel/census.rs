// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Reading the census: the kernel's own socket table, as the limiter sees it.

use std::path::Path;

use anyhow::{Result, ensure};
use limiter_common::census::SocketRecord;

use super::{environment, iterator, pins, tables::Tables};

/// Takes a census of the instance pinned in `dir`: a record for each socket of its mail ports. What
/// nobody has counted yet is counted by it. `None` where this kernel has no census.
///
/// # Errors
/// When this process is in another network namespace than the instance: the kernel shows each
/// process its own namespace's sockets only.
pub fn take(dir: &Path, tables: &Tables) -> Result<Option<Vec<SocketRecord>>> {
    let (netns, _) = tables.protects()?;
    ensure!(
        netns == environment::netns_cookie()?,
        "the instance protects another network namespace: run the command there, with nsenter(1), to see its sockets"
    );
    iterator::read(&dir.join(pins::CENSUS))
}
