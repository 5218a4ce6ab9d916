// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The counts, as they are in memory: those of [`Snapshot`](super::Snapshot), which says what each is.

use std::sync::atomic::AtomicU64;

/// The live counts.
#[derive(Debug)]
#[repr(C)]
pub struct Counts {
    pub greeted: AtomicU64,
    pub greeted_by_tls: AtomicU64,
    pub alerts: AtomicU64,
    pub over_budget: AtomicU64,
    pub failed_handshakes: AtomicU64,
    pub reset: AtomicU64,
    pub unexplained: AtomicU64,
    pub dropped_full: AtomicU64,
    pub accept_errors: AtomicU64,
}
