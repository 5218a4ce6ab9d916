// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whether a daemon is there to serve those that wait.

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
