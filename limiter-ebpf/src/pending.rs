// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What one program tells the next about the packet this CPU is handling: the gate the ledger, what it has
//! reserved; admission the gate, that a SYN is to be dropped.
//!
//! Between the gate and the ledger the kernel handles one packet on one CPU without a break, so one
//! record a CPU is enough. Only the maintenance program runs elsewhere (in process context, where a softirq may
//! come in between, or on another CPU), so whoever takes a reservation does so by its generation, which no other on this
//! CPU ever has.

use aya_ebpf::helpers::generated::bpf_map_lookup_percpu_elem;
use limiter_common::{
    Addr, CountKeys, Limits, Pending, ServiceId,
    count::Word as _,
    reservation::{self, Arrival, Outcome},
};

use crate::{
    clock,
    counts::Counts,
    events, kernel,
    map_ref::{Find as _, MapRef, field},
    maps::PENDING,
    packet::Segment,
};

/// Takes a place in `counts`, those of `count_keys`, for the handshake of this peer, and notes it until there is a connection.
#[inline(always)]
pub fn reserve(
    counts: &Counts,
    count_keys: &CountKeys,
    limits: &Limits,
    arrival: Arrival,
    remote: Addr,
    remote_port: u32,
) -> Outcome {
    let outcome = counts.reserve(count_keys, limits, clock::now_ns_for(&limits.rate), arrival);
    if outcome == Outcome::Taken {
        set(remote, remote_port, *count_keys, limits.rate.interval_ns);
    }
    outcome
}

/// Notes that `count_keys` is reserved for the ACK of this peer, which paid `paid_ns` for its rate.
#[inline(always)]
pub fn set(remote: Addr, remote_port: u32, count_keys: CountKeys, paid_ns: u64) {
    if let Some(pending) = PENDING.find(0) {
        field!(pending, remote).set(remote);
        field!(pending, remote_port).set(remote_port);
        field!(pending, count_keys).set(count_keys);
        field!(pending, paid_ns).set(paid_ns);
        let generation = field!(pending, last_generation).get() + 1;
        field!(pending, last_generation).set(generation);
        // At last: from here on it is there.
        field!(pending, generation).set(generation);
    }
}

/// Hands the count keys of the packet on to the program that the gate goes on in. Nothing is pending: the gate has seen to that.
#[inline(always)]
pub fn propose(count_keys: &CountKeys) {
    if let Some(pending) = PENDING.find(0) {
        field!(pending, count_keys).set(*count_keys);
    }
}

/// What was handed on.
#[inline(always)]
pub fn proposed() -> Option<CountKeys> {
    Some(field!(PENDING.find(0)?, count_keys).get())
}

/// Takes the reservation made for the ACK of this peer to `service`, if it is the one pending. The same
/// peer at another port of the service falls under the same counts.
#[inline(always)]
pub fn take(service: ServiceId, remote: &Addr, remote_port: u32) -> Option<CountKeys> {
    let pending = PENDING.find(0)?;
    let generation = field!(pending, generation).get();
    if generation == 0
        || field!(pending, remote_port).get() != remote_port
        || field!(pending, remote).get() != *remote
        || field!(pending, count_keys.source.service).get() != service.0
    {
        return None;
    }
    let count_keys = field!(pending, count_keys).get();
    // One of the same peer that came to nothing long ago may be what the maintenance program takes at this moment.
    take_generation(pending, generation).then_some(count_keys)
}

/// Gives back a reservation that came to nothing; `true` if there was one.
#[inline(always)]
pub fn cancel() -> bool {
    let Some(pending) = PENDING.find(0) else { return false };
    give_back(pending, field!(pending, generation).get())
}

/// The same for the maintenance program: on the CPU it runs on, or of another CPU (its number and 1) the reservation with this
/// generation. That is safe for one that has been pending for longer than a packet takes: its own packet is handled, and
/// of all others that look at the record, one alone takes it, by the compare-and-exchange on the generation.
#[inline(always)]
pub fn cancel_of(cpu: u32, of: u64) -> bool {
    if cpu == 0 {
        return cancel();
    }
    let Some(pending) = pending_of(cpu - 1) else { return false };
    give_back(pending, of)
}

/// The record of a CPU; none where the kernel has not what it takes (Linux 5.19).
#[inline(always)]
fn pending_of(cpu: u32) -> Option<MapRef<Pending>> {
    if !kernel::looks_up_per_cpu() {
        return None;
    }
    let zero = 0_u32;
    let map = (&raw const PENDING).cast_mut().cast();
    // SAFETY: the map is a per-CPU array, and its key is as long as `zero`.
    let pending = unsafe { bpf_map_lookup_percpu_elem(map, (&raw const zero).cast(), cpu) };
    if pending.is_null() {
        return None;
    }
    // SAFETY: not null, and found in this run.
    Some(unsafe { MapRef::new(pending.cast()) })
}

/// Takes the reservation with this generation: of all who try, one succeeds.
#[inline(always)]
fn take_generation(pending: MapRef<Pending>, generation: u64) -> bool {
    field!(pending, generation).shared().compare_exchange(generation, 0) == generation
}

/// Gives back the reservation with this generation, if it is still there.
#[inline(always)]
fn give_back(pending: MapRef<Pending>, generation: u64) -> bool {
    if generation == 0 {
        return false;
    }
    // After the generation was seen, and before it is claimed: who comes in between and reserves something else has
    // another generation.
    let (reserved, paid_ns) = (field!(pending, count_keys).get(), field!(pending, paid_ns).get());
    if !take_generation(pending, generation) {
        return false;
    }
    // They hold our reservation, so they have not been collected.
    if let Some(counts) = Counts::find(&reserved) {
        reservation::cancel(&counts.words(), paid_ns);
        events::freed(&reserved, &counts);
    }
    true
}

/// Notes that the SYN of this peer, for `local_port`, is to be dropped: admission can refuse it only by a
/// reset.
#[inline(always)]
pub fn mark_drop(remote: Addr, remote_port: u32, local_port: u32) {
    if let Some(pending) = PENDING.find(0) {
        field!(pending, drop_remote).set(remote);
        field!(pending, drop_ports).set(remote_port << 16 | local_port);
    }
}

/// Whether this SYN is to be dropped. Asked once for each SYN, so that what is noted for one never meets another.
#[inline(always)]
pub fn is_marked_drop(syn: &Segment) -> bool {
    let Some(pending) = PENDING.find(0) else { return false };
    let ports = field!(pending, drop_ports).get();
    if ports == 0 {
        return false;
    }
    field!(pending, drop_ports).set(0);
    let Some(peer) = syn.tuple() else { return false };
    ports == peer.remote_port() << 16 | peer.local_port()
        && field!(pending, drop_remote).get() == peer.remote()
}
