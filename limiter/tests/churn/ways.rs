// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ways a connection can end, and how often each is taken.

use crate::dice::Dice;

/// What became of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    FinByClient,
    FinByServer,
    HalfClosedByClient,
    HalfClosedByServer,
    ResetByClient,
    ResetByServer,
    ResetForTheUnread,
    ResetInCloseWait,
    ResetInFinWait,
    ClosedInQueue,
    ResetInQueue,
    ListenerClosed,
    ProcessKilled,
    CgroupMoved,
    TimedOut,
    NeverAcknowledged,
    /// From here on: what never was a connection that counts.
    Refused,
    ToldWhy,
    GaveUp,
}

/// Every one, with what it is called; in the order of their numbers.
pub const ALL: [(Way, &str); 19] = [
    (Way::FinByClient, "FIN by the client first"),
    (Way::FinByServer, "FIN by the server first"),
    (Way::HalfClosedByClient, "half-closed by the client, then served"),
    (Way::HalfClosedByServer, "half-closed by the server, then read"),
    (Way::ResetByClient, "reset by the client"),
    (Way::ResetByServer, "reset by the server"),
    (Way::ResetForTheUnread, "reset because something was unread"),
    (Way::ResetInCloseWait, "reset in CLOSE_WAIT"),
    (Way::ResetInFinWait, "reset in FIN_WAIT"),
    (Way::ClosedInQueue, "closed in the accept queue"),
    (Way::ResetInQueue, "reset in the accept queue"),
    (Way::ListenerClosed, "listener closed, its queue full, some dead"),
    (Way::ProcessKilled, "process killed"),
    (Way::CgroupMoved, "process moved, its cgroup removed"),
    (Way::TimedOut, "timed out"),
    (Way::NeverAcknowledged, "let go, never acknowledged"),
    (Way::Refused, "refused by reset"),
    (Way::ToldWhy, "refused and told why"),
    (Way::GaveUp, "gave up while held"),
];

/// How many of [`ALL`] are connections that counted.
pub const COUNTED: usize = Way::Refused as usize;

/// The ways a worker takes, and how many of a hundred connections take each.
const SHARES: [(Way, u64); 11] = [
    (Way::FinByClient, 18),
    (Way::FinByServer, 12),
    (Way::HalfClosedByClient, 6),
    (Way::HalfClosedByServer, 6),
    (Way::ResetByClient, 20),
    (Way::ResetByServer, 16),
    (Way::ResetForTheUnread, 6),
    (Way::ResetInCloseWait, 6),
    (Way::ResetInFinWait, 6),
    (Way::ClosedInQueue, 2),
    (Way::ResetInQueue, 2),
];

impl Way {
    /// One for a worker.
    pub fn throw(dice: &mut Dice) -> Self {
        let mut left = dice.below(100);
        for (way, share) in SHARES {
            if left < share {
                return way;
            }
            left -= share;
        }
        Self::FinByClient
    }
}
