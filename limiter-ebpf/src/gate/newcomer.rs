// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A source that the ledger does not know completes a handshake: two programs in which the gate goes on.

use aya_ebpf::programs::SkBuffContext;
use limiter_common::reservation::{Arrival, Outcome};

use super::stage::{self, Packet, held};
use crate::{
    attended,
    counts::{self, Counts, Present},
    kernel::Handshake,
    maps::{Service, count},
    packet::Tuple,
    pending, waiters,
};

/// Makes its entries, or finds it one that it shares with others. Goes on in [`run`]: a program of its own, because the
/// verifier would look at it once for each way to read a packet. Always true.
#[inline(always)]
pub fn make_room(ctx: &SkBuffContext) -> bool {
    if let Some(mut count_keys) = pending::proposed() {
        counts::make_entries(&raw mut count_keys);
        pending::propose(&count_keys);
        stage::go_on(ctx, stage::NEWCOMER);
    }
    true
}

/// Judges its ACK. Goes on where the gate has found that it is neither denied nor banned; whether the packet is to be
/// dropped.
#[inline(always)]
pub fn run(ctx: &SkBuffContext) -> bool {
    let Some(Packet { service, tuple, handshake, .. }) = Packet::read(ctx) else { return true };
    match handshake {
        Handshake::Void => false,
        Handshake::Unknown => {
            // As in the gate: this only looks.
            let Present { source, count_keys, limits, entry } =
                Present::of(&service, &tuple.remote(), &tuple.local());
            counts::is_over(&source, &count_keys, &limits, entry) && held(service.id, &count_keys)
        }
        Handshake::Completing => complete(ctx, &service, &tuple),
    }
}

/// The handshake is complete: it takes a place in the entries that were made, or goes on to wait for one.
#[inline(always)]
fn complete(ctx: &SkBuffContext, service: &Service, tuple: &Tuple) -> bool {
    let Some(count_keys) = pending::proposed() else { return true };
    // Memory is short: the ledger says so once there is a connection that it cannot count.
    let Some(counts) = Counts::find(&count_keys) else { return false };
    let limits = service.limits(&tuple.remote(), &tuple.local()).1.within(&count_keys);
    let overtakes = if waiters::has_records(service.id) { attended::overtakes() } else { 0 };
    let arrival = Arrival { overtakes, ..Arrival::NEW };
    match pending::reserve(&counts, &count_keys, &limits, arrival, tuple.remote(), tuple.remote_port()) {
        Outcome::Taken => false,
        Outcome::Full(_) => {
            stage::go_on(ctx, stage::HOLD);
            held(service.id, &count_keys)
        }
        Outcome::Again => {
            count!(service.id, contended);
            true
        }
    }
}
