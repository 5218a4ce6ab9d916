// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The clients of the event loop: those that were told why, until they have heard.

use std::time::Instant;

use mio::{Interest, Registry, Token};
use slab::Slab;

use super::reply::Sent;

/// Clients that were told why.
#[derive(Debug, Default)]
pub struct Clients {
    told: Slab<Sent>,
    /// Those of them that [`settle`](Self::settle) has not seen.
    new: Vec<usize>,
    /// Nobody's time is up before.
    look_at: Option<Instant>,
}

impl Clients {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.told.len()
    }

    /// Takes one more in.
    pub fn join(&mut self, sent: Sent) {
        self.look_at.get_or_insert(sent.until());
        let client = self.told.insert(sent);
        self.new.push(client);
    }

    /// Listens to one of whom something came, and lets it go if that was all. Where another has its
    /// place by now, that one is listened to, which does no harm.
    pub fn hear(&mut self, client: usize) {
        if self.told.get_mut(client).is_some_and(Sent::is_over) {
            self.told.remove(client);
        }
    }

    /// Lets go of the new ones that have closed already, and has the kernel tell of the others.
    ///
    /// A client that is near may have closed while others were told, and saves the kernel the trouble.
    pub fn settle(&mut self, registry: &Registry) {
        for client in self.new.drain(..) {
            let Some(sent) = self.told.get_mut(client) else { continue };
            if sent.is_over() {
                self.told.remove(client);
            } else {
                // Short of memory, it is not listened to, and closed in time.
                let _deaf = registry.register(sent.stream(), Token(client), Interest::READABLE);
            }
        }
    }

    /// Lets go of those whose time is up.
    pub fn dismiss(&mut self, now: Instant) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.told.retain(|_, sent| sent.until() > now);
            self.look_at = self.told.iter().map(|(_, sent)| sent.until()).min();
        }
    }

    /// When [`dismiss`](Self::dismiss) has to be called next.
    pub const fn look_at(&self) -> Option<Instant> {
        self.look_at
    }
}
