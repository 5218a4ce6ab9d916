// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The next packet of a handshake that has a record: its ACK comes again, or its client gives up or begins anew.

use aya_ebpf::programs::SkBuffContext;
use limiter_common::{
    Addr, ConnectionRecord, CountKeys, Reason, ServiceId, Waiter,
    reservation::{self, Arrival, Outcome},
    waiting::{self, Flow, State, event},
};

use super::stage::{Packet, held};
use crate::{
    attended, clock,
    counts::{self, Counts},
    events::tell,
    kernel::Handshake,
    map_ref::{MapRef, field},
    maps::{self, Service, count},
    packet::{FIN, Segment},
    pending, rooms,
    waiters::{self, remove, source, stop_waiting, take_in_hand},
};

/// Judges the ACK; whether it is to be dropped.
#[inline(always)]
pub fn run(ctx: &SkBuffContext) -> bool {
    let Some(Packet { service, segment, tuple, handshake }) = Packet::read(ctx) else { return true };
    if handshake == Handshake::Void {
        return false;
    }
    let (flow, overtakes) = (tuple.flow(), attended::overtakes());
    let Some(waiter) = waiters::of(&flow) else { return true };
    if handshake == Handshake::Unknown {
        return given_up(&service, &flow, overtakes == 0);
    }
    let Found { seen, is_stale, has_gone, has_turn } = Found::look(waiter, &segment, overtakes == 0);
    if !has_turn || !take_in_hand(waiter, &flow, seen) {
        let scope = service.scope(&flow.remote);
        return held(service.id, &service.count_keys(scope, &flow.remote));
    }
    let mut count_keys = CountKeys::default();
    recorded_count_keys(field!(waiter, record).as_ptr(), &raw const flow.remote, &raw mut count_keys);
    if is_stale {
        // Of another handshake of the same addresses and ports, which has ended unseen. This one is recorded when
        // its ACK comes again.
        remove(&flow, service.id, waiter, &count_keys);
        return held(service.id, &count_keys);
    }
    enter(&service, &flow, waiter, &count_keys, (seen, has_gone, overtakes))
}

/// What a packet finds of its record.
struct Found {
    /// The record's word.
    seen: u64,
    /// The record is of another handshake.
    is_stale: bool,
    /// The client has closed its side.
    has_gone: bool,
    /// Something is to be done.
    has_turn: bool,
}

impl Found {
    #[inline(always)]
    fn look(waiter: MapRef<Waiter>, segment: &Segment, attended: bool) -> Self {
        // The word before all else: see `take_in_hand`.
        let seen = field!(waiter, word).get();
        let (isn, rcv_isn) = (field!(waiter, snt_isn).get(), field!(waiter, rcv_isn).get());
        let rcv_wnd = field!(waiter, rcv_wnd).get();
        let is_being_told = attended && seen as u8 == State::Told as u8;
        let is_stale = segment.ack != isn.wrapping_add(1) && !is_being_told;
        let is_in_window = waiting::is_in_window(segment.seq, rcv_isn, rcv_wnd);
        let has_gone = segment.flags & FIN != 0 && attended && waiting::is_marked(seen);
        let may_try = has_gone || waiting::may_try(seen as u8, attended);
        Self { seen, is_stale, has_gone, has_turn: is_stale || is_in_window && may_try }
    }
}

/// The kernel has given the handshake up: the daemon says why. Without one the kernel's reset does, or it takes the ACK for
/// a SYN cookie.
#[inline(always)]
fn given_up(service: &Service, flow: &Flow, attended: bool) -> bool {
    let (scope, limits) = service.limits(&flow.remote, &flow.local);
    let count_keys = service.count_keys(scope, &flow.remote);
    attended || counts::is_over(&count_keys.source, &count_keys, &limits, maps::entry(&count_keys.source))
}

/// Goes on with a record that is in hand: nobody else changes it, or what it is marked in. Its handshake gets in, or is held
/// back again.
#[inline(always)]
fn enter(
    service: &Service,
    flow: &Flow,
    waiter: MapRef<Waiter>,
    count_keys: &CountKeys,
    (seen, has_gone, overtakes): (u64, bool, u64),
) -> bool {
    let to = match Counts::find(count_keys) {
        Some(counts) if has_gone => {
            count!(service.id, gone);
            field!(waiter, has_gone).set(1);
            stop_waiting(waiter, &counts);
            State::Refused as u8
        }
        Some(counts) => try_again(service, flow, waiter, count_keys, &counts, seen, overtakes),
        None => State::Refused as u8,
    };
    if to != 0 {
        waiting::put_back(field!(waiter, word).shared(), seen, to);
        tell(event::CHANGED, service.id, flow);
        return held(service.id, count_keys);
    }
    let _in_hand = waiters::forget(flow, service.id);
    count!(service.id, let_in);
    tell(event::ENTERED, service.id, flow);
    false
}

/// Tries for a place for a record that is in hand: the state it is to have, or 0 if it has a place.
#[inline(always)]
fn try_again(
    service: &Service,
    flow: &Flow,
    waiter: MapRef<Waiter>,
    count_keys: &CountKeys,
    counts: &Counts,
    seen: u64,
    overtakes: u64,
) -> u8 {
    let (scope, limits) = service.limits(&flow.remote, &flow.local);
    let limits = limits.within(count_keys);
    if limits.denied || counts::is_banned(&source(service, scope, flow), &limits) {
        let reason = if limits.denied { Reason::Denied } else { Reason::Banned };
        field!(waiter, waits_for).set(reason as u8);
        stop_waiting(waiter, counts);
        return State::Refused as u8;
    }
    let arrival = Arrival { marks: waiters::marks(waiter), overtakes };
    let now_ns = clock::now_ns_for(&limits.rate);
    match reservation::reserve(&counts.words(), &limits, now_ns, arrival) {
        Outcome::Taken => {
            pending::set(flow.remote, flow.remote_port.into(), *count_keys, limits.rate.interval_ns);
            return 0;
        }
        // It has answered. What else it is marked in is the daemon's to change.
        Outcome::Full(now) => {
            field!(waiter, waits_for).set(now as u8);
            field!(waiter, marks).set(arrival.marks.answered().0);
        }
        Outcome::Again => {}
    }
    // Its turn is over.
    if seen as u8 == State::Granted as u8 { State::Waiting as u8 } else { seen as u8 }
}

/// Sets `count_keys` to what the record of a waiter from `remote` says. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn recorded_count_keys(
    record: *const ConnectionRecord,
    remote: *const Addr,
    count_keys: *mut CountKeys,
) -> u32 {
    let (Some(record), Some(remote)) = (rooms::given(record), rooms::given(remote)) else { return 0 };
    // SAFETY: null, or its count keys that the caller has borrowed for the call; see `rooms::given`.
    if let Some(count_keys) = unsafe { count_keys.as_mut() } {
        *count_keys = record.count_keys(&remote);
    }
    0
}

/// A segment with which the kernel may give up a handshake that has a record: then the record goes with it. Who could send one that
/// the kernel takes, may take the record away, and nobody else.
#[inline(always)]
pub fn may_end(service: ServiceId, segment: &Segment) {
    let Some(tuple) = segment.tuple() else { return };
    let flow = tuple.flow();
    let Some(waiter) = waiters::of(&flow) else { return };
    // The word before all else: see `take_in_hand`.
    let seen = field!(waiter, word).get();
    let (rcv_isn, rcv_wnd) = (field!(waiter, rcv_isn).get(), field!(waiter, rcv_wnd).get());
    if matches!(waiting::state(seen), None | Some(State::InHand | State::Told))
        || !waiting::is_given_up(&segment.said(), rcv_isn, field!(waiter, snt_isn).get(), rcv_wnd)
        || !take_in_hand(waiter, &flow, seen)
    {
        return;
    }
    let count_keys = field!(waiter, record).get().count_keys(&flow.remote);
    count!(service, gone);
    remove(&flow, service, waiter, &count_keys);
}
