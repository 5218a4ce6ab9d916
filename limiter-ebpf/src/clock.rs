// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The clocks of the ledger.

use aya_ebpf::helpers::{
    bpf_ktime_get_boot_ns, bpf_ktime_get_ns,
    generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
};
use limiter_common::{Entry, Rate};

use crate::map_ref::{MapRef, field};

/// Nanoseconds of `CLOCK_BOOTTIME`, which goes on while the host sleeps: for what is due at a time.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: takes nothing, and is always there.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The same for a handshake that pays for this rate; 0 without one, where no time matters and the clock is not asked.
#[inline(always)]
pub fn now_ns_for(rate: &Rate) -> u64 {
    if rate.is_limited() { now_ns() } else { 0 }
}

/// Seconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now_s() -> u32 {
    seconds(monotonic_ns())
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn monotonic_ns() -> u64 {
    // SAFETY: takes nothing, and is always there.
    unsafe { bpf_ktime_get_ns() }
}

/// The same as of the last tick.
#[inline(always)]
pub fn tick_ns() -> u64 {
    // SAFETY: takes nothing, and is there since Linux 5.11.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The same in seconds, for what every connection notes: it reads no hardware. Iterators may not use
/// it.
#[inline(always)]
pub fn tick_s() -> u32 {
    seconds(tick_ns())
}

/// Ticks of the kernel (jiffies): one load, since the verifier makes that of it (`do_misc_fixups`,
/// kernel/bpf/verifier.c).
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: takes nothing, and is there since Linux 5.6.
    unsafe { bpf_jiffies64() }
}

#[inline(always)]
const fn seconds(ns: u64) -> u32 {
    (ns / 1_000_000_000) as u32
}

/// Notes on an entry that a connection came or went at `now_s`.
#[inline(always)]
pub fn seen(entry: MapRef<Entry>, now_s: u32) {
    field!(entry, last_seen_s).set(now_s);
}
