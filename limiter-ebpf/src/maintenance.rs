// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The maintenance program: changes to the ledger that the daemon asks for and only the kernel can make in one
//! atomic step. It is attached nowhere; the daemon runs it (`BPF_PROG_TEST_RUN`).

use limiter_common::{
    Count, Counters, Key, ServiceId,
    count::{self, Word as _},
    maintenance::{BATCH, Step, step},
};

use crate::{
    atomic::Shared,
    clock, ledger,
    maps::{self, LEDGER, MAINTENANCE},
    pending, records, rooms,
};

/// Gives back what is pending on this CPU or the one that is named, then does each step.
#[inline(always)]
pub fn run() {
    let Some(request) = MAINTENANCE.get_ptr_mut(0) else { return };
    // SAFETY: one process at a time runs requests (they hold a lock), and it waits for this run to end.
    let request = unsafe { &mut *request };
    // On this CPU, the packet a reservation was made for is handled, or this could not run.
    request.cancelled = u32::from(pending::cancel_of(request.cpu, request.generation));
    request.done = 0;
    for index in 0..BATCH {
        if index >= request.asked as usize {
            return;
        }
        let step = &request.steps[index];
        request.done +=
            if step.step == step::GIVE_BACK { give_back(step.from.0) } else { do_step(&raw const *step) };
    }
}

/// Does one step: 1, or 0 if things were not as it expects, and nothing was changed. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn do_step(step: *const Step) -> u32 {
    let Some(step) = rooms::given(step) else { return 0 };
    u32::from(done(&step))
}

/// Gives back what is kept for the socket of this cookie: 1, or 0 if nothing is. Verified by itself, and apart from
/// [`do_step`]: there is not enough stack for both.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn give_back(cookie: u64) -> u32 {
    let Some(kept) = records::take_kept(cookie) else { return 0 };
    u32::from(ledger::release(&kept.count_keys(), kept.record.is_beyond(), clock::tick_s()))
}

#[inline(always)]
fn done(step: &Step) -> bool {
    if step.step == step::FORGET {
        return records::take(step.from.0).is_some();
    }
    let Some(word) = word(&step.key) else { return false };
    if step.step == step::COLLECT {
        // Collected before, and not removed: until it is, its source waits at the gate.
        let is_unused = count::collect(word) || word.load() == Count::COLLECTED.0;
        let is_deleted = !step.key.is_total() && is_unused && LEDGER.remove(step.key).is_ok();
        if is_deleted {
            rooms::give_back(&step.key);
        }
        return is_deleted;
    }
    if word.compare_exchange(step.from.0, step.to.0) != step.from.0 {
        return false;
    }
    if !step.key.is_total()
        && let Some(entry) = maps::entry(&step.key)
    {
        rooms::may_be_idle(&step.key, entry);
    }
    // A connection is drift once, not once in each of its counts.
    if step.step == step::CORRECT && !step.key.is_network() && !step.key.is_total() {
        let off = step.from.connections().abs_diff(step.to.connections());
        maps::add(ServiceId(step.key.service), |counters: &mut Counters| &mut counters.drift, u64::from(off));
    }
    true
}

/// The count a step is about.
#[inline(always)]
fn word<'a>(key: &Key) -> Option<&'a Shared> {
    // SAFETY: found in this run, aligned, and changed through `Shared` only.
    unsafe {
        if key.is_total() {
            let total = maps::total(ServiceId(key.service))?;
            Some(Shared::word((&raw mut (*total).count).cast()))
        } else {
            Some(Shared::count(maps::entry(key)?))
        }
    }
}
