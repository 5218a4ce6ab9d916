// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A handshake is complete, and there is no place for it: it is held back, and recorded.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::SkBuffContext};
use limiter_common::{
    ConnectionRecord, CountKeys, Limits, Reason, Waiter, record,
    reservation::{self, Wait},
    waiting::{self, State, event},
};

use super::stage::{Packet, held};
use crate::{
    clock,
    counts::{self, Counts, Present},
    events::tell,
    grounds,
    kernel::{self, Handshake},
    maps::{Service, WAITERS, count},
    packet::{FIN, Segment, Tuple},
    waiters,
};

/// Holds it back; whether the packet is to be dropped. Goes on where the gate has found no place.
#[inline(always)]
pub fn run(ctx: &SkBuffContext) -> bool {
    let Some(Packet { service, segment, mut tuple, handshake }) = Packet::read(ctx) else { return true };
    if handshake != Handshake::Completing {
        return handshake != Handshake::Void;
    }
    let (count_keys, limits, reason, packed) = why(&service, &tuple);
    make_record(ctx, &segment, &mut tuple, &service, &count_keys, &limits, (reason, packed));
    held(service.id, &count_keys)
}

/// What a peer is counted in for whom there is no place, its limits there, and what is in its way: the reason, and the
/// grounds, packed.
#[inline(always)]
fn why(service: &Service, tuple: &Tuple) -> (CountKeys, Limits, Reason, u64) {
    let Present { source, count_keys, limits, entry } = Present::of(service, &tuple.remote(), &tuple.local());
    let usage = counts::usage(&source, &count_keys, entry, limits.total != u32::MAX);
    let (reason, has_room) = match usage.waits_for(&limits, clock::now_ns()) {
        Some(reason) => (reason, false),
        // A place has come free since: it is noticed when the ACK comes again, as the daemon sees to at once.
        None => (Reason::Concurrency, true),
    };
    let packed = grounds::of_waiter(reason, &usage, &limits, &count_keys, has_room);
    (count_keys, limits, reason, packed)
}

/// Records a handshake for which there is no place under these `limits`, because of `reason`, and on what grounds, packed.
#[inline(always)]
fn make_record(
    ctx: &SkBuffContext,
    segment: &Segment,
    tuple: &mut Tuple,
    service: &Service,
    count_keys: &CountKeys,
    limits: &Limits,
    (reason, packed): (Reason, u64),
) {
    let id = service.id;
    let now_ns = clock::monotonic_ns();
    let mut waiter = Waiter { since_ns: now_ns, ..Waiter::default() };
    if !kernel::describe(ctx, tuple, &mut waiter, now_ns) {
        return count!(id, unrecorded);
    }
    describe_listener(ctx, segment.local_port(), &mut waiter);
    waiter.window = segment.window;
    waiter.grounds = packed;
    waiter.waits_for = reason as u8;
    waiter.record = ConnectionRecord::new(record::COUNTED, count_keys);
    // Who sends its FIN with this ACK does not wait, and is refused like any other; it is no cheaper than others.
    let may_wait = service.policy.wait_s != 0
        && segment.flags & FIN == 0
        && !matches!(reason, Reason::Denied | Reason::Banned);
    let counts = Counts::find(count_keys);
    let state = match counts {
        Some(counts) if may_wait => wait(&counts, count_keys, limits, reason, &mut waiter),
        _ => Some(State::Refused),
    };
    let Some(state) = state else { return count!(id, unrecorded) };
    waiter.word = waiting::word(now_ns, state);
    let flow = tuple.flow();
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "a copy of each would not fit the stack, of which older verifiers (6.1) leave less"
    )]
    let inserted = WAITERS.insert(&flow, &waiter, u64::from(BPF_NOEXIST));
    if inserted.is_err() {
        if state == State::Waiting
            && let Some(counts) = counts
        {
            reservation::leave(&counts.words(), waiter.marks());
        }
        return count!(id, unrecorded);
    }
    waiters::count_record(id, 1);
    tell(event::CHANGED, id, &flow);
}

/// Notes what the context knows of the listener, whom the client has asked for at `port`.
#[inline(always)]
fn describe_listener(ctx: &SkBuffContext, port: u32, waiter: &mut Waiter) {
    // SAFETY: the kernel hands the program a valid context, whose socket is a listener here.
    unsafe {
        let skb = ctx.skb.skb;
        let sk = (*skb).__bindgen_anon_2.sk;
        waiter.ifindex = (*skb).ifindex;
        if !sk.is_null() {
            waiter.bound_ifindex = (*sk).bound_dev_if;
            waiter.capacity = waiting::capacity(kernel::backlog(sk));
            waiter.elsewhere = u8::from((*sk).src_port != port);
        }
    }
}

/// Waits for a place, if not too many do: the state of its record; `None` if that cannot be told.
#[inline(always)]
fn wait(
    counts: &Counts,
    count_keys: &CountKeys,
    limits: &Limits,
    reason: Reason,
    waiter: &mut Waiter,
) -> Option<State> {
    let capacity = u32::from(waiter.capacity);
    let most = waiting::most_of_source(limits.source, capacity);
    match counts.wait(count_keys, limits, reason, most, capacity) {
        Wait::Waits(marks) => {
            waiter.marks = marks.0;
            Some(State::Waiting)
        }
        Wait::ListenerFull => Some(State::Crowded),
        Wait::SourceFull => Some(State::Refused),
        Wait::Again => None,
    }
}
