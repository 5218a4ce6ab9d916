//! The steward: changes to the ledger that the daemon asks for and only the kernel can make in one
//! atomic step. It is attached nowhere; the daemon runs it (`BPF_PROG_TEST_RUN`).

use limiter_common::{errand::BATCH, places};

use crate::{
    atomic::Shared,
    maps::{self, ERRAND, LEDGER},
    pending,
};

/// Gives back what is pending on this CPU, then deletes the named entries that nothing uses.
#[inline(always)]
pub fn run() {
    let Some(errand) = ERRAND.get_ptr_mut(0) else { return };
    // SAFETY: one daemon at a time runs errands, and it waits for this run to end.
    let errand = unsafe { &mut *errand };
    // The daemon runs on this CPU, so the packet a reservation was made for is long handled.
    errand.cancelled = u32::from(pending::cancel());
    errand.collected = 0;
    for index in 0..BATCH {
        if index >= errand.asked as usize {
            return;
        }
        let key = errand.keys[index];
        let Some(entry) = maps::entry(&key) else { continue };
        // SAFETY: found in this run.
        if places::collect(unsafe { Shared::places(entry) }) && LEDGER.remove(key).is_ok() {
            errand.collected += 1;
        }
    }
}
