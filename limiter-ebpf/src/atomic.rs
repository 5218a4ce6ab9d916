// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Atomic steps on map values.
//!
//! `SeqCst` throughout: a `Relaxed` add whose result is used is miscompiled to a plain add on this
//! target, and the kernel's atomic instructions are fully ordered anyway. `cargo xtask test` checks
//! the disassembly.

use core::{
    cell::UnsafeCell,
    intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_xadd},
};

use limiter_common::count::Word;

/// A 64-bit word in a map value, shared with other CPUs.
#[repr(transparent)]
pub struct Shared(UnsafeCell<u64>);

impl Shared {
    /// A word of a map value.
    ///
    /// # Safety
    ///
    /// `word` is aligned to 8 bytes, and in a map value found in this run of the program (see
    /// [`mod@crate::map_ref`]).
    #[inline(always)]
    pub const unsafe fn at<'a>(word: *mut u64) -> &'a Self {
        // SAFETY: by the contract above.
        unsafe { &*word.cast::<Self>() }
    }
}

impl Word for Shared {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: valid and aligned by construction. An atomic load does not select on this target;
        // a 64-bit load is one instruction.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn fetch_add(&self, value: u64) -> u64 {
        // SAFETY: valid and aligned by construction.
        unsafe { atomic_xadd::<u64, u64, { SeqCst }>(self.0.get(), value) }
    }

    #[inline(always)]
    fn compare_exchange(&self, old: u64, new: u64) -> u64 {
        // SAFETY: valid and aligned by construction.
        unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(self.0.get(), old, new).0 }
    }
}

/// Adds to a statistic that others read and nobody decides on.
///
/// # Safety
///
/// `word` lies in a map value found in this run of the program.
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: by the contract above.
    let _before = unsafe { atomic_xadd::<u64, u64, { SeqCst }>(word, value) };
}

/// The same for half a word.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn add_u32(word: *mut u32, value: u32) {
    // SAFETY: by the contract above.
    let _before = unsafe { atomic_xadd::<u32, u32, { SeqCst }>(word, value) };
}
