//! The clock of the ledger: `CLOCK_BOOTTIME`, which goes on while the host sleeps.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use limiter_common::Entry;

/// Nanoseconds since boot.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: takes nothing, and is always there.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Seconds since boot.
#[inline(always)]
pub fn now_s() -> u32 {
    seconds(now_ns())
}

#[inline(always)]
const fn seconds(ns: u64) -> u32 {
    (ns / 1_000_000_000) as u32
}

/// Notes on an entry that a connection came or went at `now_ns`.
///
/// # Safety
///
/// `entry` was found in this run.
#[inline(always)]
pub unsafe fn seen(entry: *mut Entry, now_ns: u64) {
    // SAFETY: by the contract above.
    unsafe { (*entry).last_seen_s = seconds(now_ns) };
}
