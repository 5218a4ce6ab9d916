// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What one program tells the next about the packet this CPU is handling: the gate the ledger, what it has
//! reserved; admission the gate, that a SYN is to be dropped.
//!
//! Between the gate and the ledger the kernel handles one packet on one CPU without a break, so one
//! record a CPU is enough. Only the maintenance program runs elsewhere (in process context, where a softirq may
//! come in between, or on another CPU), so whoever takes a reservation does so by its generation, which no other on this
//! CPU ever has.

use aya_ebpf::helpers::generated::bpf_map_lookup_percpu_elem;
use limiter_common::{Addr, CountKeys, Pending, ServiceId, count::Word as _, reservation};

use crate::{atomic::Shared, counts::Counts, events, kernel, maps::PENDING, packet::Segment};

/// Notes that `count_keys` is reserved for the ACK of this peer, which paid `paid_ns` for its rate.
#[inline(always)]
pub fn set(remote: Addr, remote_port: u32, count_keys: CountKeys, paid_ns: u64) {
    if let Some(pending) = PENDING.get_ptr_mut(0) {
        // SAFETY: this CPU's record; see the module's text for who else comes here.
        let pending = unsafe { &mut *pending };
        pending.remote = remote;
        pending.remote_port = remote_port;
        pending.count_keys = count_keys;
        pending.paid_ns = paid_ns;
        pending.last_generation += 1;
        pending.generation = pending.last_generation;
    }
}

/// Hands the count keys of the packet on to the program that the gate goes on in. Nothing is pending: the gate has seen to that.
#[inline(always)]
pub fn propose(count_keys: &CountKeys) {
    if let Some(pending) = PENDING.get_ptr_mut(0) {
        // SAFETY: as in `set`.
        unsafe { (*pending).count_keys = *count_keys };
    }
}

/// What was handed on.
#[inline(always)]
pub fn proposed() -> Option<CountKeys> {
    // SAFETY: as in `set`.
    PENDING.get_ptr_mut(0).map(|pending| unsafe { (*pending).count_keys })
}

/// Takes the reservation made for the ACK of this peer to `service`, if it is the one pending. The same
/// peer at another port of the service falls under the same counts.
#[inline(always)]
pub fn take(service: ServiceId, remote: &Addr, remote_port: u32) -> Option<CountKeys> {
    let pending = PENDING.get_ptr_mut(0)?;
    let generation = generation(pending);
    let count_keys = {
        // SAFETY: as in `set`; but for the generation, the maintenance program only reads.
        let pending = unsafe { &*pending };
        if generation == 0
            || pending.remote_port != remote_port
            || pending.remote != *remote
            || pending.count_keys.service() != service
        {
            return None;
        }
        pending.count_keys
    };
    // One of the same peer that came to nothing long ago may be what the maintenance program takes at this moment.
    // SAFETY: the first field of the record, aligned to 8 bytes.
    let word = unsafe { Shared::word(&raw mut (*pending).generation) };
    (word.compare_exchange(generation, 0) == generation).then_some(count_keys)
}

/// Gives back a reservation that came to nothing; `true` if there was one.
#[inline(always)]
pub fn cancel() -> bool {
    let Some(pending) = PENDING.get_ptr_mut(0) else { return false };
    give_back(pending, generation(pending))
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
fn pending_of(cpu: u32) -> Option<*mut Pending> {
    if !kernel::looks_up_per_cpu() {
        return None;
    }
    let zero = 0_u32;
    let map = (&raw const PENDING).cast_mut().cast();
    // SAFETY: the map is a per-CPU array, and its key is as long as `zero`.
    let pending = unsafe { bpf_map_lookup_percpu_elem(map, (&raw const zero).cast(), cpu) };
    (!pending.is_null()).then_some(pending.cast())
}

#[inline(always)]
fn generation(pending: *mut Pending) -> u64 {
    // SAFETY: found in this run.
    unsafe { (&raw const (*pending).generation).read_volatile() }
}

/// Gives back the reservation with this generation, if it is still there.
#[inline(always)]
fn give_back(pending: *mut Pending, generation: u64) -> bool {
    if generation == 0 {
        return false;
    }
    // After the generation was seen, and before it is claimed: who comes in between and reserves something else has
    // another generation.
    // SAFETY: found in this run.
    let (reserved, paid_ns) = unsafe {
        ((&raw const (*pending).count_keys).read_volatile(), (&raw const (*pending).paid_ns).read_volatile())
    };
    // SAFETY: the first field of the record, aligned to 8 bytes.
    let word = unsafe { Shared::word(&raw mut (*pending).generation) };
    if word.compare_exchange(generation, 0) != generation {
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
    if let Some(pending) = PENDING.get_ptr_mut(0) {
        // SAFETY: as in `set`; the maintenance program does not come here.
        let pending = unsafe { &mut *pending };
        pending.drop_remote = remote;
        pending.drop_ports = remote_port << 16 | local_port;
    }
}

/// Whether this SYN is to be dropped. Asked once for each SYN, so that what is noted for one never meets another.
#[inline(always)]
pub fn is_marked_drop(syn: &Segment) -> bool {
    let Some(pending) = PENDING.get_ptr_mut(0) else { return false };
    // SAFETY: as in `mark_drop`.
    let pending = unsafe { &mut *pending };
    let ports = pending.drop_ports;
    if ports == 0 {
        return false;
    }
    pending.drop_ports = 0;
    let Some(peer) = syn.tuple() else { return false };
    ports == peer.remote_port() << 16 | peer.local_port() && pending.drop_remote == peer.remote()
}
