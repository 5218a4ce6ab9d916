// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What each CPU remembers for a moment: drops of SYNs.
//!
//! Somebody whom the shield drops and who goes on sends the same SYN again and again. To judge each of them costs
//! as much as the first; to know that the last one was dropped, and that nothing has changed since, costs a
//! fraction. Only drops are remembered, and only of SYNs: what passes is judged behind the shield in any case, and
//! other segments may belong to a connection.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Reason};

/// Cached drops of each CPU, 64 bytes each. A SYN has one slot in which it may be remembered.
pub const CACHED_DROPS: usize = 256;

/// How long a drop is remembered, in ticks of the kernel (jiffies), of which a second has 100 to 1000: then the maps
/// are asked again.
pub const LIFE_TICKS: u64 = 100;
/// The same in nanoseconds, at most.
const LIFE_NS: u64 = 1_000_000_000;

/// Whose SYN, and for what. The peer's address as a whole, not the source it counts as: a rule may be for less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Syn {
    /// The peer's address, in halves: half as many comparisons.
    remote: [u64; 2],
    /// The address it wants to connect to.
    local: [u64; 2],
    /// The port there.
    port: u16,
}

impl Syn {
    /// From `remote` to `local`, at a port in either byte order, but always the same.
    #[inline(always)]
    #[must_use]
    pub const fn new(remote: &Addr, local: &Addr, port: u16) -> Self {
        Self { remote: remote.halves(), local: local.halves(), port }
    }

    /// Its slot among the [`CACHED_DROPS`]. Whoever chooses addresses that share one only pays more for being dropped,
    /// and makes the other pay as much as without the cache.
    #[inline(always)]
    #[must_use]
    pub const fn slot(&self) -> usize {
        let ([a, b], [_, c]) = (self.remote, self.local);
        let mixed = (a ^ b ^ c >> 32 ^ self.port as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (u64::BITS - CACHED_DROPS.ilog2())) as usize
    }
}

/// A drop of a SYN, as one CPU remembers it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct CachedDrop {
    /// As in [`Syn`].
    remote: [u64; 2],
    /// As in [`Syn`].
    local: [u64; 2],
    /// Which change made by hand was the last when the verdict was made.
    pub change: u64,
    /// Up to when it holds, in ticks; 0: nothing is remembered.
    pub until_ticks: u64,
    /// When the ban of its source began ([`crate::Penalty::banned_at_ns`]), which tells it from another one of the
    /// same source; 0: it is not banned.
    pub banned_at_ns: u64,
    /// Drops that are not added to the ban yet.
    pub uncounted: u32,
    /// As in [`Syn`].
    port: u16,
    /// The service, a [`crate::ServiceId`].
    pub service: u8,
    /// A [`Reason`]: denied or banned.
    pub reason: u8,
}

const _: () = assert!(size_of::<CachedDrop>() == 64);

/// A verdict that may be remembered: a SYN is to be dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// The service, a [`crate::ServiceId`].
    pub service: u8,
    /// Denied or banned.
    pub reason: Reason,
    /// When the ban of its source began; 0: it is not banned.
    pub banned_at_ns: u64,
    /// How long the ban lasts; `u64::MAX`: it is not banned.
    pub left_ns: u64,
}

impl CachedDrop {
    /// The peer's address.
    #[must_use]
    pub const fn remote(&self) -> Addr {
        Addr::of_halves(self.remote)
    }

    /// Whether this is about `syn`.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(&self, syn: &Syn) -> bool {
        self.remote[1] == syn.remote[1]
            && self.remote[0] == syn.remote[0]
            && self.local[1] == syn.local[1]
            && self.local[0] == syn.local[0]
            && self.port == syn.port
    }

    /// Whether it says that `syn` is to be dropped at `now_ticks`, when `change` was the last.
    #[inline(always)]
    #[must_use]
    pub const fn holds(&self, syn: &Syn, change: u64, now_ticks: u64) -> bool {
        self.is_of(syn) && self.change == change && now_ticks < self.until_ticks
    }

    /// What is to be remembered of a drop at `now_ticks`, when `change` was the last.
    ///
    /// Of a ban that ends soon nothing is, so that its end is seen by the clock it is meant in. (Ticks stand still
    /// while the host sleeps: a ban that ends meanwhile may hold for another second when the host wakes up.)
    #[inline(always)]
    #[must_use]
    pub const fn new(syn: &Syn, dropped: &Dropped, change: u64, now_ticks: u64) -> Option<Self> {
        if dropped.left_ns < 2 * LIFE_NS {
            return None;
        }
        Some(Self {
            remote: syn.remote,
            local: syn.local,
            change,
            until_ticks: now_ticks + LIFE_TICKS,
            banned_at_ns: dropped.banned_at_ns,
            uncounted: 0,
            port: syn.port,
            service: dropped.service,
            reason: dropped.reason as u8,
        })
    }
}

/// Everything a CPU remembers: one value of a map, so that it is found by one look-up and read by one call.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct DropCache(pub [CachedDrop; CACHED_DROPS]);

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for DropCache {}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn syn((remote, local, port): (IpAddr, IpAddr, u16)) -> Syn {
        Syn::new(&remote.into(), &local.into(), port)
    }

    fn dropped(left_ns: u64) -> Dropped {
        Dropped { service: 1, reason: Reason::Banned, banned_at_ns: 7, left_ns }
    }

    proptest! {
        #[test]
        fn it_holds_for_one_syn_until_anything_is_changed_or_its_time_is_over(
            a: (IpAddr, IpAddr, u16), b: (IpAddr, IpAddr, u16), change: (u64, u64), now in 0..u64::MAX / 2,
            later in 0..3 * LIFE_TICKS,
        ) {
            let (a, b) = (syn(a), syn(b));
            let cached = CachedDrop::new(&a, &dropped(u64::MAX), change.0, now).unwrap();
            prop_assert_eq!(cached.holds(&a, change.0, now + later), later < LIFE_TICKS);
            prop_assert_eq!(cached.holds(&b, change.0, now), a == b);
            prop_assert_eq!(cached.holds(&a, change.1, now), change.0 == change.1);
        }

        #[test]
        fn what_differs_in_anything_is_another_syn(
            a: (IpAddr, IpAddr, u16), bit in 0u32..128, is_remote: bool, port: u16,
        ) {
            let flip = |ip: IpAddr| {
                let Addr(mut words) = Addr::from(ip);
                words[(bit / 32) as usize] ^= 1 << (bit % 32);
                Addr(words)
            };
            let (remote, local): (Addr, Addr) = (a.0.into(), a.1.into());
            let other = if is_remote {
                Syn::new(&flip(a.0), &local, a.2)
            } else {
                Syn::new(&remote, &flip(a.1), a.2)
            };
            let cached = CachedDrop::new(&syn(a), &dropped(u64::MAX), 1, 1).unwrap();
            prop_assert!(!cached.is_of(&other));
            prop_assert_eq!(cached.is_of(&Syn::new(&remote, &local, port)), port == a.2);
            prop_assert_eq!(cached.remote(), remote);
        }

        /// Time goes on from the verdict by `later_ns`; of the ticks meanwhile, at 100 to 1000 Hz, the last one may
        /// be late.
        #[test]
        fn no_cached_drop_outlives_its_ban(
            a: (IpAddr, IpAddr, u16), now in 0..u64::MAX / 2, left_ns: u64, later_ns in 0..10 * LIFE_NS,
            hertz in 100u64..=1000,
        ) {
            let cached = CachedDrop::new(&syn(a), &dropped(left_ns), 3, now);
            prop_assert_eq!(cached.is_none(), left_ns < 2 * LIFE_NS);
            let ticks = (later_ns / (LIFE_NS / hertz)).saturating_sub(1);
            if cached.is_some_and(|cached| cached.holds(&syn(a), 3, now + ticks)) {
                prop_assert!(later_ns < left_ns);
            }
        }

        #[test]
        fn an_empty_slot_holds_for_nothing(a: (IpAddr, IpAddr, u16), now: u64) {
            prop_assert!(!CachedDrop::default().holds(&syn(a), 0, now));
        }

        #[test]
        fn neighbours_are_spread_over_the_slots(first: u32, net: u64, local: IpAddr, port: u16) {
            let v4 = |n: u32| IpAddr::from(first.wrapping_add(n).to_be_bytes());
            let v6 = |n: u32| IpAddr::from((u128::from(net.wrapping_add(n.into())) << 64 | 1).to_be_bytes());
            for sources in [(0..256).map(v4).collect::<Vec<_>>(), (0..256).map(v6).collect()] {
                let mut taken = [false; CACHED_DROPS];
                for source in sources {
                    taken[syn((source, local, port)).slot()] = true;
                }
                // At random, 256 sources would take 162 of as many places.
                prop_assert!(taken.iter().filter(|&&taken| taken).count() > 100);
            }
        }
    }
}
