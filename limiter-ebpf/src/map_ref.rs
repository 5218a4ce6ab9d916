// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the programs may do with the memory of a map: read and write single fields, and have no Rust reference to it.
//!
//! **How long it is there.** What a look-up has found stays memory of a value of that map until the run of the program
//! ends: arrays are allocated as a whole, and a map is there as long as a program that uses it; what is deleted from a
//! hash or a trie is freed after an RCU grace period, and a program runs within one read-side section (`bpf_prog_run`,
//! include/linux/filter.h). But a deleted element may serve *another key* of its map at once (`htab_elem_free`,
//! kernel/bpf/hashtab.c): whoever must know checks after the fact, by a tag ([`crate::counts::Counts::belong_to`]), the
//! number in a waiter's record (`limiter_common::waiting`) or in the ring (`limiter_common::room`). Values are aligned to 8
//! bytes, and all are plain data, so that any bytes are a value.
//!
//! **Who else writes it.** Other CPUs run the same programs, a softirq interrupts what runs in process context, and user
//! space writes by bpf(2). A `&mut T` says that nobody else reads or writes, a `&T` that nobody writes: either would be
//! undefined behaviour. So there is [`MapRef`], a pointer, and [`field`], which makes of it a pointer to a field:
//!
//! | how | which fields | why it is enough |
//! |---|---|---|
//! | [`MapRef::shared`]: atomic steps | counts, due times, ends of bans, `taken`, `head` and `tail` of a room, cookies of slots, generation of what is pending, words of waiters, sockets at an endpoint, words of refused handshakes | decisions rest on them |
//! | [`MapRef::add`]: atomic, no result | `accepted`, `refused`, `beyond`, `would_refuse`, `dropped`, `records`, `CROWDED` | sums that must be right |
//! | [`MapRef::get`], [`MapRef::set`]: one load or store each | tags, `last_seen_s`, `peak`, `recent_peak`, `held`, `full_s`, `ring_number`, counters; what a penalty tells people | whoever is last is right, or one of a statistic is lost |
//! | the same, or [`MapRef::fill`], for several words | keys in a ring; records and what is kept; a waiter in hand; what is pending; refused handshakes; requests | torn only if memory serves another key meanwhile, and then found out; or nobody else writes it at that moment |
//!
//! **References that are allowed**, because nobody writes while they live:
//!
//! - to what a set of the policy says (`PORTS`, `SERVICES`, `RULES_n`, `LIMITS_n`, `COVERAGE`, `LADDERS`): a program looks up
//!   in the set in force, and user space writes only the other one, after every run has ended that began before the last
//!   switch;
//! - to a [`Shared`] word, all of whose access is atomic or volatile;
//! - by [`MapRef::of_this_cpu`], to a cached drop;
//! - to memory on the stack, as arguments of a function that is verified by itself ([`crate::rooms::given`]).

use core::{mem::MaybeUninit, ptr::NonNull};

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use bytemuck::Pod;
use limiter_common::Count;

use crate::atomic::{self, Shared};

/// A value of a map that was found in this run of the program, or a field of one. Nothing but the pointer says in an
/// `Option` whether there is one: of a flag beside it, older verifiers (6.1) forget what it means for the pointer.
#[repr(transparent)]
#[derive(PartialEq, Eq)]
pub struct MapRef<T>(NonNull<T>);

impl<T> Clone for MapRef<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for MapRef<T> {}

impl<T: Pod> MapRef<T> {
    /// # Safety
    ///
    /// `value` is not null, and points to a value of a map that was found in this run, or to a field of one.
    #[inline(always)]
    pub const unsafe fn new(value: *mut T) -> Self {
        // SAFETY: not null, by the contract above.
        Self(unsafe { NonNull::new_unchecked(value) })
    }

    /// Where it is, for [`field`], and for functions that are verified by themselves.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }

    /// What is there now.
    #[inline(always)]
    pub fn get(self) -> T {
        let mut value = MaybeUninit::uninit();
        // SAFETY: valid until the run ends; as long as the other, and any bytes are a value.
        unsafe {
            copy::<T, true>(self.as_ptr(), value.as_mut_ptr());
            value.assume_init()
        }
    }

    /// Writes what is to be there.
    #[inline(always)]
    pub fn set(self, value: T) {
        // SAFETY: as in `get`.
        unsafe { copy::<T, false>(&raw const value, self.as_ptr()) };
    }

    /// Writes a whole value, field by field or in larger pieces, as the compiler likes.
    #[inline(always)]
    pub fn fill(self, value: T) {
        // SAFETY: as in `get`; who reads it meanwhile takes it for what the table above says.
        unsafe { self.as_ptr().write(value) };
    }

    /// A reference to it.
    ///
    /// # Safety
    ///
    /// It is a value of a per-CPU map that only this program writes, which nothing interrupts that writes it, too; and it
    /// is not written while the reference lives.
    #[inline(always)]
    pub const unsafe fn of_this_cpu<'a>(self) -> &'a T {
        // SAFETY: by the contract above.
        unsafe { self.0.as_ref() }
    }
}

impl MapRef<u64> {
    /// The same as a word that changes by atomic steps.
    #[inline(always)]
    pub const fn shared<'a>(self) -> &'a Shared {
        // SAFETY: valid until the run ends, aligned to 8 bytes, and shared with others through such words only.
        unsafe { Shared::at(self.as_ptr()) }
    }

    /// Adds to a sum, atomically.
    #[inline(always)]
    pub fn add(self, n: u64) {
        // SAFETY: valid until the run ends, and aligned.
        unsafe { atomic::add(self.as_ptr(), n) };
    }

    /// Adds to a statistic, which may lose one where two add at once.
    #[inline(always)]
    pub fn count(self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }
}

impl MapRef<Count> {
    /// As for a number: a [`Count`] is one.
    #[inline(always)]
    pub const fn shared<'a>(self) -> &'a Shared {
        // SAFETY: as for a number.
        unsafe { Shared::at(self.as_ptr().cast()) }
    }
}

impl MapRef<u32> {
    /// Adds to a sum, atomically.
    #[inline(always)]
    pub fn add(self, n: u32) {
        // SAFETY: valid until the run ends, and aligned.
        unsafe { atomic::add_u32(self.as_ptr(), n) };
    }

    /// Adds to a statistic, which may lose one where two add at once.
    #[inline(always)]
    pub fn count(self, n: u32) {
        self.set(self.get().wrapping_add(n));
    }
}

/// Copies a value from or to a map, in the largest pieces that its alignment allows. As a whole, LLVM would copy a volatile
/// one by way of the stack, of which there is too little.
///
/// # Safety
///
/// Both are valid and aligned, and any bytes are a value.
#[inline(always)]
unsafe fn copy<T, const FROM_MAP: bool>(from: *const T, to: *mut T) {
    // SAFETY: by the contract above.
    unsafe {
        match align_of::<T>() {
            8 => copy_pieces::<T, u64, FROM_MAP>(from, to),
            4 => copy_pieces::<T, u32, FROM_MAP>(from, to),
            2 => copy_pieces::<T, u16, FROM_MAP>(from, to),
            _ => copy_pieces::<T, u8, FROM_MAP>(from, to),
        }
    }
}

/// # Safety
///
/// As for [`copy`]; a `P` is aligned as `T`.
#[inline(always)]
unsafe fn copy_pieces<T, P: Copy, const FROM_MAP: bool>(from: *const T, to: *mut T) {
    for piece in 0..size_of::<T>() / size_of::<P>() {
        // SAFETY: by the contract above.
        unsafe {
            let (from, to) = (from.cast::<P>().add(piece), to.cast::<P>().add(piece));
            if FROM_MAP {
                to.write(from.read_volatile());
            } else {
                to.write_volatile(from.read());
            }
        }
    }
}

/// The field of a [`MapRef`]'s value that is at the end of a path.
macro_rules! field {
    ($value:expr, $($path:tt)+) => {{
        let value = $value.as_ptr();
        // SAFETY: a field lies within its value, which was found in this run.
        unsafe { $crate::map_ref::MapRef::new(&raw mut (*value).$($path)+) }
    }};
}
pub(crate) use field;

/// A map in which values are found.
pub trait Find<K, V> {
    /// The value of `key`.
    fn find(&self, key: K) -> Option<MapRef<V>>;
}

impl<V: Pod, const N: usize, const F: usize> Find<u32, V> for Array<V, N, F> {
    #[inline(always)]
    fn find(&self, key: u32) -> Option<MapRef<V>> {
        found(self.get_ptr_mut(key))
    }
}

impl<V: Pod, const N: usize, const F: usize> Find<u32, V> for PerCpuArray<V, N, F> {
    #[inline(always)]
    fn find(&self, key: u32) -> Option<MapRef<V>> {
        found(self.get_ptr_mut(key))
    }
}

impl<K, V: Pod, const N: usize, const F: usize> Find<&K, V> for HashMap<K, V, N, F> {
    #[inline(always)]
    fn find(&self, key: &K) -> Option<MapRef<V>> {
        found(self.get_ptr_mut(key))
    }
}

/// What a look-up has found.
#[inline(always)]
fn found<V: Pod>(value: Option<*mut V>) -> Option<MapRef<V>> {
    // SAFETY: `bpf_map_lookup_elem` answers with a value of the map, or null, which is `None`.
    value.map(|value| unsafe { MapRef::new(value) })
}
