// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The clients of the event loop: those that are being told why, until they have heard.

use std::time::Instant;

use mio::{Interest, Registry, Token};
use slab::Slab;

use super::{
    bounds::Bounds,
    reply::Client,
    tls::{Budget, End},
    totals::Totals,
};

/// Clients that are told why.
#[derive(Debug)]
pub struct Clients {
    clients: Slab<Client>,
    /// Those of them that [`settle`](Self::settle) has not seen.
    new: Vec<usize>,
    /// Nobody's time is up before.
    look_at: Option<Instant>,
    /// Of all their TLS handshakes.
    budget: Budget,
    bounds: Bounds,
    totals: Totals,
}

impl Clients {
    /// None yet.
    pub fn new(bounds: Bounds, totals: Totals) -> Self {
        let budget = Budget::new(&bounds);
        Self { clients: Slab::new(), new: Vec::new(), look_at: None, budget, bounds, totals }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// What their handshakes may cost.
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Takes one more in.
    pub fn join(&mut self, client: Client) {
        self.wake_at(client.until());
        let client = self.clients.insert(client);
        self.new.push(client);
    }

    /// Goes on with one of whom something came, or who can read again, and lets it go if that was all. Where another
    /// has its place by now, it goes on with that one, which does no harm.
    pub fn hear(&mut self, client: usize, now: Instant) {
        let Self { clients, budget, bounds, totals, .. } = self;
        let Some(known) = clients.get_mut(client) else { return };
        let (was, is_over) = (known.until(), known.is_over(budget, bounds, now, |end| count(totals, end)));
        let until = known.until();
        if is_over {
            clients.remove(client);
        } else if until != was {
            self.wake_at(until);
        }
    }

    /// Lets go of the new ones that have closed already, and has the kernel tell of the others.
    ///
    /// A client that is near may have closed while others were told, and saves the kernel the trouble.
    pub fn settle(&mut self, registry: &Registry, now: Instant) {
        for client in std::mem::take(&mut self.new) {
            self.hear(client, now);
            let Some(known) = self.clients.get_mut(client) else { continue };
            let interest = if known.is_in_handshake() {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            // Short of memory, it is not listened to, and closed in time.
            let _deaf = registry.register(known.stream(), Token(client), interest);
        }
    }

    /// Lets go of those whose time is up; who has said nothing where TLS was to start gets an alert first.
    pub fn dismiss(&mut self, now: Instant) {
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        let Self { clients, bounds, totals, .. } = self;
        clients.retain(|_, client| {
            client.until() > now || client.gives_up(bounds, now, |end| count(totals, end))
        });
        self.look_at = self.clients.iter().map(|(_, client)| client.until()).min();
    }

    /// Nobody new comes: whoever is in a handshake has no more time than the others, and the end need not be waited for.
    pub fn hurry(&mut self, now: Instant) {
        let until = now + self.bounds.time;
        self.clients.iter_mut().for_each(|(_, client)| client.hurry(until));
        self.wake_at(until);
    }

    /// When [`dismiss`](Self::dismiss) has to be called next.
    pub const fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    fn wake_at(&mut self, until: Instant) {
        self.look_at = Some(self.look_at.map_or(until, |at| at.min(until)));
    }
}

fn count(totals: &Totals, end: End) {
    match end {
        End::Told => totals.count_greeted_by_tls(),
        End::OverBudget => totals.count_over_budget(),
        End::Failed => totals.count_failed_handshake(),
    }
}
