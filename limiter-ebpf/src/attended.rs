// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whether a daemon is there: one to serve those that wait, and one that answers at all.

use crate::{clock, maps};

/// 1 where nobody serves those that wait, so that others may overtake them, and 0 where a daemon does.
#[inline(always)]
pub fn overtakes() -> u64 {
    // The sign, and no branch: see `limiter_common::count::Turn`.
    maps::attended_until_ns().wrapping_sub(clock::tick_ns()) >> 63
}

/// Whether a daemon serves those that wait.
#[inline(always)]
pub fn are_attended() -> bool {
    overtakes() == 0
}

/// Whether the daemon runs. One that was stopped still has the greeter's listener, in the queue of which a client would
/// hear nothing.
#[inline(always)]
pub fn daemon_answers() -> bool {
    maps::answers_until_ns() > clock::tick_ns()
}
