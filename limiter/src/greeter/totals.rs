// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the greeter did, counted.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The live counts, since the greeter was made. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Totals(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    greeted: AtomicU64,
    reset: AtomicU64,
    unexplained: AtomicU64,
    dropped_full: AtomicU64,
    accept_errors: AtomicU64,
}

/// The counts at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Clients that were told why.
    pub greeted: u64,
    /// Clients that could not be told, and were reset.
    pub reset: u64,
    /// Those of them that bore no grounds of their refusal.
    pub unexplained: u64,
    /// Clients that were reset because the greeter was speaking to as many as it may.
    pub dropped_full: u64,
    /// Times that `accept` failed for want of descriptors or memory.
    pub accept_errors: u64,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { greeted, reset, unexplained, dropped_full, accept_errors } = self;
        write!(
            out,
            "{greeted} clients got a reply, {reset} got a reset instead ({unexplained} of them because \
             the reason was lost), {dropped_full} got a reset because \
             too many came at once, {accept_errors} connections could not be accepted"
        )
    }
}

impl Totals {
    /// The counts now; each for itself is exact.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let Counts { greeted, reset, unexplained, dropped_full, accept_errors } = &*self.0;
        Snapshot {
            greeted: greeted.load(Relaxed),
            reset: reset.load(Relaxed),
            unexplained: unexplained.load(Relaxed),
            dropped_full: dropped_full.load(Relaxed),
            accept_errors: accept_errors.load(Relaxed),
        }
    }

    pub(super) fn count_greeted(&self) {
        self.0.greeted.fetch_add(1, Relaxed);
    }

    pub(super) fn count_reset(&self) {
        self.0.reset.fetch_add(1, Relaxed);
    }

    pub(super) fn count_unexplained(&self) {
        self.0.unexplained.fetch_add(1, Relaxed);
    }

    pub(super) fn count_dropped_full(&self) {
        self.0.dropped_full.fetch_add(1, Relaxed);
    }

    pub(super) fn count_accept_error(&self) {
        self.0.accept_errors.fetch_add(1, Relaxed);
    }
}
