// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The usher: changes to the records of those that wait, which the daemon asks for. It is attached nowhere; the
//! daemon runs it (`BPF_PROG_TEST_RUN`), as it does [`mod@crate::maintenance`].

use limiter_common::{
    CountKeys, Reason, Response, Waiter,
    count::Word as _,
    reservation::{self, Wait, WaitMarks},
    verdict,
    waiting::{self, State, UsherRequest, usher_request},
};

use crate::{
    atomic::{self, Shared},
    clock,
    counts::{self, Counts},
    ladder,
    maps::{self, Service, USHER_REQUEST},
    waiters,
};

/// Does what is asked.
#[inline(always)]
pub fn run() {
    let Some(asked) = USHER_REQUEST.get_ptr_mut(0) else { return };
    // SAFETY: one thread of one daemon asks, and waits for this run to end.
    let asked = unsafe { &mut *asked };
    asked.done = 0;
    let flow = asked.flow;
    let Some(waiter) = waiters::of(&flow) else { return };
    // SAFETY: found in this run.
    let (record, service) = unsafe { (waiters::word(waiter), (*waiter).record.service()) };
    let number = asked.number;
    let step = |from, to| waiting::step(record, number, from, to);
    let done = match asked.kind {
        usher_request::GRANT => step(State::Waiting, State::Granted),
        usher_request::REVOKE => {
            let done = step(State::Granted, State::Waiting);
            if done {
                maps::count(service, |counters| &mut counters.lost_turn);
            }
            done
        }
        // What it was marked in was given back, or taken, by who had it in hand.
        usher_request::CLEAR => {
            record.load() == waiting::word(number, State::InHand) && waiters::forget(&flow, service)
        }
        _ => {
            let seen = record.load();
            if waiting::number(seen) != number || !waiting::take_in_hand(record, seen) {
                return;
            }
            change(waiter, asked, record, seen)
        }
    };
    asked.done = u32::from(done);
}

/// Changes a record that is in hand, and was seen with this word; whether what was asked is done.
#[inline(always)]
fn change(waiter: *mut Waiter, asked: &mut UsherRequest, record: &Shared, seen: u64) -> bool {
    // SAFETY: found in this run, and in hand.
    let count_keys = unsafe { (*waiter).record.count_keys(&asked.flow.remote) };
    let Some(counts) = Counts::find(&count_keys) else {
        // Nothing is counted there, so it is marked nowhere.
        return forget_or_put_back(asked, &count_keys, record, seen);
    };
    let (done, to) = match (asked.kind, waiting::state(seen)) {
        (usher_request::ADMIT, Some(State::Crowded)) if waits(waiter, asked, &counts, &count_keys) => {
            (true, State::Waiting)
        }
        (usher_request::WAIT_ON, Some(State::Waiting)) => (waits_on(waiter, asked, &counts), State::Waiting),
        (usher_request::TELL, Some(State::Waiting | State::Crowded | State::Refused | State::Told)) => {
            refuse(waiter, asked, &counts, &count_keys, seen as u8 == State::Told as u8);
            (true, State::Told)
        }
        (usher_request::FORGET, Some(_)) => {
            // SAFETY: found in this run, and in hand.
            unsafe { waiters::stop_waiting(waiter, &counts) };
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
fn forget_or_put_back(asked: &mut UsherRequest, count_keys: &CountKeys, record: &Shared, seen: u64) -> bool {
    if asked.kind == usher_request::FORGET {
        return waiters::forget(&asked.flow, count_keys.service());
    }
    let to = if asked.kind == usher_request::TELL { State::Told as u8 } else { seen as u8 };
    waiting::put_back(record, seen, to);
    asked.response = Response::Reset as u32;
    asked.kind == usher_request::TELL
}

/// Whether a record, in hand, has become one that waits.
#[inline(always)]
fn waits(waiter: *mut Waiter, asked: &UsherRequest, counts: &Counts, count_keys: &CountKeys) -> bool {
    // SAFETY: found in this run, and in hand.
    let waiter = unsafe { &mut *waiter };
    let Some(service) = maps::service(count_keys.service()) else { return false };
    let limits = service.limits(&asked.flow.remote, &asked.flow.local).1.within(count_keys);
    let (marks, capacity) = (WaitMarks::of(waiter.reason()), u32::from(waiter.capacity));
    let most = waiting::most_of_source(limits.source, capacity);
    let waits = reservation::wait(&counts.words(), marks, most, capacity) == Wait::Waits;
    if waits {
        waiter.marks = marks.0;
    }
    waits
}

/// Marks a record, in hand, where it is to wait; whether that could be done.
#[inline(always)]
fn waits_on(waiter: *mut Waiter, asked: &UsherRequest, counts: &Counts) -> bool {
    // SAFETY: found in this run, and in hand.
    let waiter = unsafe { &mut *waiter };
    let reason = Reason::from_u8(asked.reason as u8);
    let to = WaitMarks::of(reason);
    let waits_on = waiter.marks() == to || reservation::wait_on(&counts.words(), waiter.marks(), to);
    if waits_on {
        waiter.marks = to.0;
        waiter.waits_for = reason as u8;
    }
    waits_on
}

/// Refuses a record, in hand: what it is told, and how, by the policy in force and by where its source stands on
/// the ladder. A client that has given up, or was `refused_already`, is not refused, and only told.
#[inline(always)]
fn refuse(
    waiter: *mut Waiter,
    asked: &mut UsherRequest,
    counts: &Counts,
    count_keys: &CountKeys,
    refused_already: bool,
) {
    // SAFETY: found in this run, and in hand.
    let (reason, has_gone) = unsafe {
        waiters::stop_waiting(waiter, counts);
        ((*waiter).reason(), (*waiter).has_gone != 0)
    };
    asked.response = Response::Reset as u32;
    asked.reason = reason as u32;
    let Some(service) = maps::service(count_keys.service()) else { return };
    let (scope, limits) = service.limits(&asked.flow.remote, &asked.flow.local);
    let limits = limits.within(count_keys);
    let source = waiters::source(&service, scope, &asked.flow);
    // What has come since goes first: who is denied or banned is told nothing.
    let reason = if limits.denied {
        Reason::Denied
    } else if counts::is_banned(&source, &limits) {
        Reason::Banned
    } else {
        reason.within(count_keys)
    };
    asked.reason = reason as u32;
    let entry = maps::entry(&count_keys.source);
    let usage = counts::usage(&source, count_keys, entry, true);
    (asked.count, asked.limit) = match reason {
        Reason::Total => (usage.total, limits.total),
        Reason::Network if count_keys.has_network() => (usage.network, limits.network),
        _ => (usage.source, limits.source),
    };
    asked.response = respond(&service, reason, usage.replies_due_ns) as u32;
    if !has_gone && !refused_already {
        maps::count(service.id, |counters| &mut counters.refused[reason as usize]);
        maps::count(service.id, |counters| &mut counters.told);
        if let Some(entry) = entry {
            // SAFETY: found in this run.
            unsafe { atomic::add_u32(&raw mut (*entry).refused, 1) };
        }
        if !ladder::pay(&service, &source, reason, reason.is_of_source()) {
            maps::count(service.id, |counters| &mut counters.unjudged);
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
