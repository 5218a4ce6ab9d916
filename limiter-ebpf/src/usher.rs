// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The usher: changes to the records of those that wait, which the daemon asks for. It is attached nowhere; the
//! daemon runs it (`BPF_PROG_TEST_RUN`), as it does [`mod@crate::maintenance`].

use limiter_common::{
    CountKeys, Grounds, Limits, Reason, Response, Waiter,
    count::Word as _,
    reservation::{self, Wait, WaitMarks},
    verdict,
    waiting::{self, Flow, State, UsherRequest, usher_request},
};

use crate::{
    atomic::Shared,
    clock,
    counts::{self, Counts},
    grounds, ladder,
    map_ref::{Find as _, MapRef, field},
    maps::{self, Service, USHER_REQUEST, count},
    waiters::{self, stop_waiting},
};

/// Does what is asked.
#[inline(always)]
pub fn run() {
    // One thread of one daemon asks, and waits for this run to end.
    let Some(request) = USHER_REQUEST.find(0) else { return };
    field!(request, done).set(0);
    let asked = Asked { request, kind: field!(request, kind).get(), flow: field!(request, flow).get() };
    let Some(waiter) = waiters::of(&asked.flow) else { return };
    let record = field!(waiter, word).shared();
    let service = field!(waiter, record).get().service();
    let number = field!(request, number).get();
    let step = |from, to| waiting::step(record, number, from, to);
    let done = match asked.kind {
        usher_request::GRANT => step(State::Waiting, State::Granted),
        // What it was marked in was given back, or taken, by who had it in hand.
        usher_request::CLEAR => {
            record.load() == waiting::word(number, State::InHand) && waiters::forget(&asked.flow, service)
        }
        _ => {
            let seen = record.load();
            if waiting::number(seen) != number || !waiting::take_in_hand(record, seen) {
                return;
            }
            change(waiter, &asked, record, seen)
        }
    };
    field!(request, done).set(done.into());
}

/// What is asked.
struct Asked {
    request: MapRef<UsherRequest>,
    /// One of [`usher_request`].
    kind: u32,
    flow: Flow,
}

/// Changes a record that is in hand, and was seen with this word; whether what was asked is done.
#[inline(always)]
fn change(waiter: MapRef<Waiter>, asked: &Asked, record: &Shared, seen: u64) -> bool {
    let count_keys = field!(waiter, record).get().count_keys(&asked.flow.remote);
    let Some(counts) = Counts::find(&count_keys) else {
        // Nothing is counted there, so it is marked nowhere.
        return forget_or_put_back(asked, &count_keys, record, seen);
    };
    let (done, to) = match (asked.kind, waiting::state(seen)) {
        (usher_request::ADMIT, Some(State::Crowded)) if waits(waiter, asked, &counts, &count_keys) => {
            (true, State::Waiting)
        }
        (usher_request::WAIT_ON, Some(State::Waiting)) => {
            (waits_on(waiter, asked, &counts, &count_keys), State::Waiting)
        }
        (usher_request::REVOKE, Some(State::Granted)) => {
            count!(count_keys.service(), lost_turn);
            let marks = reservation::miss(&counts.words(), waiters::marks(waiter));
            field!(waiter, marks).set(marks.0);
            (true, State::Waiting)
        }
        (usher_request::TELL, Some(State::Waiting | State::Crowded | State::Refused | State::Told)) => {
            refuse(waiter, asked, &counts, &count_keys, seen as u8 == State::Told as u8);
            (true, State::Told)
        }
        (usher_request::FORGET, Some(_)) => {
            stop_waiting(waiter, &counts);
            return waiters::forget(&asked.flow, count_keys.service());
        }
        _ => {
            waiting::put_back(record, seen, seen as u8);
            return false;
        }
    };
    waiting::put_back(record, seen, to as u8);
    done
}

#[inline(always)]
fn forget_or_put_back(asked: &Asked, count_keys: &CountKeys, record: &Shared, seen: u64) -> bool {
    if asked.kind == usher_request::FORGET {
        return waiters::forget(&asked.flow, count_keys.service());
    }
    let (is_done, to) = match (asked.kind, waiting::state(seen)) {
        (usher_request::TELL, _) => (true, State::Told as u8),
        (usher_request::REVOKE, Some(State::Granted)) => (true, State::Waiting as u8),
        _ => (false, seen as u8),
    };
    waiting::put_back(record, seen, to);
    field!(asked.request, response).set(Response::Reset as u32);
    is_done
}

/// Whether a record, in hand, has become one that waits.
#[inline(always)]
fn waits(waiter: MapRef<Waiter>, asked: &Asked, counts: &Counts, count_keys: &CountKeys) -> bool {
    let Some(limits) = limits(asked, count_keys) else { return false };
    let reason = Reason::from_u8(field!(waiter, waits_for).get());
    let capacity = u32::from(field!(waiter, capacity).get());
    let most = waiting::most_of_source(limits.source, capacity);
    match reservation::wait(&counts.words(), &limits, reason, most, capacity) {
        Wait::Waits(marks) => {
            field!(waiter, marks).set(marks.0);
            true
        }
        _ => false,
    }
}

/// Marks a record, in hand, where it is to wait, as far as that may be. One that has missed its turn keeps no place of
/// others until it has answered.
#[inline(always)]
fn waits_on(waiter: MapRef<Waiter>, asked: &Asked, counts: &Counts, count_keys: &CountKeys) -> bool {
    let from = waiters::marks(waiter);
    if !from.has_missed() {
        let Some(limits) = limits(asked, count_keys) else { return false };
        let to = WaitMarks(field!(asked.request, marks).get() as u8);
        field!(waiter, marks).set(reservation::wait_on(&counts.words(), &limits, from, to).0);
    }
    field!(waiter, waits_for).set(field!(asked.request, reason).get() as u8);
    true
}

/// The limits of what the asked one is counted in.
#[inline(always)]
fn limits(asked: &Asked, count_keys: &CountKeys) -> Option<Limits> {
    let service = maps::service(count_keys.service())?;
    Some(service.limits(&asked.flow.remote, &asked.flow.local).1.within(count_keys))
}

/// Refuses a record, in hand: what it is told, and how, by the policy in force and by where its source stands on
/// the ladder. A client that has given up, or was `refused_already`, is not refused, and only told.
#[inline(always)]
fn refuse(
    waiter: MapRef<Waiter>,
    asked: &Asked,
    counts: &Counts,
    count_keys: &CountKeys,
    refused_already: bool,
) {
    stop_waiting(waiter, counts);
    let noted = field!(waiter, grounds).get();
    let request = asked.request;
    field!(request, response).set(Response::Reset as u32);
    let Some(service) = maps::service(count_keys.service()) else { return };
    let (scope, limits) = service.limits(&asked.flow.remote, &asked.flow.local);
    let limits = limits.within(count_keys);
    let source = waiters::source(&service, scope, &asked.flow);
    let entry = maps::entry(&count_keys.source);
    let usage = counts::usage(&source, count_keys, entry, limits.total != u32::MAX);
    // What has come since goes first: who is denied or banned is told nothing. If it has room in this moment, it is told why it
    // had none.
    let (reason, packed) = match usage.waits_for(&limits, clock::now_ns()) {
        Some(reason) => {
            let reason = reason.within(count_keys);
            (reason, grounds::of(reason, &usage, &limits, count_keys))
        }
        None => (Grounds::unpack(noted).reason, noted),
    };
    field!(request, grounds).set(packed);
    field!(request, response).set(respond(&service, reason, usage.replies_due_ns) as u32);
    if field!(waiter, has_gone).get() == 0 && !refused_already {
        count!(service.id, refused[reason as usize]);
        count!(service.id, told);
        if let Some(entry) = entry {
            field!(entry, refused).add(1);
        }
        if !ladder::pay(&service, &source, reason, reason.is_of_source()) {
            count!(service.id, unjudged);
        }
    }
}

/// How a client that believes to be connected is answered: where nothing would be, by a reset, or it would hang.
#[inline(always)]
fn respond(service: &Service, reason: Reason, replies_due_ns: u64) -> Response {
    let replies = service.ladder().map(|ladder| ladder.replies).unwrap_or_default();
    match verdict::response(service.policy, reason, replies_due_ns, &replies, clock::now_ns()) {
        Response::Drop => Response::Reset,
        response => response,
    }
}
