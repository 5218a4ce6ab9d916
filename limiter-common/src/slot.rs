// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where the records of connections are kept.
//!
//! Each cookie has one slot of an array, which serves one connection at a time. The kernel hands cookies out one
//! after the other, so those of connections that come one after the other are neighbours in memory: making and
//! taking a record away is one atomic step on a cache line that is at hand, and nothing is allocated. Who finds its
//! slot taken goes to a hash map beside the array, and a second array has how many did of each slot.

use bytemuck::{Pod, Zeroable};

use crate::{ConnectionRecord, DatedRecord, count::Word};

/// How many there are: 256 KiB, which stay in the caches of a processor.
pub const SLOTS: u32 = 16_384;

/// One of them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Slot {
    /// The cookie of the socket that it serves; 0: it is free. No socket has the cookie 0
    /// (`__sock_gen_cookie`, `net/core/sock_diag.c`).
    pub cookie: u64,
    /// The record of that connection. Meaningless in a free slot, as is what follows.
    pub record: ConnectionRecord,
    /// Since when there is one, as [`DatedRecord::since_s`].
    pub since_s: u32,
}

impl Slot {
    /// The number of a cookie's slot.
    #[inline(always)]
    #[must_use]
    pub const fn of(cookie: u64) -> u32 {
        cookie as u32 & (SLOTS - 1)
    }

    /// What it says of the connection that it serves.
    #[inline(always)]
    #[must_use]
    pub const fn dated(&self) -> DatedRecord {
        DatedRecord { record: self.record, since_s: self.since_s }
    }
}

/// Takes a free slot, by its cookie's word; `false` if it is not free.
#[inline(always)]
#[must_use]
pub fn occupy<W: Word>(word: &W, cookie: u64) -> bool {
    word.compare_exchange(0, cookie) == 0
}

/// Frees it; `false` if it does not serve this cookie: of all who try, one succeeds.
#[inline(always)]
#[must_use]
pub fn vacate<W: Word>(word: &W, cookie: u64) -> bool {
    word.compare_exchange(cookie, 0) == cookie
}

const _: () = assert!(size_of::<Slot>() == 16 && SLOTS.is_power_of_two());

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for Slot {}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn connections_that_come_one_after_the_other_do_not_share_a_slot(first: u64, distance in 1..SLOTS) {
            let (one, other) = (Slot::of(first), Slot::of(first.wrapping_add(u64::from(distance))));
            prop_assert!(one < SLOTS && other < SLOTS && one != other);
        }

        #[test]
        fn a_peg_serves_one_cookie_until_that_one_leaves(steps in prop::collection::vec((1u64..4, any::<bool>()), 0..40)) {
            let word = AtomicU64::new(0);
            let mut serves = None;
            for (cookie, comes) in steps {
                if comes {
                    prop_assert_eq!(occupy(&word, cookie), serves.is_none());
                    serves = serves.or(Some(cookie));
                } else {
                    prop_assert_eq!(vacate(&word, cookie), serves == Some(cookie));
                    serves = serves.filter(|&served| served != cookie);
                }
                prop_assert_eq!(word.load(SeqCst), serves.unwrap_or_default());
            }
        }
    }
}
