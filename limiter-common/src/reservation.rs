// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a connection takes: a place in each count it falls under, all of them or none.
//!
//! The counts are taken in one fixed order (source, network, total), each by one atomic step of
//! [`crate::count`], then the rate is paid; what cannot be completed is given back. So no count is
//! ever over its limit, and two sources that race for the last place of a service may both wait for a
//! moment, but never both get it.

use crate::{
    Count, CountKeys, Key,
    count::{self, MAX_WAITING, Reserved, Turn, Word},
    rate,
    verdict::{Limits, Reason},
};

/// The words of everything one connection takes, shared with other CPUs.
#[derive(Clone, Copy)]
pub struct CountWords<'a, W> {
    /// The source's count.
    pub source: &'a W,
    /// Its network's count, where that is counted.
    pub network: Option<&'a W>,
    /// The service's count.
    pub total: &'a W,
    /// All that wait for a place of the service, whatever for.
    pub waiting: &'a W,
    /// When the source is due.
    pub due: &'a W,
}

/// What became of a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every place is held, and the rate paid; [`commit`] or [`cancel`] must follow.
    Taken,
    /// One more would be over this limit. Nothing is held, and who waited waits.
    Full(Reason),
    /// Another CPU was faster, or an entry is being deleted. Nothing is held, and who waited waits; the peer's
    /// ACK comes again.
    Again,
}

/// What became of a handshake for which there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// It waits; [`reserve`] with its [`Arrival::marks`], or [`leave`], must follow.
    Waits,
    /// As many of its source wait as may. It is marked nowhere.
    SourceFull,
    /// As many wait at the listener as may. It is marked nowhere.
    ListenerFull,
    /// Another CPU was faster, or an entry is being deleted. It is marked nowhere.
    Again,
}

/// The counts in which a handshake is marked as one that waits: always in its source's, so that its source has
/// only so many, and in that of its network or its service where that is what it waits for. In others it would
/// keep places from those who could use them.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WaitMarks(pub u8);

impl WaitMarks {
    /// In none.
    pub const NONE: Self = Self(0);
    const SOURCE: u8 = 1;
    const NETWORK: u8 = 2;
    const TOTAL: u8 = 4;

    /// Those of a handshake that waits because of `reason`.
    #[inline(always)]
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        match reason {
            Reason::Network => Self(Self::SOURCE | Self::NETWORK),
            Reason::Total => Self(Self::SOURCE | Self::TOTAL),
            _ => Self(Self::SOURCE),
        }
    }

    /// Whether it waits at all.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Of the counts of `count_keys`, those in which one with these marks is.
    pub fn keys(self, count_keys: &CountKeys) -> impl Iterator<Item = Key> + use<> {
        let [of_source, of_network, total] =
            [Self::SOURCE, Self::NETWORK, Self::TOTAL].map(|tier| self.has(tier));
        let keys = [
            of_source.then_some(count_keys.source),
            (of_network && count_keys.has_network()).then_some(count_keys.network),
            total.then_some(Key::total(count_keys.service())),
        ];
        keys.into_iter().flatten()
    }

    #[inline(always)]
    const fn has(self, tier: u8) -> bool {
        self.0 & tier != 0
    }
}

/// How a handshake comes to its counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Where it waits; nowhere, if it is new.
    pub marks: WaitMarks,
    /// 1: nobody serves those that wait, and it takes what is free. 0: it leaves alone what others wait for.
    pub overtakes: u64,
}

impl Arrival {
    /// It is new.
    pub const NEW: Self = Self { marks: WaitMarks::NONE, overtakes: 0 };
    /// It is new, and nobody serves those that wait.
    pub const UNATTENDED: Self = Self { marks: WaitMarks::NONE, overtakes: 1 };

    /// How it comes to the count of a tier, by the number of its mark's bit.
    #[inline(always)]
    const fn turn(self, bit: u32) -> Turn {
        let waits = (self.marks.0 >> bit) as u64 & 1;
        Turn { overtakes: self.overtakes | waits, waits }
    }
}

/// Takes a place in every count, and pays for the handshake.
#[inline(always)]
#[must_use]
pub fn reserve<W: Word>(
    words: &CountWords<'_, W>,
    limits: &Limits,
    now_ns: u64,
    arrival: Arrival,
) -> Outcome {
    let (of_source, network, total) = (arrival.turn(0), arrival.turn(1), arrival.turn(2));
    match count::reserve(words.source, limits.source, of_source) {
        Reserved::Taken => {}
        other => return not_taken(other, Reason::Concurrency),
    }
    if let Some(of_network) = words.network {
        match count::reserve(of_network, limits.network, network) {
            Reserved::Taken => {}
            other => {
                count::undo(words.source, of_source);
                return not_taken(other, Reason::Network);
            }
        }
    }
    let outcome = match count::reserve(words.total, limits.total, total) {
        Reserved::Taken => match pay(words, limits, now_ns, arrival) {
            Outcome::Taken => {
                if !arrival.marks.is_none() {
                    count::leave(words.waiting);
                }
                return Outcome::Taken;
            }
            other => {
                count::undo(words.total, total);
                other
            }
        },
        other => not_taken(other, Reason::Total),
    };
    if let Some(of_network) = words.network {
        count::undo(of_network, network);
    }
    count::undo(words.source, of_source);
    outcome
}

/// Pays for a handshake. One that is new leaves those that wait theirs.
#[inline(always)]
fn pay<W: Word>(words: &CountWords<'_, W>, limits: &Limits, now_ns: u64, arrival: Arrival) -> Outcome {
    if !limits.rate.is_limited() {
        return Outcome::Taken;
    }
    if arrival.marks.is_none() && arrival.overtakes == 0 {
        let waiting = Count(words.source.load()).waiting();
        if waiting != 0 && !limits.rate.allows_behind(words.due.load(), now_ns, waiting) {
            return Outcome::Full(Reason::Rate);
        }
    }
    match rate::pay(words.due, &limits.rate, now_ns) {
        Some(true) => Outcome::Taken,
        Some(false) => Outcome::Full(Reason::Rate),
        None => Outcome::Again,
    }
}

#[inline(always)]
const fn not_taken(reserved: Reserved, reason: Reason) -> Outcome {
    match reserved {
        Reserved::Full => Outcome::Full(reason),
        _ => Outcome::Again,
    }
}

/// Becomes one that waits where `marks` says, of at most `most` of its source and `capacity` of the service;
/// [`reserve`] with these marks takes it from there again, or [`leave`].
#[inline(always)]
#[must_use]
pub fn wait<W: Word>(words: &CountWords<'_, W>, marks: WaitMarks, most: u32, capacity: u32) -> Wait {
    match count::wait(words.source, most) {
        Reserved::Taken => {}
        Reserved::Full => return Wait::SourceFull,
        Reserved::Contended | Reserved::Collected => return Wait::Again,
    }
    let waits = match count::wait(words.waiting, capacity) {
        Reserved::Taken => {
            let Some(word) = tier(words, marks) else { return Wait::Waits };
            if matches!(count::wait(word, MAX_WAITING), Reserved::Taken) {
                return Wait::Waits;
            }
            count::leave(words.waiting);
            Wait::Again
        }
        Reserved::Full => Wait::ListenerFull,
        Reserved::Contended | Reserved::Collected => Wait::Again,
    };
    count::leave(words.source);
    waits
}

/// Stops waiting where `marks` says.
#[inline(always)]
pub fn leave<W: Word>(words: &CountWords<'_, W>, marks: WaitMarks) {
    if let Some(word) = tier(words, marks) {
        count::leave(word);
    }
    count::leave(words.waiting);
    count::leave(words.source);
}

/// Waits where `to` says, no longer where `from` does; `false`, and nothing is changed, where there is no room for
/// one more.
#[inline(always)]
#[must_use]
pub fn wait_on<W: Word>(words: &CountWords<'_, W>, from: WaitMarks, to: WaitMarks) -> bool {
    if let Some(word) = tier(words, to)
        && !matches!(count::wait(word, MAX_WAITING), Reserved::Taken)
    {
        return false;
    }
    if let Some(word) = tier(words, from) {
        count::leave(word);
    }
    true
}

/// The count, beside its source's, in which one is marked.
#[inline(always)]
const fn tier<'a, W: Word>(words: &CountWords<'a, W>, marks: WaitMarks) -> Option<&'a W> {
    if marks.has(WaitMarks::TOTAL) {
        Some(words.total)
    } else if marks.has(WaitMarks::NETWORK) {
        words.network
    } else {
        None
    }
}

/// Turns a reservation into a connection; returns the connections the source has now.
#[inline(always)]
#[must_use]
pub fn commit<W: Word>(words: &CountWords<'_, W>) -> u32 {
    count::commit(words.total);
    if let Some(of_network) = words.network {
        count::commit(of_network);
    }
    count::commit(words.source)
}

/// Gives a reservation back, and the `paid_ns` that its handshake paid.
#[inline(always)]
pub fn cancel<W: Word>(words: &CountWords<'_, W>, paid_ns: u64) {
    if paid_ns != 0 {
        rate::refund(words.due, paid_ns);
    }
    count::cancel(words.total);
    if let Some(of_network) = words.network {
        count::cancel(of_network);
    }
    count::cancel(words.source);
}

/// Counts a connection that holds no reservation; returns the connections the source has now, or
/// `None` if an entry is being deleted and nothing was counted.
#[inline(always)]
#[must_use]
pub fn count<W: Word>(words: &CountWords<'_, W>) -> Option<u32> {
    let connections = count::count(words.source)?;
    if let Some(of_network) = words.network
        && count::count(of_network).is_none()
    {
        count::release(words.source);
        return None;
    }
    if count::count(words.total).is_none() {
        if let Some(of_network) = words.network {
            count::release(of_network);
        }
        count::release(words.source);
        return None;
    }
    Some(connections)
}

/// Lets a connection go. `false` if a count did not know of it: drift.
#[inline(always)]
#[must_use]
pub fn release<W: Word>(words: &CountWords<'_, W>) -> bool {
    let of_source = count::release(words.source);
    let of_network = match words.network {
        Some(of_network) => count::release(of_network),
        None => true,
    };
    count::release(words.total) && of_network && of_source
}

#[cfg(test)]
mod tests;
