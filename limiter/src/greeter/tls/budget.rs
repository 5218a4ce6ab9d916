// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What handshakes may cost together: how many go on at a time, of all clients and of one source, and how many begin
//! in a second.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::bucket::Bucket;
use crate::greeter::{
    bounds::Bounds,
    seats::{Seat, Seats},
};

/// The budget.
#[derive(Debug)]
pub struct Budget {
    places: Seats,
    bucket: Bucket,
}

impl Budget {
    /// One of which nothing is spent.
    pub fn new(bounds: &Bounds) -> Self {
        Self {
            places: Seats::new(bounds.handshakes, bounds.handshakes_per_source),
            bucket: Bucket::new(bounds.handshakes_per_second, bounds.handshakes_at_once, Instant::now()),
        }
    }

    /// A place for a handshake with a client at `remote`, if there is one.
    pub fn place(&self, remote: IpAddr) -> Option<Seat> {
        self.places.take(remote)
    }

    /// Whether a client that has said hello may be answered.
    pub fn begin(&mut self, now: Instant) -> bool {
        self.bucket.take(now)
    }

    /// Pays for what a handshake took beyond what it was foreseen.
    pub fn pay(&mut self, beyond: Duration) {
        self.bucket.pay(beyond);
    }
}
