// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The grounds of a refusal: what the verdict was made on, and how it gets from the verdict to the client.
//!
//! The verdict is made on the SYN, when there is no connection, and told on the connection. In between it is kept
//! twice, as one number each time ([`Grounds::pack`]):
//!
//! - From the SYN to the ACK in [`Refused`], a slot of an array for the handshake's addresses and ports. There are
//!   [`SLOTS`] of them, so a SYN, which may be forged, makes nothing grow. It may displace another; then the ledger
//!   program judges the connection anew when it is established.
//! - From then on in two options of the socket itself ([`Options`]), that whoever has the socket can read.

use bytemuck::{Pod, Zeroable};

use crate::{Count, Limits, Reason, Usage, count::Word, waiting::Flow};

/// How many handshakes can be between refusal and reply at one time without one displacing another: 768 KiB.
pub const SLOTS: u32 = 16_384;

/// Why a connection is refused, as the verdict had it before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grounds {
    /// The limit that is reached.
    pub reason: Reason,
    /// What there is of that which is limited: connections, reservations, and places kept for waiters. At least `limit`
    /// where that is reached; more where it was lowered since. Of [`Reason::Rate`], the source's.
    pub count: u32,
    /// The limit of connections: of the service, of the network or of the source. Of [`Reason::Rate`], the source's.
    /// [`Grounds::MAX`] or more: none.
    pub limit: u32,
}

impl Grounds {
    /// The largest `count` and `limit` that are told exactly; larger ones become this.
    pub const MAX: u32 = (1 << NUMBER_BITS) - 1;

    /// The count and the limit that a refusal for `reason` is about, of somebody whose `usage` met these `limits`, and whose
    /// network is, or is not, counted beside it ([`crate::CountKeys::has_network`]).
    #[inline(always)]
    #[must_use]
    pub const fn reached(reason: Reason, usage: &Usage, limits: &Limits, has_network: bool) -> (Count, u32) {
        match reason {
            Reason::Total => (usage.total, limits.total),
            Reason::Network if has_network => (usage.network, limits.network),
            _ => (usage.source, limits.source),
        }
    }

    /// Of a refusal for `reason`, which is about this `count` and this `limit`.
    #[inline(always)]
    #[must_use]
    pub const fn of(reason: Reason, (count, limit): (Count, u32)) -> Self {
        // Of those that wait, as many as there are places kept for them.
        let (taken, wanted, most) = (count.taken(), count.wanted(), limit as u64);
        let kept = if wanted < most { wanted } else { most };
        Self { reason, count: at_most(if taken < kept { kept } else { taken }), limit: at_most(most) }
    }

    /// In the low [`BITS`] of a number.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.reason as u64
            | (at_most(self.count as u64) as u64) << REASON_BITS
            | (at_most(self.limit as u64) as u64) << (REASON_BITS + NUMBER_BITS)
    }

    /// From there; the other bits are ignored.
    #[inline(always)]
    #[must_use]
    pub const fn unpack(packed: u64) -> Self {
        Self {
            reason: Reason::from_u8((packed & ((1 << REASON_BITS) - 1)) as u8),
            count: (packed >> REASON_BITS) as u32 & Self::MAX,
            limit: (packed >> (REASON_BITS + NUMBER_BITS)) as u32 & Self::MAX,
        }
    }
}

const REASON_BITS: u32 = 3;
const NUMBER_BITS: u32 = 21;

/// How many bits [`Grounds::pack`] takes.
pub const BITS: u32 = REASON_BITS + 2 * NUMBER_BITS;

#[inline(always)]
const fn at_most(number: u64) -> u32 {
    if number < Grounds::MAX as u64 { number as u32 } else { Grounds::MAX }
}

/// Two options of a TCP socket that hold [`Grounds`]. A BPF program may set both (Linux 5.10), and whoever has the
/// socket may read both. Neither changes what the socket does, nor what the peer sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// `TCP_NOTSENT_LOWAT`: a socket is writable while it has fewer bytes than this that are not sent, so anything
    /// from 2 GiB on is the same as no bound, which is the default.
    pub notsent_lowat: u32,
    /// `TCP_KEEPIDLE`, seconds, 1 to 32,767: of no meaning while `SO_KEEPALIVE` is off.
    pub keepidle_s: u32,
}

/// Set in each [`Options::notsent_lowat`], and in none of a socket that bears nothing.
const IS_SET: u32 = 1 << LOW_BITS;
const LOW_BITS: u32 = 31;

impl Options {
    /// Those that hold `packed` grounds.
    #[inline(always)]
    #[must_use]
    pub const fn of(packed: u64) -> Self {
        Self {
            notsent_lowat: packed as u32 | IS_SET,
            // 0 is none that the kernel takes.
            keepidle_s: (packed >> LOW_BITS) as u32 % (1 << (BITS - LOW_BITS)) + 1,
        }
    }

    /// What they hold; `None` if that is nothing.
    #[must_use]
    pub const fn grounds(self) -> Option<Grounds> {
        let is_one = self.keepidle_s >= 1 && self.keepidle_s <= 1 << (BITS - LOW_BITS);
        if self.notsent_lowat & IS_SET == 0 || self.notsent_lowat == u32::MAX || !is_one {
            return None;
        }
        let low = (self.notsent_lowat & (IS_SET - 1)) as u64;
        Some(Grounds::unpack(low | (self.keepidle_s as u64 - 1) << LOW_BITS))
    }
}

/// A handshake that was refused, until it is complete.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Refused {
    /// 0: there is none. `BUSY`: a program writes it. Else its grounds and the client's port ([`Refused::word`]).
    pub word: u64,
    /// The client's address, in halves.
    pub remote: [u64; 2],
    /// The address it connects to.
    pub local: [u64; 2],
    /// The port there.
    pub local_port: u64,
}

/// The word of a slot that a program writes. No [`Refused::word`] is it.
const BUSY: u64 = u64::MAX;

impl Refused {
    /// The slot of a handshake. Those of one source have as many as ports; a client that begins one after the other takes
    /// ports that are neighbours, and so are the slots, which the processor then has at hand.
    #[inline(always)]
    #[must_use]
    pub const fn slot(flow: &Flow) -> u32 {
        let ([a, b], [_, c]) = (flow.remote.halves(), flow.local.halves());
        let mixed = (a ^ b ^ c >> 32 ^ flow.local_port as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 32) as u32).wrapping_add(flow.remote_port as u32) & (SLOTS - 1)
    }

    /// Of a handshake that was refused on `packed` grounds. With the port in it, two handshakes of one source that are
    /// refused for the same have different words.
    #[inline(always)]
    #[must_use]
    pub const fn word(flow: &Flow, packed: u64) -> u64 {
        1 << 63 | (flow.remote_port as u64) << BITS | packed
    }

    /// All but the word.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow: &Flow) -> Self {
        Self {
            word: BUSY,
            remote: flow.remote.halves(),
            local: flow.local.halves(),
            local_port: flow.local_port as u64,
        }
    }
}

/// Takes a slot to write in it, by its word, whoever has it; `false` if somebody writes in it at this moment.
/// [`publish`] must follow.
#[inline(always)]
#[must_use]
pub fn claim<W: Word>(word: &W) -> bool {
    let now = word.load();
    now != BUSY && word.compare_exchange(now, BUSY) == now
}

/// Gives it to the handshake with this [`Refused::word`].
#[inline(always)]
pub fn publish<W: Word>(word: &W, new: u64) {
    let _claimed = word.compare_exchange(BUSY, new);
}

/// Takes the grounds of a handshake out of its slot. `is_its_own` says whether all but the word, which was read before, is
/// of it. What is written there meanwhile has another word, so nobody has another's grounds.
#[inline(always)]
#[must_use]
pub fn take<W: Word>(word: &W, flow: &Flow, is_its_own: impl FnOnce() -> bool) -> Option<u64> {
    let seen = word.load();
    let packed = seen & ((1 << BITS) - 1);
    (seen == Refused::word(flow, packed) && is_its_own() && word.compare_exchange(seen, 0) == seen)
        .then_some(packed)
}

const _: () = assert!(size_of::<Refused>() == 48 && SLOTS.is_power_of_two());
// The largest that the kernel takes (MAX_TCP_KEEPIDLE, include/net/tcp.h).
const _: () = assert!(1 << (BITS - LOW_BITS) <= 32_767);

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for Refused {}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use proptest::prelude::*;

    use super::*;
    use crate::Addr;

    fn any_grounds() -> impl Strategy<Value = Grounds> {
        let number = 0..=Grounds::MAX;
        (prop::sample::select(&Reason::ALL), number.clone(), number)
            .prop_map(|(reason, count, limit)| Grounds { reason, count, limit })
    }

    fn any_flow() -> impl Strategy<Value = Flow> {
        any::<([u32; 4], [u32; 4], u16, u16)>().prop_map(|(remote, local, remote_port, local_port)| Flow {
            remote: Addr(remote),
            local: Addr(local),
            remote_port,
            local_port,
            zero: 0,
        })
    }

    proptest! {
        #[test]
        fn grounds_are_read_as_they_were_packed(grounds in any_grounds(), other in any_grounds(), above: u64) {
            let packed = grounds.pack();
            prop_assert!(packed < 1 << BITS);
            prop_assert_eq!(Grounds::unpack(packed | above << BITS), grounds);
            prop_assert_eq!(packed == other.pack(), grounds == other);
        }

        #[test]
        fn a_number_too_large_to_be_told_is_the_largest_there_is(grounds in any_grounds(), more: u32) {
            let too_large = Grounds::MAX.saturating_add(more);
            let packed = Grounds { count: too_large, limit: too_large, ..grounds }.pack();
            let largest = Grounds { count: Grounds::MAX, limit: Grounds::MAX, ..grounds };
            prop_assert_eq!(Grounds::unpack(packed), largest);
        }

        #[test]
        fn socket_options_hold_the_grounds_and_are_in_the_kernels_range(grounds in any_grounds()) {
            let options = Options::of(grounds.pack());
            prop_assert_eq!(options.grounds(), Some(grounds));
            // Whatever is to be sent, nothing waits for what is not sent yet.
            prop_assert!(options.notsent_lowat >= 1 << 31);
            prop_assert!((1..=32_767).contains(&options.keepidle_s));
        }

        #[test]
        fn options_that_hold_nothing_are_not_read_as_grounds(lowat in 0..IS_SET, keepidle: u32, set: u32) {
            prop_assert_eq!(Options { notsent_lowat: lowat, keepidle_s: keepidle }.grounds(), None);
            prop_assert_eq!(Options { notsent_lowat: u32::MAX, keepidle_s: keepidle }.grounds(), None);
            prop_assert_eq!(Options { notsent_lowat: set | IS_SET, keepidle_s: 0 }.grounds(), None);
            let most = 1 << (BITS - LOW_BITS);
            let options = Options { notsent_lowat: set | IS_SET, keepidle_s: keepidle.max(most + 1) };
            prop_assert_eq!(options.grounds(), None);
        }

        /// The count told is never below a limit that is reached, and above it only where more is held than it allows.
        #[test]
        fn a_reached_limit_is_told_as_reached(
            held in 0u32..40, reserved in 0u32..4, waiting in 0u32..40, limit in 1u32..40,
            reason in 2u8..6, other: u64,
        ) {
            let reason = Reason::from_u8(reason);
            let count = Count(u64::from(waiting) << 48 | u64::from(reserved) << 32 | u64::from(held));
            let mut usage = Usage {
                source: Count(other), network: Count(other), total: Count(other), ..Default::default()
            };
            let mut limits = Limits { source: 1, network: 2, total: 3, ..Limits::NONE };
            let (usage_of, limit_of) = match reason {
                Reason::Total => (&mut usage.total, &mut limits.total),
                Reason::Network => (&mut usage.network, &mut limits.network),
                _ => (&mut usage.source, &mut limits.source),
            };
            (*usage_of, *limit_of) = (count, limit);
            let grounds = Grounds::of(reason, Grounds::reached(reason, &usage, &limits, true));
            let taken = held + reserved;
            prop_assert_eq!((grounds.reason, grounds.limit), (reason, limit));
            prop_assert_eq!(grounds.count, taken.max(limit.min(taken + waiting)));
            // Who shares an entry with others is refused for what is held there.
            if reason == Reason::Network {
                let usage = Usage { source: count, ..usage };
                let grounds = Grounds::of(reason, Grounds::reached(reason, &usage, &limits, false));
                prop_assert_eq!(grounds.limit, limits.source);
            }
        }

        /// Whatever others write into the slot, a handshake has its own grounds, once, or none.
        #[test]
        fn a_handshake_takes_its_own_grounds_once_and_never_those_of_another(
            flows in prop::collection::vec((any_flow(), any_grounds()), 1..4),
            steps in prop::collection::vec((0usize..4, any::<bool>()), 0..20),
        ) {
            let word = AtomicU64::new(0);
            let mut slot = Refused::default();
            let mut holder = None;
            for (flow, writes) in steps {
                let (flow, grounds) = flows[flow % flows.len()];
                prop_assert!(Refused::slot(&flow) < SLOTS);
                if writes {
                    prop_assert!(claim(&word));
                    prop_assert!(!claim(&word), "it is written in");
                    prop_assert_eq!(take(&word, &flow, || true), None);
                    slot = Refused::of(&flow);
                    publish(&word, Refused::word(&flow, grounds.pack()));
                    holder = Some(flow);
                } else {
                    let of = Refused::of(&flow);
                    let is_its_own = || {
                        (slot.remote, slot.local, slot.local_port) == (of.remote, of.local, of.local_port)
                    };
                    let taken = take(&word, &flow, is_its_own).map(Grounds::unpack);
                    prop_assert_eq!(taken, (holder == Some(flow)).then_some(grounds));
                    if taken.is_some() {
                        holder = None;
                        prop_assert_eq!(word.load(SeqCst), 0);
                    }
                }
            }
        }
    }
}
