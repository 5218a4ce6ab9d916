// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Handshakes that are held back: their records, and what the gate makes of the next packet of each.
//!
//! What becomes of a record is decided in `limiter_common::waiting`. The daemon changes records through the
//! [`mod@crate::usher`] alone.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::SkBuffContext};
use limiter_common::{
    Addr, ConnectionRecord, CountKeys, Key, Reason, Scope, ServiceId, Waiter,
    count::Word as _,
    record,
    reservation::{self, Arrival, Outcome, Wait, WaitMarks},
    waiting::{self, Flow, State, event},
};

use crate::{
    atomic::{self, Shared},
    attended::overtakes,
    clock,
    counts::{self, Counts},
    events::tell,
    kernel::{self, Handshake},
    maps::{self, STAGES, Service, WAITERS},
    packet::{FIN, Segment, Tuple},
    pending, rooms,
};

/// Index of [`hold`] in [`STAGES`].
pub const HOLD: u32 = 0;
/// Index of [`again`].
pub const AGAIN: u32 = 1;

/// Index of [`make_room`].
pub const MAKE_ROOM: u32 = 2;
/// Index of [`newcomer`].
pub const NEW: u32 = 3;

/// Goes on in another program, which has a stack of its own. Returns only if it is not there: then the packet is
/// to be dropped, and the kernel asks for it again.
#[inline(always)]
pub fn go_on(ctx: &SkBuffContext, stage: u32) {
    // SAFETY: nothing here has a destructor.
    unsafe { STAGES.tail_call(ctx, stage) };
}

/// Whether there are records of handshakes of the service.
#[inline(always)]
pub fn has_records(service: ServiceId) -> bool {
    // SAFETY: found in this run.
    maps::total(service).is_some_and(|total| unsafe { (&raw const (*total).records).read_volatile() } != 0)
}

/// The record of a handshake.
#[inline(always)]
pub fn of(flow: &Flow) -> Option<*mut Waiter> {
    WAITERS.get_ptr_mut(flow)
}

/// Number and state of a record.
///
/// # Safety
///
/// `waiter` was found in this run.
#[inline(always)]
pub unsafe fn word<'a>(waiter: *mut Waiter) -> &'a Shared {
    // SAFETY: by the contract above; the first field, aligned to 8 bytes, and changed through `Shared` only.
    unsafe { Shared::word(&raw mut (*waiter).word) }
}

/// Removes a record, which the caller has in hand or is told; `false` if it is not there any more.
#[inline(always)]
pub fn forget(flow: &Flow, service: ServiceId) -> bool {
    if WAITERS.remove(flow).is_err() {
        return false;
    }
    add_record(service, u64::MAX);
    true
}

#[inline(always)]
fn add_record(service: ServiceId, one: u64) {
    if let Some(total) = maps::total(service) {
        // SAFETY: found in this run.
        unsafe { atomic::add(&raw mut (*total).records, one) };
    }
}

/// A packet for a listener of a mail port, read again by a program that the gate goes on in.
struct Packet {
    service: Service,
    segment: Segment,
    tuple: Tuple,
    handshake: Handshake,
}

impl Packet {
    #[inline(always)]
    fn read(ctx: &SkBuffContext) -> Option<Self> {
        let segment = Segment::read(ctx)?;
        let service = maps::service_of(segment.local_port())?;
        let mut tuple = segment.tuple()?;
        let handshake = kernel::handshake(ctx, &mut tuple, segment.ack);
        Some(Self { service, segment, tuple, handshake })
    }
}

/// Counts an ACK held back. Always true.
#[inline(always)]
fn held(service: ServiceId, count_keys: &CountKeys) -> bool {
    maps::count(service, |counters| &mut counters.held);
    count_held(&raw const count_keys.source);
    true
}

/// The same for the entry of its source, if there is one. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_held(key: *const Key) -> u32 {
    let Some(key) = rooms::given(key) else { return 0 };
    if let Some(entry) = maps::entry(&key) {
        // SAFETY: found in this run. A plain add: a statistic that may lose one between two CPUs.
        unsafe { (*entry).held = (*entry).held.wrapping_add(1) };
    }
    0
}

/// Holds a handshake back for which there is no place, and records it; whether the packet is to be dropped. Goes
/// on where the gate has found none.
#[inline(always)]
pub fn hold(ctx: &SkBuffContext) -> bool {
    let Some(Packet { service, segment, mut tuple, handshake }) = Packet::read(ctx) else { return true };
    if handshake != Handshake::Completing {
        return handshake != Handshake::Void;
    }
    let (count_keys, of_source, reason) = why(&service, &tuple);
    make_record(ctx, &segment, &mut tuple, &service, &count_keys, of_source, reason);
    held(service.id, &count_keys)
}

/// What a peer is counted in for whom there is no place, how many connections it may have there, and what is in its way.
#[inline(always)]
fn why(service: &Service, tuple: &Tuple) -> (CountKeys, u32, Reason) {
    let remote = tuple.remote();
    let (scope, limits) = service.limits(&remote, &tuple.local());
    let count_keys = CountKeys::new(service.id, service.policy, scope, &remote);
    let source = count_keys.source;
    let count_keys = counts::present(count_keys);
    let limits = limits.within(&count_keys);
    let usage =
        counts::usage(&source, &count_keys, maps::entry(&count_keys.source), limits.total != u32::MAX);
    let reason = match usage.waits_for(&limits, clock::now_ns()) {
        Some(reason) => reason,
        // A place has come free since: it is noticed when the ACK comes again, as the daemon sees to at once.
        None => Reason::Concurrency,
    };
    (count_keys, limits.source, reason)
}

/// Makes the entries of a source that the ledger does not know, or finds it one that it shares with others. Goes on in
/// [`newcomer`]: a program of its own, because the verifier would look at it once for each way to read a packet. Always
/// true.
#[inline(always)]
pub fn make_room(ctx: &SkBuffContext) -> bool {
    if let Some(mut count_keys) = pending::proposed() {
        counts::make_entries(&raw mut count_keys);
        pending::propose(&count_keys);
        go_on(ctx, NEW);
    }
    true
}

/// Judges the ACK of a source that the ledger did not know a moment ago. Goes on where the gate has found that it is neither
/// denied nor banned; whether the packet is to be dropped.
#[inline(always)]
pub fn newcomer(ctx: &SkBuffContext) -> bool {
    let Some(Packet { service, tuple, handshake, .. }) = Packet::read(ctx) else { return true };
    if handshake == Handshake::Void {
        return false;
    }
    let remote = tuple.remote();
    if handshake == Handshake::Unknown {
        // As in the gate: this only looks.
        let (scope, limits) = service.limits(&remote, &tuple.local());
        let count_keys = CountKeys::new(service.id, service.policy, scope, &remote);
        let source = count_keys.source;
        let count_keys = counts::present(count_keys);
        let limits = limits.within(&count_keys);
        let entry = maps::entry(&count_keys.source);
        return counts::is_over(&source, &count_keys, &limits, entry) && held(service.id, &count_keys);
    }
    let Some(count_keys) = pending::proposed() else { return true };
    // Memory is short: the ledger says so once there is a connection that it cannot count.
    let Some(counts) = Counts::find(&count_keys) else { return false };
    let limits = service.limits(&remote, &tuple.local()).1.within(&count_keys);
    let words = counts.words();
    let overtakes = if has_records(service.id) { overtakes() } else { 0 };
    match reservation::reserve(&words, &limits, clock::now_ns(), Arrival { overtakes, ..Arrival::NEW }) {
        Outcome::Taken if counts.belong_to(&count_keys) => {
            pending::set(remote, tuple.remote_port(), count_keys, limits.rate.interval_ns);
            return false;
        }
        Outcome::Taken => reservation::cancel(&words, limits.rate.interval_ns),
        Outcome::Full(_) => {
            go_on(ctx, HOLD);
            return held(service.id, &count_keys);
        }
        Outcome::Again => {}
    }
    maps::count(service.id, |counters| &mut counters.contended);
    true
}

/// Records a handshake for which there is no place, because of `reason`; what it is counted in may have `of_source`
/// connections.
#[inline(always)]
fn make_record(
    ctx: &SkBuffContext,
    segment: &Segment,
    tuple: &mut Tuple,
    service: &Service,
    count_keys: &CountKeys,
    of_source: u32,
    reason: Reason,
) {
    let id = service.id;
    let now_ns = clock::monotonic_ns();
    let mut waiter = Waiter { since_ns: now_ns, ..Waiter::default() };
    if !kernel::describe(ctx, tuple, &mut waiter, now_ns) {
        return maps::count(id, |counters| &mut counters.unrecorded);
    }
    // SAFETY: the kernel hands the program a valid context, whose socket is a listener here.
    unsafe {
        let skb = ctx.skb.skb;
        let sk = (*skb).__bindgen_anon_2.sk;
        waiter.ifindex = (*skb).ifindex;
        if !sk.is_null() {
            waiter.bound_ifindex = (*sk).bound_dev_if;
            waiter.capacity = waiting::capacity(kernel::backlog(sk));
            waiter.elsewhere = u8::from((*sk).src_port != segment.local_port());
        }
    }
    waiter.window = segment.window;
    waiter.waits_for = reason as u8;
    waiter.has_gone = u8::from(segment.flags & FIN != 0);
    waiter.record = ConnectionRecord::new(record::COUNTED, count_keys);
    let (counts, marks) = (Counts::find(count_keys), WaitMarks::of(reason));
    let may_wait = service.policy.wait_s != 0
        && waiter.has_gone == 0
        && !matches!(reason, Reason::Denied | Reason::Banned);
    let state = match counts {
        Some(counts) if may_wait => {
            let capacity = u32::from(waiter.capacity);
            let most = waiting::most_of_source(of_source, capacity);
            match reservation::wait(&counts.words(), marks, most, capacity) {
                Wait::Waits if counts.belong_to(count_keys) => {
                    waiter.marks = marks.0;
                    State::Waiting
                }
                Wait::Waits => {
                    reservation::leave(&counts.words(), marks);
                    State::Refused
                }
                Wait::ListenerFull => State::Crowded,
                Wait::SourceFull => State::Refused,
                Wait::Again => return maps::count(id, |counters| &mut counters.unrecorded),
            }
        }
        _ => State::Refused,
    };
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
            reservation::leave(&counts.words(), marks);
        }
        return maps::count(id, |counters| &mut counters.unrecorded);
    }
    add_record(id, 1);
    tell(event::CHANGED, id, &flow);
}

/// The next ACK of a handshake that has a record; whether it is to be dropped.
#[inline(always)]
pub fn again(ctx: &SkBuffContext) -> bool {
    let Some(Packet { service, segment, tuple, handshake }) = Packet::read(ctx) else { return true };
    if handshake == Handshake::Void {
        return false;
    }
    let (flow, overtakes) = (tuple.flow(), overtakes());
    let Some(waiter) = of(&flow) else { return true };
    // SAFETY: found in this run. The word before all else: see `take_in_hand`.
    let record = unsafe { word(waiter) };
    let seen = record.load();
    // SAFETY: as above.
    let (isn, rcv_isn, rcv_wnd) = unsafe { ((*waiter).snt_isn, (*waiter).rcv_isn, (*waiter).rcv_wnd) };
    let attended = overtakes == 0;
    if handshake == Handshake::Unknown {
        // The kernel has given it up: the daemon says why. Without one the kernel's reset does, or it takes the ACK for
        // a SYN cookie.
        let (scope, limits) = service.limits(&flow.remote, &flow.local);
        let count_keys = CountKeys::new(service.id, service.policy, scope, &flow.remote);
        return attended
            || counts::is_over(&count_keys.source, &count_keys, &limits, maps::entry(&count_keys.source));
    }
    let is_being_told = attended && seen as u8 == State::Told as u8;
    let is_stale = segment.ack != isn.wrapping_add(1) && !is_being_told;
    let is_in_window = waiting::is_in_window(segment.seq, rcv_isn, rcv_wnd);
    let has_gone = segment.flags & FIN != 0 && attended && waiting::is_marked(seen);
    let has_turn = is_stale || is_in_window && (has_gone || waiting::may_try(seen as u8, attended));
    if !has_turn || !take_in_hand(waiter, &flow, seen) {
        let scope = service.scope(&flow.remote);
        return held(service.id, &CountKeys::new(service.id, service.policy, scope, &flow.remote));
    }
    let mut count_keys = CountKeys::default();
    // SAFETY: as above, and in hand.
    unsafe { recorded_count_keys(&raw const (*waiter).record, &raw const flow.remote, &raw mut count_keys) };
    if is_stale {
        // Of another handshake of the same addresses and ports, which has ended unseen. This one is recorded when
        // its ACK comes again.
        remove(&flow, service.id, waiter, &count_keys);
        return held(service.id, &count_keys);
    }
    // From here on nobody else changes the record, or what it is marked in.
    let to = match Counts::find(&count_keys) {
        Some(counts) if has_gone => {
            maps::count(service.id, |counters| &mut counters.gone);
            // SAFETY: found in this run, and in hand.
            unsafe {
                (*waiter).has_gone = 1;
                stop_waiting(waiter, &counts);
            }
            State::Refused as u8
        }
        Some(counts) => try_again(&service, &flow, waiter, &count_keys, &counts, seen, overtakes),
        None => State::Refused as u8,
    };
    if to != 0 {
        waiting::put_back(record, seen, to);
        tell(event::CHANGED, service.id, &flow);
        return held(service.id, &count_keys);
    }
    let _in_hand = forget(&flow, service.id);
    maps::count(service.id, |counters| &mut counters.let_in);
    tell(event::ENTERED, service.id, &flow);
    false
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

/// Takes a record out of the counts that it is marked in.
///
/// # Safety
///
/// `waiter` was found in this run, and is in hand; `counts` are those of its count keys.
#[inline(always)]
pub unsafe fn stop_waiting(waiter: *mut Waiter, counts: &Counts) {
    // SAFETY: by the contract above.
    let waiter = unsafe { &mut *waiter };
    if !waiter.marks().is_none() {
        reservation::leave(&counts.words(), waiter.marks());
        waiter.marks = 0;
    }
}

/// Tries for a place for a record that is in hand: the state it is to have, or 0 if it has a place.
#[inline(always)]
fn try_again(
    service: &Service,
    flow: &Flow,
    waiter: *mut Waiter,
    count_keys: &CountKeys,
    counts: &Counts,
    seen: u64,
    overtakes: u64,
) -> u8 {
    let (scope, limits) = service.limits(&flow.remote, &flow.local);
    let limits = limits.within(count_keys);
    if limits.denied || counts::is_banned(&source(service, scope, flow), &limits) {
        // SAFETY: found in this run, and in hand.
        unsafe {
            (*waiter).waits_for = if limits.denied { Reason::Denied } else { Reason::Banned } as u8;
            stop_waiting(waiter, counts);
        }
        return State::Refused as u8;
    }
    // SAFETY: as above.
    let arrival = Arrival { marks: unsafe { (*waiter).marks() }, overtakes };
    let now_ns = if limits.rate.is_limited() { clock::now_ns() } else { 0 };
    match reservation::reserve(&counts.words(), &limits, now_ns, arrival) {
        Outcome::Taken => {
            pending::set(flow.remote, u32::from(flow.remote_port), *count_keys, limits.rate.interval_ns);
            return 0;
        }
        // SAFETY: as above. What it is marked in is the daemon's to change.
        Outcome::Full(now) => unsafe { (*waiter).waits_for = now as u8 },
        Outcome::Again => {}
    }
    // Its turn is over.
    if seen as u8 == State::Granted as u8 { State::Waiting as u8 } else { seen as u8 }
}

/// What the source of a record is known as on the ladder, whatever it is counted in.
#[inline(always)]
pub fn source(service: &Service, scope: Scope, flow: &Flow) -> Key {
    Key::source(service.id, service.policy, scope.source_prefix, &flow.remote)
}

/// Takes the record of `flow` in hand, which was seen with this word. `false` if it is another one's by now: memory
/// of a record that was removed may serve another at once.
#[inline(always)]
fn take_in_hand(waiter: *mut Waiter, flow: &Flow, seen: u64) -> bool {
    // SAFETY: found in this run.
    let record = unsafe { word(waiter) };
    if !waiting::take_in_hand(record, seen) {
        return false;
    }
    let is_its_own = of(flow) == Some(waiter);
    if !is_its_own {
        waiting::put_back(record, seen, seen as u8);
    }
    is_its_own
}

/// Removes a record that is in hand.
#[inline(always)]
fn remove(flow: &Flow, service: ServiceId, waiter: *mut Waiter, count_keys: &CountKeys) {
    if let Some(counts) = Counts::find(count_keys) {
        // SAFETY: found in this run, and in hand.
        unsafe { stop_waiting(waiter, &counts) };
    }
    let _in_hand = forget(flow, service);
    tell(event::GONE, service, flow);
}

/// A reset for a handshake that may have a record. Who could send one that the kernel takes, may take the record
/// away, and nobody else.
#[inline(always)]
pub fn reset(service: ServiceId, segment: &Segment) {
    let Some(tuple) = segment.tuple() else { return };
    let flow = tuple.flow();
    let Some(waiter) = of(&flow) else { return };
    // SAFETY: found in this run. The word before all else: see `take_in_hand`.
    let seen = unsafe { word(waiter) }.load();
    // SAFETY: as above.
    let (rcv_isn, rcv_wnd) = unsafe { ((*waiter).rcv_isn, (*waiter).rcv_wnd) };
    if matches!(waiting::state(seen), None | Some(State::InHand | State::Told))
        || !waiting::is_in_window(segment.seq, rcv_isn, rcv_wnd)
        || !take_in_hand(waiter, &flow, seen)
    {
        return;
    }
    // SAFETY: as above, and in hand.
    let count_keys = unsafe { (*waiter).record.count_keys(&flow.remote) };
    maps::count(service, |counters| &mut counters.gone);
    remove(&flow, service, waiter, &count_keys);
}
