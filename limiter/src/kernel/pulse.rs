// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Giving the connections that are there already the keepalive that their service has now.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{environment, iterator, pins, tables::Tables};

/// Does it for the instance pinned in `dir`, and says how many connections have it now. `None` where this kernel cannot.
///
/// # Errors
/// When this thread is in another network namespace than the instance, or the program cannot be run.
pub fn run(dir: &Path, tables: &Tables) -> Result<Option<usize>> {
    let (netns, _) = tables.protects()?;
    ensure!(netns == environment::netns_cookie()?, "the instance protects another network namespace");
    let cookies: Option<Vec<u64>> = iterator::read(&dir.join(pins::PULSE))?;
    Ok(cookies.map(|cookies| cookies.len()))
}
