//! The count of one (service, tier, source), and the protocol that keeps it exact on many CPUs.
//!
//! A count is one 64-bit word: connections in the low half, reservations in the high half. Everything
//! that changes it is one atomic step on that word:
//!
//! | who | step | effect |
//! |---|---|---|
//! | gate, on the ACK that completes a handshake | [`reserve`] | +1 reserved, if there is room |
//! | ledger, when the connection is established | [`commit`] | -1 reserved, +1 connection |
//! | gate, when no connection came of it | [`cancel`] | -1 reserved |
//! | ledger, for what came in without reservation | [`count`] | +1 connection |
//! | ledger, when the connection is let go | [`release`] | -1 connection |
//! | steward, for a source long gone | [`collect`] | 0 becomes [`Places::COLLECTED`], for ever |
//!
//! A collected word accepts no reservation, so its entry can be deleted without losing a count: there
//! is none, and none can come.

use bytemuck::{Pod, Zeroable};

/// A snapshot of a count.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Places(pub u64);

const ONE: u64 = 1;
const RESERVED: u64 = 1 << 32;

impl Places {
    /// The mark of an entry that is about to be deleted. No live count reaches it: it would be
    /// 2³²-1 connections and as many reservations.
    pub const COLLECTED: Self = Self(u64::MAX);

    /// Established connections. 0 when collected.
    #[inline(always)]
    #[must_use]
    pub const fn connections(self) -> u32 {
        if self.0 == Self::COLLECTED.0 { 0 } else { self.0 as u32 }
    }

    /// Handshakes that hold a place and are not established yet; at most one a CPU.
    #[inline(always)]
    #[must_use]
    pub const fn reserved(self) -> u32 {
        if self.0 == Self::COLLECTED.0 { 0 } else { (self.0 >> 32) as u32 }
    }

    /// Whether one more would fit under `limit`, reservations included.
    #[inline(always)]
    #[must_use]
    pub const fn has_room(self, limit: u32) -> bool {
        (self.connections() as u64 + self.reserved() as u64) < limit as u64
    }
}

/// A 64-bit word shared between CPUs. Implemented by the standard atomics on the host and by BPF
/// atomic instructions in the kernel (`limiter-ebpf/src/atomic.rs`).
pub trait Word {
    /// The present value.
    fn load(&self) -> u64;
    /// Adds, wrapping; returns the value before. Sequentially consistent.
    fn fetch_add(&self, value: u64) -> u64;
    /// Stores `new` if the value is `old`; returns the value before either way.
    fn compare_exchange(&self, old: u64, new: u64) -> u64;
}

/// How often [`reserve`] tries again when another CPU changed the word in between. Each failure means
/// that another CPU succeeded, so this many in a row do not happen outside of a fault.
pub const TRIES: u32 = 32;

/// What became of a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reservation {
    /// A place is held; [`commit`] or [`cancel`] must follow.
    Taken,
    /// There is no place under the limit.
    Full,
    /// Other CPUs were faster [`TRIES`] times. Nothing was changed; the peer's ACK comes again.
    Contended,
    /// The entry is being deleted. Nothing was changed; the peer's ACK comes again.
    Collected,
}

/// Takes a place under `limit`, if there is one: one successful compare-and-exchange, so two CPUs
/// can never take the same place.
#[inline(always)]
pub fn reserve<W: Word>(word: &W, limit: u32) -> Reservation {
    let mut now = word.load();
    for _ in 0..TRIES {
        if now == Places::COLLECTED.0 {
            return Reservation::Collected;
        }
        if !Places(now).has_room(limit) {
            return Reservation::Full;
        }
        let before = word.compare_exchange(now, now + RESERVED);
        if before == now {
            return Reservation::Taken;
        }
        now = before;
    }
    Reservation::Contended
}

/// Turns a reservation into a connection, in one step; returns the connections there are now.
#[inline(always)]
pub fn commit<W: Word>(word: &W) -> u32 {
    (word.fetch_add(ONE.wrapping_sub(RESERVED)) as u32).wrapping_add(1)
}

/// Gives a reservation back.
#[inline(always)]
pub fn cancel<W: Word>(word: &W) {
    word.fetch_add(RESERVED.wrapping_neg());
}

/// Counts a connection that holds no reservation; returns the connections there are now, or `None`
/// if the entry is being deleted and nothing was counted.
#[inline(always)]
pub fn count<W: Word>(word: &W) -> Option<u32> {
    let mut now = word.load();
    for _ in 0..TRIES {
        if now == Places::COLLECTED.0 {
            return None;
        }
        let before = word.compare_exchange(now, now.wrapping_add(ONE));
        if before == now {
            return Some((now as u32).wrapping_add(1));
        }
        now = before;
    }
    None
}

/// Lets a connection go. `false` if none was counted: the word is left as it was, and the caller
/// reports drift.
#[inline(always)]
pub fn release<W: Word>(word: &W) -> bool {
    let before = word.fetch_add(ONE.wrapping_neg());
    if before as u32 == 0 || before == Places::COLLECTED.0 {
        word.fetch_add(ONE);
        return false;
    }
    true
}

/// Marks an unused word as collected; `false` if it is in use, or already collected.
#[inline(always)]
pub fn collect<W: Word>(word: &W) -> bool {
    word.compare_exchange(0, Places::COLLECTED.0) == 0
}

#[cfg(test)]
mod tests;
