// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ways a connection can end, and how often each is taken.

use limiter_lab::random::Random;

/// What became of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
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
pub const ALL: [(Ending, &str); 19] = [
    (Ending::FinByClient, "FIN by the client first"),
    (Ending::FinByServer, "FIN by the server first"),
    (Ending::HalfClosedByClient, "half-closed by the client, then served"),
    (Ending::HalfClosedByServer, "half-closed by the server, then read"),
    (Ending::ResetByClient, "reset by the client"),
    (Ending::ResetByServer, "reset by the server"),
    (Ending::ResetForTheUnread, "reset because something was unread"),
    (Ending::ResetInCloseWait, "reset in CLOSE_WAIT"),
    (Ending::ResetInFinWait, "reset in FIN_WAIT"),
    (Ending::ClosedInQueue, "closed in the accept queue"),
    (Ending::ResetInQueue, "reset in the accept queue"),
    (Ending::ListenerClosed, "listener closed, its queue full, some dead"),
    (Ending::ProcessKilled, "process killed"),
    (Ending::CgroupMoved, "process moved, its cgroup removed"),
    (Ending::TimedOut, "timed out"),
    (Ending::NeverAcknowledged, "let go, never acknowledged"),
    (Ending::Refused, "refused by reset"),
    (Ending::ToldWhy, "refused and told why"),
    (Ending::GaveUp, "gave up while held"),
];

/// How many of [`ALL`] are connections that counted.
pub const COUNTED: usize = Ending::Refused as usize;

/// The ways a worker takes, and how many of a hundred connections take each.
const SHARES: [(Ending, u64); 11] = [
    (Ending::FinByClient, 18),
    (Ending::FinByServer, 12),
    (Ending::HalfClosedByClient, 6),
    (Ending::HalfClosedByServer, 6),
    (Ending::ResetByClient, 20),
    (Ending::ResetByServer, 16),
    (Ending::ResetForTheUnread, 6),
    (Ending::ResetInCloseWait, 6),
    (Ending::ResetInFinWait, 6),
    (Ending::ClosedInQueue, 2),
    (Ending::ResetInQueue, 2),
];

impl Ending {
    /// One for a worker.
    pub fn throw(random: &mut Random) -> Self {
        let mut left = random.below(100);
        for (ending, share) in SHARES {
            if left < share {
                return ending;
            }
            left -= share;
        }
        Self::FinByClient
    }
}
