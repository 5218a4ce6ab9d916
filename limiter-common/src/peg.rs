//! Where the notes on connections are kept.
//!
//! Each cookie has one peg of an array, which serves one connection at a time. The kernel hands cookies out one
//! after the other, so those of connections that come one after the other are neighbours in memory: making and
//! taking a note away is one atomic step on a cache line that is at hand, and nothing is allocated. Who finds its
//! peg taken goes to a hash map beside the array, and the peg remembers how many did.

use bytemuck::{Pod, Zeroable};

use crate::{Note, places::Word};

/// How many there are: 256 KiB, which stay in the caches of a processor.
pub const PEGS: u32 = 16_384;

/// One of them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Peg {
    /// The cookie of the socket that it serves; 0: it is free. No socket has the cookie 0
    /// (`__sock_gen_cookie`, `net/core/sock_diag.c`).
    pub cookie: u64,
    /// What is noted on that connection. Meaningless in a free peg.
    pub note: Note,
    /// Notes in hash maps whose peg this is.
    pub crowded: u32,
}

impl Peg {
    /// The number of a cookie's peg.
    #[inline(always)]
    #[must_use]
    pub const fn of(cookie: u64) -> u32 {
        cookie as u32 & (PEGS - 1)
    }
}

/// Takes a free peg, by its cookie's word; `false` if it is not free.
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

const _: () = assert!(size_of::<Peg>() == 16 && PEGS.is_power_of_two());

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for Peg {}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn connections_that_come_one_after_the_other_do_not_share_a_peg(first: u64, distance in 1..PEGS) {
            let (one, other) = (Peg::of(first), Peg::of(first.wrapping_add(u64::from(distance))));
            prop_assert!(one < PEGS && other < PEGS && one != other);
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
