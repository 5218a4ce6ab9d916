// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The records of handshakes that are held back ([`mod@crate::gate`]).
//!
//! What becomes of a record is decided in `limiter_common::waiting`. The daemon changes records through the
//! [`mod@crate::usher`] alone.

use limiter_common::{
    CountKeys, Key, Scope, ServiceId, Waiter,
    reservation::{self, WaitMarks},
    waiting::{self, Flow, event},
};

use crate::{
    counts::Counts,
    events::tell,
    map_ref::{Find as _, MapRef, field},
    maps::{self, Service, WAITERS},
};

/// Whether there are records of handshakes of the service.
#[inline(always)]
pub fn has_records(service: ServiceId) -> bool {
    maps::total(service).is_some_and(|total| field!(total, records).get() != 0)
}

/// The record of a handshake.
#[inline(always)]
pub fn of(flow: &Flow) -> Option<MapRef<Waiter>> {
    WAITERS.find(flow)
}

/// Takes the record of `flow` in hand, which was seen with this word. `false` if it is another one's by now: memory
/// of a record that was removed may serve another at once.
#[inline(always)]
pub fn take_in_hand(waiter: MapRef<Waiter>, flow: &Flow, seen: u64) -> bool {
    let record = field!(waiter, word).shared();
    if !waiting::take_in_hand(record, seen) {
        return false;
    }
    let is_its_own = of(flow) == Some(waiter);
    if !is_its_own {
        waiting::put_back(record, seen, seen as u8);
    }
    is_its_own
}

/// What a record, in hand, is marked in.
#[inline(always)]
pub fn marks(waiter: MapRef<Waiter>) -> WaitMarks {
    WaitMarks(field!(waiter, marks).get())
}

/// Takes a record, in hand, out of the counts that it is marked in, which are those of its count keys.
#[inline(always)]
pub fn stop_waiting(waiter: MapRef<Waiter>, counts: &Counts) {
    let marks = marks(waiter);
    if !marks.is_none() {
        reservation::leave(&counts.words(), marks);
        field!(waiter, marks).set(0);
    }
}

/// Removes a record that is in hand, because its client is gone.
#[inline(always)]
pub fn remove(flow: &Flow, service: ServiceId, waiter: MapRef<Waiter>, count_keys: &CountKeys) {
    if let Some(counts) = Counts::find(count_keys) {
        stop_waiting(waiter, &counts);
    }
    let _in_hand = forget(flow, service);
    tell(event::GONE, service, flow);
}

/// Removes a record, which the caller has in hand or is told; `false` if it is not there any more.
#[inline(always)]
pub fn forget(flow: &Flow, service: ServiceId) -> bool {
    if WAITERS.remove(flow).is_err() {
        return false;
    }
    count_record(service, u64::MAX);
    true
}

/// Counts one more record of a service, or with `u64::MAX` one less.
#[inline(always)]
pub fn count_record(service: ServiceId, one: u64) {
    if let Some(total) = maps::total(service) {
        field!(total, records).add(one);
    }
}

/// What the source of a record is known as on the ladder, whatever it is counted in.
#[inline(always)]
pub fn source(service: &Service, scope: Scope, flow: &Flow) -> Key {
    Key::source(service.id, service.policy, scope.source_prefix, &flow.remote)
}
