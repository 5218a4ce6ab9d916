// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon asks of the maintenance program, the kernel program that changes the ledger on its behalf.
//!
//! User space cannot change a map value in one atomic step, and a look followed by a write would
//! lose what happened in between. So the daemon writes a request, runs the maintenance program
//! (`BPF_PROG_TEST_RUN`), and reads what became of it.

use bytemuck::{Pod, Zeroable};

use crate::{Count, Key};

/// Steps one request can have.
///
/// Each is verified anew, and the verifier of Linux 6.1 goes through no more than a few of those that give back.
pub const BATCH: usize = 8;

/// What one step asks for.
pub mod step {
    /// Delete the entry, if nothing uses it.
    pub const COLLECT: u32 = 0;
    /// Change the count from `from` to `to`, if it still is `from`, and count the difference as drift.
    pub const CORRECT: u32 = 1;
    /// The same where the difference is no drift of connections: how many wait.
    pub const CORRECT_WAITING: u32 = 2;
    /// Remove the record on the socket whose cookie is in `from`, if there is one.
    pub const FORGET: u32 = 3;
    /// Begin the recent peak of the entry anew, if it still is what is in `from`.
    pub const BEGIN_PEAK: u32 = 4;
}

/// One step of a request.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Step {
    /// One of [`step`].
    pub step: u32,
    /// Whose count: an entry of the ledger, or a service's total ([`Key::total`]).
    pub key: Key,
    /// Always 0.
    pub zero: u32,
    /// The count as it was seen; or a cookie.
    pub from: Count,
    /// The count as it should be.
    pub to: Count,
}

/// Steps, and the outcome.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct MaintenanceRequest {
    /// How many of `steps` are meant, 0 to [`BATCH`].
    pub asked: u32,
    /// How many were done.
    pub done: u32,
    /// Whether a reservation that came to nothing was given back.
    pub cancelled: u32,
    /// On which CPU one may be: its number and 1; 0: on the one the maintenance program runs on, whichever is there.
    pub cpu: u32,
    /// On another CPU, the one that is meant: only it is given back.
    pub generation: u64,
    /// The steps.
    pub steps: [Step; BATCH],
}

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for MaintenanceRequest {}
