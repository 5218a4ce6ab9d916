// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The maintenance program: changes to the ledger that the daemon asks for and only the kernel can make in one
//! atomic step. It is attached nowhere; the daemon runs it (`BPF_PROG_TEST_RUN`).

use limiter_common::{
    Count, Key, ServiceId,
    count::{self, Word as _},
    maintenance::{BATCH, Step, step},
};

use crate::{
    atomic::Shared,
    map_ref::{Find as _, field},
    maps::{self, LEDGER, MAINTENANCE},
    pending, records, rooms,
};

/// Gives back what is pending on this CPU or the one that is named, then does each step.
#[inline(always)]
pub fn run() {
    // One process at a time runs requests (they hold a lock), and it waits for this run to end.
    let Some(request) = MAINTENANCE.find(0) else { return };
    // On this CPU, the packet a reservation was made for is handled, or this could not run.
    let (cpu, generation) = (field!(request, cpu).get(), field!(request, generation).get());
    field!(request, cancelled).set(pending::cancel_of(cpu, generation).into());
    field!(request, done).set(0);
    let asked = field!(request, asked).get() as usize;
    for index in 0..BATCH {
        if index >= asked {
            return;
        }
        let step = field!(request, steps[index]);
        let done = do_step(step.as_ptr());
        field!(request, done).count(done);
    }
}

/// Does one step: 1, or 0 if things were not as it expects, and nothing was changed. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn do_step(step: *const Step) -> u32 {
    let Some(step) = rooms::given(step) else { return 0 };
    u32::from(done(&step))
}

#[inline(always)]
fn done(step: &Step) -> bool {
    if step.step == step::FORGET {
        return records::take(step.from.0).is_some();
    }
    if step.step == step::BEGIN_PEAK {
        return begin_peak(step);
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
        if let Some(counters) = maps::counters(ServiceId(step.key.service)) {
            field!(counters, drift).count(off.into());
        }
    }
    true
}

/// What came since is higher, and belongs to what begins.
#[inline(always)]
fn begin_peak(step: &Step) -> bool {
    let Some(entry) = maps::entry(&step.key) else { return false };
    let recent = field!(entry, recent_peak);
    let is_seen = u64::from(recent.get()) == step.from.0;
    if is_seen {
        recent.set(0);
    }
    is_seen
}

/// The count a step is about.
#[inline(always)]
fn word<'a>(key: &Key) -> Option<&'a Shared> {
    if key.is_total() {
        Some(field!(maps::total(ServiceId(key.service))?, count).shared())
    } else {
        Some(field!(maps::entry(key)?, count).shared())
    }
}
