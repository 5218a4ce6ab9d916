// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which sockets are still there for which something is kept.

use std::{collections::HashSet, path::Path};

use anyhow::Result;

use super::{iterator, pins};

/// The cookies of those sockets, of the instance pinned in `dir`. `None` where this kernel does not tell.
pub fn take(dir: &Path) -> Result<Option<HashSet<u64>>> {
    let cookies: Option<Vec<u64>> = iterator::read(&dir.join(pins::SOCKETS))?;
    Ok(cookies.map(|cookies| cookies.into_iter().collect()))
}
