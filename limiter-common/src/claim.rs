//! What a connection takes: a place in each count it falls under, all of them or none.
//!
//! The counts are taken in one fixed order (narrow, wide, total), each by one atomic step of
//! [`crate::places`], then the rate is paid; what cannot be completed is given back. So no count is
//! ever over its limit, and two sources that race for the last place of a service may both wait for a
//! moment, but never both get it.

use crate::{
    places::{self, Reservation, Word},
    rate,
    verdict::{Limits, Reason},
};

/// The words of everything one connection takes, shared with other CPUs.
#[derive(Clone, Copy)]
pub struct Words<'a, W> {
    /// The source's count.
    pub narrow: &'a W,
    /// Its network's count, where that is counted.
    pub wide: Option<&'a W>,
    /// The service's count.
    pub total: &'a W,
    /// When the source is due.
    pub due: &'a W,
}

/// What became of a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every place is held, and the rate paid; [`commit`] or [`cancel`] must follow.
    Taken,
    /// One more would be over this limit. Nothing is held.
    Full(Reason),
    /// Another CPU was faster, or an entry is being deleted. Nothing is held; the peer's ACK comes
    /// again.
    Again,
}

/// Takes a place in every count, and pays for the handshake.
#[inline(always)]
#[must_use]
pub fn reserve<W: Word>(words: &Words<'_, W>, limits: &Limits, now_ns: u64) -> Outcome {
    match places::reserve(words.narrow, limits.narrow) {
        Reservation::Taken => {}
        other => return not_taken(other, Reason::Concurrency),
    }
    if let Some(wide) = words.wide {
        match places::reserve(wide, limits.wide) {
            Reservation::Taken => {}
            other => {
                places::cancel(words.narrow);
                return not_taken(other, Reason::Network);
            }
        }
    }
    match places::reserve(words.total, limits.total) {
        Reservation::Taken => {}
        other => {
            cancel_source(words);
            return not_taken(other, Reason::Total);
        }
    }
    if !limits.rate.is_limited() {
        return Outcome::Taken;
    }
    let outcome = match rate::pay(words.due, &limits.rate, now_ns) {
        Some(true) => return Outcome::Taken,
        Some(false) => Outcome::Full(Reason::Rate),
        None => Outcome::Again,
    };
    places::cancel(words.total);
    cancel_source(words);
    outcome
}

#[inline(always)]
const fn not_taken(reservation: Reservation, reason: Reason) -> Outcome {
    match reservation {
        Reservation::Full => Outcome::Full(reason),
        _ => Outcome::Again,
    }
}

#[inline(always)]
fn cancel_source<W: Word>(words: &Words<'_, W>) {
    if let Some(wide) = words.wide {
        places::cancel(wide);
    }
    places::cancel(words.narrow);
}

/// Turns a reservation into a connection; returns the connections the source has now.
#[inline(always)]
#[must_use]
pub fn commit<W: Word>(words: &Words<'_, W>) -> u32 {
    places::commit(words.total);
    if let Some(wide) = words.wide {
        places::commit(wide);
    }
    places::commit(words.narrow)
}

/// Gives a reservation back, and the `paid_ns` that its handshake paid.
#[inline(always)]
pub fn cancel<W: Word>(words: &Words<'_, W>, paid_ns: u64) {
    if paid_ns != 0 {
        rate::refund(words.due, paid_ns);
    }
    places::cancel(words.total);
    cancel_source(words);
}

/// Counts a connection that holds no reservation; returns the connections the source has now, or
/// `None` if an entry is being deleted and nothing was counted.
#[inline(always)]
#[must_use]
pub fn count<W: Word>(words: &Words<'_, W>) -> Option<u32> {
    let connections = places::count(words.narrow)?;
    if let Some(wide) = words.wide
        && places::count(wide).is_none()
    {
        places::release(words.narrow);
        return None;
    }
    if places::count(words.total).is_none() {
        if let Some(wide) = words.wide {
            places::release(wide);
        }
        places::release(words.narrow);
        return None;
    }
    Some(connections)
}

/// Lets a connection go. `false` if a count did not know of it: drift.
#[inline(always)]
#[must_use]
pub fn release<W: Word>(words: &Words<'_, W>) -> bool {
    let narrow = places::release(words.narrow);
    let wide = match words.wide {
        Some(wide) => places::release(wide),
        None => true,
    };
    places::release(words.total) && wide && narrow
}

#[cfg(test)]
mod tests;
