// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The count of one (service, tier, source), and the protocol that keeps it exact on many CPUs.
//!
//! A count is one 64-bit word: connections in the low half, reservations in the next 16 bits, handshakes
//! that wait for it in the last 16. Everything that changes it is one atomic step on that word:
//!
//! | who | step | effect |
//! |---|---|---|
//! | gate, on the ACK that completes a handshake | [`reserve`] | +1 reserved, if there is room |
//! | the same for a handshake that waited | [`reserve`] | +1 reserved and -1 waiting, if there is room |
//! | gate, where no place is free | [`wait`] | +1 waiting, if not too many wait |
//! | whoever removes one that waits | [`leave`] | -1 waiting |
//! | ledger, when the connection is established | [`commit`] | -1 reserved, +1 connection |
//! | gate, when no connection came of it | [`cancel`] | -1 reserved |
//! | ledger, for what came in without reservation | [`count`] | +1 connection |
//! | ledger or release, when the connection is let go | [`release`] | -1 connection |
//! | maintenance, for a source long gone | [`collect`] | 0 becomes [`Count::COLLECTED`], for ever |
//!
//! A collected word accepts no reservation, so its entry can be deleted without losing a count: there
//! is none, and none can come.

use bytemuck::{Pod, Zeroable};

/// A snapshot of a count.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Count(pub u64);

const ONE: u64 = 1;
const RESERVED: u64 = 1 << 32;
const WAITING: u64 = 1 << 48;

/// The most handshakes that may wait in one count: far from where the bits end, so that CPUs that are a
/// step apart cannot get there.
pub const MAX_WAITING: u32 = 1 << 14;

impl Count {
    /// The mark of an entry that is about to be deleted. No live count reaches it: it would be
    /// 2³²-1 connections.
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
        if self.0 == Self::COLLECTED.0 { 0 } else { (self.0 >> 32) as u16 as u32 }
    }

    /// Handshakes that are complete but for a place, and wait for one of this count.
    #[inline(always)]
    #[must_use]
    pub const fn waiting(self) -> u32 {
        if self.0 == Self::COLLECTED.0 { 0 } else { (self.0 >> 48) as u32 }
    }

    /// Count that are not free: connections and reservations.
    #[inline(always)]
    #[must_use]
    pub const fn taken(self) -> u64 {
        self.connections() as u64 + self.reserved() as u64
    }

    /// Count that are not free for somebody new: those taken, and one for each that waits.
    #[inline(always)]
    #[must_use]
    pub const fn wanted(self) -> u64 {
        self.taken() + self.waiting() as u64
    }

    /// The same count as if nobody waited.
    #[inline(always)]
    #[must_use]
    pub const fn without_waiting(self) -> Self {
        if self.0 == Self::COLLECTED.0 { self } else { Self(self.0 & (WAITING - 1)) }
    }

    /// The same with another number of connections.
    #[must_use]
    pub const fn with_connections(self, connections: u32) -> Self {
        Self(self.0 >> 32 << 32 | connections as u64)
    }

    /// The same with another number that wait, at most [`MAX_WAITING`].
    #[must_use]
    pub const fn with_waiting(self, waiting: u32) -> Self {
        Self(self.0 & (WAITING - 1) | (waiting as u64) << 48)
    }

    /// Whether one more that waits for a place of this count may keep one from others, of `limit`. Of a full count, as many
    /// are kept as it has places.
    #[inline(always)]
    #[must_use]
    pub const fn keeps_for(self, limit: u32) -> bool {
        self.waiting() < limit
    }

    /// The same where one above this count may be kept for the waiter, too: while it has places left, they are for no more
    /// than there are of them. So what is kept for its members elsewhere is never more than they could take.
    #[inline(always)]
    #[must_use]
    pub const fn keeps_within(self, limit: u32) -> bool {
        self.wanted() < limit as u64 || self.taken() >= limit as u64 && self.keeps_for(limit)
    }

    /// Whether `turn` may have one more under `limit`.
    #[inline(always)]
    #[must_use]
    pub const fn has_room(self, limit: u32, turn: Turn) -> bool {
        self.taken() + self.waiting() as u64 * (1 - turn.overtakes) < limit as u64
    }
}

/// How a handshake comes to a count. Numbers instead of truths, which are only calculated with: the verifier
/// would follow each of two ways from here to the end of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// 1: it may take a place although others wait: it is one of them, or nobody serves them. 0: not.
    pub overtakes: u64,
    /// 1: it is one of those that wait here, and stops waiting with the same step. 0: not.
    pub waits: u64,
}

impl Turn {
    /// Somebody new, who leaves alone what others wait for.
    pub const NEW: Self = Self { overtakes: 0, waits: 0 };
    /// Somebody new where nobody serves those that wait.
    pub const UNATTENDED: Self = Self { overtakes: 1, waits: 0 };
    /// One that waits for this count, and whose turn it is.
    pub const WAITED: Self = Self { overtakes: 1, waits: 1 };

    /// What is added to the word for it.
    #[inline(always)]
    const fn step(self) -> u64 {
        RESERVED.wrapping_sub(WAITING * self.waits)
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
pub enum Reserved {
    /// A place is held; [`commit`] or [`cancel`] must follow.
    Taken,
    /// There is no place under the limit.
    Full,
    /// Other CPUs were faster [`TRIES`] times. Nothing was changed; the peer's ACK comes again.
    Contended,
    /// The entry is being deleted. Nothing was changed; the peer's ACK comes again.
    Collected,
}

/// Takes a place under `limit`, if there is one for this `turn`: one successful compare-and-exchange, so two
/// CPUs can never take the same place.
#[inline(always)]
pub fn reserve<W: Word>(word: &W, limit: u32, turn: Turn) -> Reserved {
    let mut now = word.load();
    for _ in 0..TRIES {
        if now == Count::COLLECTED.0 {
            return Reserved::Collected;
        }
        if !Count(now).has_room(limit, turn) {
            return Reserved::Full;
        }
        let before = word.compare_exchange(now, now.wrapping_add(turn.step()));
        if before == now {
            return Reserved::Taken;
        }
        now = before;
    }
    Reserved::Contended
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

/// Takes [`reserve`] back: who waited waits again.
#[inline(always)]
pub fn undo<W: Word>(word: &W, turn: Turn) {
    word.fetch_add(turn.step().wrapping_neg());
}

/// Becomes one of at most `most` that wait for a place. [`reserve`] with [`Turn::WAITED`], or [`leave`], must
/// follow.
#[inline(always)]
pub fn wait<W: Word>(word: &W, most: u32) -> Reserved {
    wait_while(word, |count| count.waiting() < most)
}

/// The same while it `may`.
#[inline(always)]
pub fn wait_while<W: Word>(word: &W, may: impl Fn(Count) -> bool) -> Reserved {
    let mut now = word.load();
    for _ in 0..TRIES {
        if now == Count::COLLECTED.0 {
            return Reserved::Collected;
        }
        if Count(now).waiting() >= MAX_WAITING || !may(Count(now)) {
            return Reserved::Full;
        }
        let before = word.compare_exchange(now, now.wrapping_add(WAITING));
        if before == now {
            return Reserved::Taken;
        }
        now = before;
    }
    Reserved::Contended
}

/// Stops waiting.
#[inline(always)]
pub fn leave<W: Word>(word: &W) {
    word.fetch_add(WAITING.wrapping_neg());
}

/// Counts a connection that holds no reservation; returns the connections there are now, or `None`
/// if the entry is being deleted and nothing was counted.
#[inline(always)]
pub fn count<W: Word>(word: &W) -> Option<u32> {
    let mut now = word.load();
    for _ in 0..TRIES {
        if now == Count::COLLECTED.0 {
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
    if before as u32 == 0 || before == Count::COLLECTED.0 {
        word.fetch_add(ONE);
        return false;
    }
    true
}

/// Marks an unused word as collected; `false` if it is in use, or already collected.
#[inline(always)]
pub fn collect<W: Word>(word: &W) -> bool {
    word.compare_exchange(0, Count::COLLECTED.0) == 0
}

#[cfg(test)]
mod tests;
