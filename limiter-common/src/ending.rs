// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! When a connection ends for the limiter: not when its peer is gone, but when its owner has let go.
//!
//! A connection that the peer resets, or that times out, is **dead**. Its socket is still there, in the accept
//! queue or behind a descriptor, and the mail daemon still has to deal with it. So it counts until the owner
//! closes it, or the listener is closed in whose queue it is.
//!
//! Two may end one connection at the same time: the kernel's change of state, under the socket's lock, and the
//! owner's close, which is seen before the lock is taken. Exactly one gives back, by the order of the steps in
//! [`let_go`] and [`outlive`].

use crate::Kept;

/// What a change of state means for the count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It is still served: the owner has closed one direction at most.
    GoesOn,
    /// The owner has let go.
    LetGo,
    /// The peer is gone, and the owner still holds the socket.
    Dead,
}

/// Both directions of `sk_shutdown` in `struct sock` (`SHUTDOWN_MASK`, `include/net/sock.h`).
const BOTH: u8 = 3;

impl Ending {
    /// What it means that a connection has left the states in which both sides talk, or is `closed` altogether.
    /// `shutdown` is `sk_shutdown`, `error` whether there is one for the owner (`sk_err`), both as the kernel has
    /// them when it reports the change (`tcp_set_state`, `net/ipv4/tcp.c`):
    ///
    /// - whoever closes, or shuts both directions, has both marked before the state changes; after shutting one
    ///   the other is marked by the peer's FIN (`tcp_fin`);
    /// - a reset, a time-out and `SOCK_DESTROY` leave an error first, and mark directions afterwards (`tcp_done`);
    /// - a listener that is closed, and an owner that disconnects, leave neither before (`tcp_disconnect`).
    #[inline(always)]
    #[must_use]
    pub const fn of(closed: bool, shutdown: u8, error: bool) -> Self {
        if is_shut(shutdown) {
            Self::LetGo
        } else if !closed {
            Self::GoesOn
        } else if error {
            Self::Dead
        } else {
            Self::LetGo
        }
    }
}

/// Whether both directions are shut.
#[inline(always)]
#[must_use]
pub const fn is_shut(shutdown: u8) -> bool {
    shutdown & BOTH == BOTH
}

/// The record of one connection, where it is kept. Each step is atomic: of all who take, one gets it.
pub trait Records {
    /// Takes the record away while the connection is there.
    fn take(&self) -> Option<Kept>;
    /// Takes away what is kept after its end.
    fn take_kept(&self) -> Option<Kept>;
}

/// The owner lets go; whoever gets the record gives back.
#[inline(always)]
#[must_use]
pub fn let_go(records: &impl Records) -> Option<Kept> {
    match records.take() {
        Some(record) => Some(record),
        None => records.take_kept(),
    }
}

/// The connection is dead: `keep` keeps its record until [`let_go`]; `false` when there is no room. Returns the record
/// if nobody else will give back: there was no room.
#[inline(always)]
#[must_use]
pub fn outlive(records: &impl Records, keep: impl FnOnce() -> bool) -> Option<Kept> {
    // Kept before it is taken away: the owner finds one or the other.
    if !keep() {
        return records.take();
    }
    if records.take().is_none() {
        // The owner has let go on another CPU, and gives back.
        let _theirs = records.take_kept();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVE: u8 = 1;
    const SEND: u8 = 2;

    #[test]
    fn one_direction_shut_is_no_end_and_both_are() {
        for shutdown in [0, RECEIVE, SEND] {
            assert_eq!(Ending::of(false, shutdown, false), Ending::GoesOn);
            assert_eq!(Ending::of(false, shutdown, true), Ending::GoesOn);
        }
        for (closed, error) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(Ending::of(closed, RECEIVE | SEND, error), Ending::LetGo);
        }
    }

    #[test]
    fn a_reset_is_a_death_and_a_disconnect_is_not() {
        for shutdown in [0, RECEIVE, SEND] {
            assert_eq!(Ending::of(true, shutdown, true), Ending::Dead);
            assert_eq!(Ending::of(true, shutdown, false), Ending::LetGo);
        }
    }
}
