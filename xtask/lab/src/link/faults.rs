// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What does not get through a link, as the relay and the tests share it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::segment::{Direction, Segment};

/// How many of the TCP segments are lost. Nothing else ever is.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Out of a hundred, 0 to 100.
    pub percent: u64,
    /// The same segments by number of each direction are lost for the same seed.
    pub seed: u64,
}

impl Loss {
    /// None is lost.
    pub const NONE: Self = Self { percent: 0, seed: 0 };
}

/// Who does not get through, and what did not.
#[derive(Default)]
pub struct Faults {
    pub silenced: HashSet<SocketAddr>,
    /// Segments that each has sent after its SYN.
    pub muted: HashMap<SocketAddr, u32>,
    pub lost: Vec<Segment>,
    /// The longest that a segment arrived after it was due.
    pub late: Duration,
}

impl Faults {
    /// Whether this segment is to pass, chance apart.
    pub fn passes(&mut self, segment: &Segment) -> bool {
        if self.silenced.contains(&segment.client) {
            return false;
        }
        match self.muted.get_mut(&segment.client) {
            Some(sent) if segment.direction == Direction::ToHost && !segment.syn => {
                *sent += 1;
                *sent == 1
            }
            _ => true,
        }
    }
}

/// What relay and tests share.
#[derive(Default)]
pub struct Shared {
    faults: Mutex<Faults>,
    /// The link is to end.
    pub done: AtomicBool,
}

impl Shared {
    /// They are nobody else's meanwhile.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
