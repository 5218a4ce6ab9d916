// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the greeter did, counted.

mod counts;
mod page;

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use counts::Counts;
use page::Page;
use serde::{Deserialize, Serialize};

/// The live counts, since the daemon has started. Clones share them, and so do processes that have the descriptor. What
/// is in them is only shown: the greeter's process can write there what it likes.
#[derive(Clone, Debug)]
pub struct Totals(Arc<Page>);

/// The counts at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Clients that were told why, in plain text or inside TLS.
    pub greeted: u64,
    /// Of these, inside TLS.
    pub greeted_by_tls: u64,
    /// Clients that got a TLS alert, because their service has no certificate that can be used.
    pub alerts: u64,
    /// Clients that got a TLS alert, because there were too many handshakes.
    pub over_budget: u64,
    /// Clients whose TLS handshake came to nothing.
    pub failed_handshakes: u64,
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
        let Self {
            greeted,
            greeted_by_tls,
            alerts,
            over_budget,
            failed_handshakes,
            reset,
            unexplained,
            dropped_full,
            accept_errors,
        } = self;
        write!(
            out,
            "{greeted} clients got a reply ({greeted_by_tls} inside TLS), {alerts} got a TLS alert, {over_budget} got \
             a TLS alert because of too many handshakes, {failed_handshakes} TLS handshakes failed, {reset} clients \
             got a reset instead ({unexplained} of them because the reason was lost), {dropped_full} got a reset \
             because too many came at once, {accept_errors} connections could not be accepted"
        )
    }
}

impl AsFd for Totals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Totals {
    /// Of nothing so far.
    ///
    /// # Errors
    /// If there is no memory that two processes can share.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Page::new()?)))
    }

    /// Those behind the descriptor of others.
    ///
    /// # Errors
    /// If it is none of such.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        Ok(Self(Arc::new(Page::open(file)?)))
    }

    /// The counts now; each for itself is exact.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let Counts {
            greeted,
            greeted_by_tls,
            alerts,
            over_budget,
            failed_handshakes,
            reset,
            unexplained,
            dropped_full,
            accept_errors,
        } = &**self.0;
        Snapshot {
            greeted: greeted.load(Relaxed),
            greeted_by_tls: greeted_by_tls.load(Relaxed),
            alerts: alerts.load(Relaxed),
            over_budget: over_budget.load(Relaxed),
            failed_handshakes: failed_handshakes.load(Relaxed),
            reset: reset.load(Relaxed),
            unexplained: unexplained.load(Relaxed),
            dropped_full: dropped_full.load(Relaxed),
            accept_errors: accept_errors.load(Relaxed),
        }
    }

    pub(super) fn count_greeted(&self) {
        self.0.greeted.fetch_add(1, Relaxed);
    }

    pub(super) fn count_greeted_by_tls(&self) {
        self.0.greeted_by_tls.fetch_add(1, Relaxed);
        self.count_greeted();
    }

    pub(super) fn count_alert(&self) {
        self.0.alerts.fetch_add(1, Relaxed);
    }

    pub(super) fn count_over_budget(&self) {
        self.0.over_budget.fetch_add(1, Relaxed);
    }

    pub(super) fn count_failed_handshake(&self) {
        self.0.failed_handshakes.fetch_add(1, Relaxed);
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
