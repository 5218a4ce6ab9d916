// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How many files a process may open: both ends of every connection of a lab may be one process's.

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files of anybody who holds connections.
const FILES: u64 = 100_000;

/// Lets this process open as many files as it may, and returns how many that are.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn allow_many_files() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // In a container even root may not be allowed more.
    if hard < FILES && setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).is_ok() {
        return Ok(FILES);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
