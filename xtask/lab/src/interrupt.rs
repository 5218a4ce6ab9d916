// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ctrl-C, when there is something to put back first.
//!
//! The programs we started get the signal too and end by it; we go on and clean up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether one came; nothing as long as they end us.
static CAME: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on Ctrl-C, SIGTERM and SIGHUP do not end us, they are noted.
///
/// # Errors
///
/// When the signals cannot be caught.
pub fn hold() -> Result<()> {
    let came = CAME.get_or_init(Arc::default);
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(came)).context("cannot catch Ctrl-C")?;
    }
    Ok(())
}

/// Passes as long as none came.
///
/// # Errors
///
/// When one came.
pub fn check() -> Result<()> {
    if CAME.get().is_some_and(|came| came.load(Ordering::Relaxed)) {
        bail!("interrupted");
    }
    Ok(())
}
