// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a connection takes: a place in each count it falls under, all of them or none.
//!
//! The counts are taken in one fixed order (source, network, total), each by one atomic step of
//! [`crate::count`], then the rate is paid; what cannot be completed is given back. So no count is
//! ever over its limit, and two sources that race for the last place of a service may both wait for a
//! moment, but never both get it.

use crate::{
    Count, CountKeys, Key, Tier,
    count::{self, Reserved, Turn, Word},
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
    /// It waits, with these marks; [`reserve`] with its [`Arrival::marks`], or [`leave`], must follow.
    Waits(WaitMarks),
    /// As many of its source wait as may. It is marked nowhere.
    SourceFull,
    /// As many wait at the listener as may. It is marked nowhere.
    ListenerFull,
    /// Another CPU was faster, or an entry is being deleted. It is marked nowhere.
    Again,
}

/// The counts in which a handshake is marked as one that waits: always in its source's, so that its source has
/// only so many; and where it waits for a place of its network or its service, in those up to the count that it waits
/// for, if it could have a place in each of them ([`wait`]). In others it would keep places from those who could use them.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WaitMarks(pub u8);

impl WaitMarks {
    /// In none.
    pub const NONE: Self = Self(0);
    /// In its source's count alone: it waits, and keeps no place from other sources.
    pub const IN_SOURCE: Self = Self(Self::SOURCE);
    const SOURCE: u8 = 1;
    const NETWORK: u8 = 2;
    const TOTAL: u8 = 4;
    /// It has missed its turn and not answered since.
    const MISSED: u8 = 8;

    /// All that a handshake may have that waits because of `reason`.
    #[inline(always)]
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        match reason {
            Reason::Network => Self(Self::SOURCE | Self::NETWORK),
            Reason::Total => Self(Self::SOURCE | Self::NETWORK | Self::TOTAL),
            _ => Self::IN_SOURCE,
        }
    }

    /// Whether it waits at all.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Those of one that has missed its turn: until it answers, no place of its network or its service is kept for it.
    #[inline(always)]
    #[must_use]
    pub const fn missed(self) -> Self {
        Self(self.0 & Self::SOURCE | Self::MISSED)
    }

    /// Those of one that has answered.
    #[inline(always)]
    #[must_use]
    pub const fn answered(self) -> Self {
        Self(self.0 & !Self::MISSED)
    }

    /// Whether it has missed its turn, and not answered since.
    #[inline(always)]
    #[must_use]
    pub const fn has_missed(self) -> bool {
        self.has(Self::MISSED)
    }

    /// Whether a place of a count of this tier is kept for it.
    #[inline(always)]
    #[must_use]
    pub const fn is_in(self, tier: Tier) -> bool {
        self.has(match tier {
            Tier::Source => Self::SOURCE,
            Tier::Network => Self::NETWORK,
            Tier::Total => Self::TOTAL,
        })
    }

    /// Of the counts of `count_keys`, those in which one with these marks is.
    pub fn keys(self, count_keys: &CountKeys) -> impl Iterator<Item = Key> + use<> {
        let keys = [
            self.is_in(Tier::Source).then_some(count_keys.source),
            (self.is_in(Tier::Network) && count_keys.has_network()).then_some(count_keys.network),
            self.is_in(Tier::Total).then_some(Key::total(count_keys.service())),
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

/// Becomes one that waits because of `reason`, of at most `most` of its source and `capacity` of the service;
/// [`reserve`] with its marks takes it from there again, or [`leave`].
///
/// It waits in its source's count in any case. Places of its network and its service are kept for it only where it could
/// have them: as many as its source may have by `limits`, counting its connections and all that wait there; as many as its
/// network may, likewise; and no more than there are. Who does not fit waits all the same, and may be overtaken.
#[inline(always)]
#[must_use]
pub fn wait<W: Word>(
    words: &CountWords<'_, W>,
    limits: &Limits,
    reason: Reason,
    most: u32,
    capacity: u32,
) -> Wait {
    match count::wait(words.source, most) {
        Reserved::Taken => {}
        Reserved::Full => return Wait::SourceFull,
        Reserved::Contended | Reserved::Collected => return Wait::Again,
    }
    let waits = match count::wait(words.waiting, capacity) {
        Reserved::Taken => {
            // It is one of those that are wanted.
            let fits = Count(words.source.load()).wanted() <= u64::from(limits.source);
            let to = if fits { WaitMarks::of(reason) } else { WaitMarks::IN_SOURCE };
            return Wait::Waits(keep(words, limits, WaitMarks::IN_SOURCE, to));
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
    leave_tiers(words, marks);
    count::leave(words.waiting);
    count::leave(words.source);
}

/// Waits where `to` says, no longer where `from` does, which both are in the source's count; returns where it waits now: in
/// its source's alone, where not all of `to` fits.
#[inline(always)]
#[must_use]
pub fn wait_on<W: Word>(
    words: &CountWords<'_, W>,
    limits: &Limits,
    from: WaitMarks,
    to: WaitMarks,
) -> WaitMarks {
    let marks = keep(words, limits, from, to);
    leave_tiers(words, WaitMarks(from.0 & !marks.0));
    marks
}

/// Has places of its network and its service kept for one that waits, as `to` says, where `from` has them already; returns
/// the marks it has now, but for those of `from` that it needs no longer: all of `to`, or that in its source's count.
///
/// The network first, and for one that waits for the service only while no more are wanted there than it has places. As
/// long as one is kept for it that stays so, because only who leaves it alone comes in: so connections of the network, and
/// places of the service kept for its waiters, are never more than its limit.
#[inline(always)]
fn keep<W: Word>(words: &CountWords<'_, W>, limits: &Limits, from: WaitMarks, to: WaitMarks) -> WaitMarks {
    let is_for_total = to.has(WaitMarks::TOTAL);
    let mut is_new_in_network = false;
    if to.has(WaitMarks::NETWORK)
        && let Some(of_network) = words.network
    {
        let limit = limits.network;
        is_new_in_network = !from.has(WaitMarks::NETWORK);
        let fits = if is_new_in_network {
            let may = |count: Count| {
                if is_for_total { count.has_room(limit, Turn::NEW) } else { count.keeps_within(limit) }
            };
            matches!(count::wait_while(of_network, may), Reserved::Taken)
        } else {
            !is_for_total || Count(of_network.load()).wanted() <= u64::from(limit)
        };
        if !fits {
            return WaitMarks::IN_SOURCE;
        }
    }
    if is_for_total && !from.has(WaitMarks::TOTAL) {
        let limit = limits.total;
        if !matches!(count::wait_while(words.total, |count| count.keeps_for(limit)), Reserved::Taken) {
            if is_new_in_network && let Some(of_network) = words.network {
                count::leave(of_network);
            }
            return WaitMarks::IN_SOURCE;
        }
    }
    to
}

/// Keeps no place of its network or its service any more for one with these `marks`.
#[inline(always)]
fn leave_tiers<W: Word>(words: &CountWords<'_, W>, marks: WaitMarks) {
    if marks.has(WaitMarks::TOTAL) {
        count::leave(words.total);
    }
    if marks.has(WaitMarks::NETWORK)
        && let Some(of_network) = words.network
    {
        count::leave(of_network);
    }
}

/// Has missed its turn, with these `marks`: keeps no place from other sources any more. Returns the marks it has now.
#[inline(always)]
#[must_use]
pub fn miss<W: Word>(words: &CountWords<'_, W>, marks: WaitMarks) -> WaitMarks {
    leave_tiers(words, marks);
    marks.missed()
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
