// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What must not happen in silence: a counter, and a line in the daemon's log.
//!
//! The line comes with the 1st, 2nd, 4th, 8th, … time on a CPU: loud, and no flood. The functions are
//! calls of their own, so that the path of a connection does not carry the code of the log.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::warn;
use limiter_common::{Counters, ServiceId};

use crate::{
    map_ref::{MapRef, field},
    maps,
};

/// Not even an entry that is shared can be made: a connection is let through uncounted.
#[inline(never)]
pub fn ledger_full<C: EbpfContext>(ctx: &C, service: ServiceId) {
    if first_times(service, |counters| field!(counters, uncounted)) {
        warn!(ctx, "memory for the ledger is short: connections of new sources are let through uncounted");
    }
}

/// All entries of the ledger are in use: a connection of a new source is counted with others of its network.
#[inline(never)]
pub fn shares<C: EbpfContext>(ctx: &C, service: ServiceId) {
    if first_times(service, |counters| field!(counters, shared)) {
        warn!(
            ctx,
            "the ledger is full of sources that hold connections: new sources are limited with their network"
        );
    }
}

/// There is no room for another refused source: it is answered as if refused for the first time.
#[inline(never)]
pub fn ladder_full<C: EbpfContext>(ctx: &C, service: ServiceId) {
    if first_times(service, |counters| field!(counters, unjudged)) {
        warn!(ctx, "no room for the penalties of refused sources: they get replies, but no bans");
    }
}

/// There is no room for the record of one more connection: it is let through uncounted.
#[inline(never)]
pub fn no_room<C: EbpfContext>(ctx: &C, service: ServiceId) {
    if first_times(service, |counters| field!(counters, uncounted)) {
        warn!(ctx, "no room for more connection records: new connections are let through uncounted");
    }
}

/// A connection was let go that the ledger did not know of.
#[inline(never)]
pub fn drift<C: EbpfContext>(ctx: &C, service: ServiceId) {
    if first_times(service, |counters| field!(counters, drift)) {
        warn!(ctx, "a connection ended that the ledger did not know");
    }
}

/// Counts, and says whether this is one of the times to speak of.
#[inline(always)]
fn first_times(service: ServiceId, counter: impl FnOnce(MapRef<Counters>) -> MapRef<u64>) -> bool {
    let Some(counters) = maps::counters(service) else { return false };
    let counter = counter(counters);
    let times = counter.get().wrapping_add(1);
    counter.set(times);
    times.is_power_of_two()
}
