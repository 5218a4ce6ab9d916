// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The record of each connection, by its socket's cookie.
//!
//! Not in the socket's own storage, and only in a hash map where it must be: for both the kernel allocates and
//! frees, which costs more than all the rest of the ledger (`docs/decisions/connection-records.md`).
//!
//! A record is made under the socket's lock, and taken away by whoever is first, under it or not: the owner's close
//! is seen before the lock is taken. So taking is one atomic step, and what it gives is given once. A socket that
//! will report no change of state any more has its record kept beside, with the address that it was recorded for.

use aya_ebpf::bindings::BPF_NOEXIST;
use limiter_common::{Addr, ConnectionRecord, Kept, Slot, ending::Records, record, slot};

use crate::{
    atomic::{self, Shared},
    maps::{KEPT, OVERFLOW, SLOTS},
};

/// No such key.
const ENOENT: i32 = -2;

/// The record of the connection with this cookie.
#[inline(always)]
pub fn of(cookie: u64) -> Option<ConnectionRecord> {
    let slot = SLOTS.get_ptr_mut(Slot::of(cookie))?;
    // SAFETY: found in this run.
    unsafe {
        if serves(slot) == cookie {
            return Some((*slot).record);
        }
        if (*slot).crowded == 0 {
            return None;
        }
        if let Some(record) = OVERFLOW.get_ptr(cookie) {
            return Some(*record);
        }
        KEPT.get_ptr(cookie).map(|kept| (*kept).record)
    }
}

/// Makes the record of a connection without one; `false` when there is no room.
#[inline(always)]
pub fn make(cookie: u64, record: ConnectionRecord) -> bool {
    let Some(slot) = SLOTS.get_ptr_mut(Slot::of(cookie)) else { return false };
    // SAFETY: found in this run, and ours once it is occupied.
    unsafe {
        if slot::occupy(word(slot), cookie) {
            (*slot).record = record;
            return true;
        }
    }
    if OVERFLOW.insert(cookie, record, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    // SAFETY: found in this run.
    unsafe { atomic::add_u32(&raw mut (*slot).crowded, 1) };
    true
}

/// Takes the record away; what it was.
#[inline(always)]
pub fn take(cookie: u64) -> Option<ConnectionRecord> {
    let slot = SLOTS.get_ptr_mut(Slot::of(cookie))?;
    // SAFETY: found in this run.
    unsafe {
        if serves(slot) == cookie {
            // Before the slot is free, and serves somebody else.
            let record = (&raw const (*slot).record).read_volatile();
            return if slot::vacate(word(slot), cookie) { Some(record) } else { None };
        }
        if (*slot).crowded == 0 {
            return None;
        }
    }
    let found = OVERFLOW.get_ptr_mut(cookie)?;
    // SAFETY: found in this run. It is what the cookie's record was, if it is ours to remove: no cookie gets a second.
    let record = unsafe { *found };
    match OVERFLOW.remove(cookie) {
        // SAFETY: as above.
        Ok(()) => unsafe { atomic::add_u32(&raw mut (*slot).crowded, u32::MAX) },
        Err(ENOENT) => return None,
        // The kernel may give up on a bucket's lock rather than wait for ever (`htab_lock_bucket`,
        // kernel/bpf/hashtab.c). Then the record stays, and must not give back twice.
        // SAFETY: as above.
        Err(_) => unsafe { (*found).state = record::RELEASED },
    }
    if record.state == record::RELEASED { None } else { Some(record) }
}

/// Keeps the record of a socket beyond [`take`]; `false` when there is no room.
#[inline(always)]
pub fn keep(cookie: u64, kept: &Kept) -> bool {
    let Some(slot) = SLOTS.get_ptr_mut(Slot::of(cookie)) else { return false };
    if KEPT.insert(cookie, kept, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    // SAFETY: found in this run.
    unsafe { atomic::add_u32(&raw mut (*slot).crowded, 1) };
    true
}

/// Takes away what is kept; what it was.
#[inline(always)]
pub fn take_kept(cookie: u64) -> Option<Kept> {
    let slot = SLOTS.get_ptr_mut(Slot::of(cookie))?;
    // SAFETY: found in this run.
    if unsafe { (&raw const (*slot).crowded).read_volatile() } == 0 {
        return None;
    }
    // SAFETY: as in `take`.
    let kept = unsafe { *KEPT.get_ptr(cookie)? };
    if KEPT.remove(cookie).is_err() {
        return None;
    }
    // SAFETY: found in this run.
    unsafe { atomic::add_u32(&raw mut (*slot).crowded, u32::MAX) };
    Some(kept)
}

/// The record of the connection with this cookie, whose peer `remote` knows.
pub struct ByCookie<R> {
    /// The cookie.
    pub cookie: u64,
    /// Reads the peer's address.
    pub remote: R,
}

impl<R: Fn() -> Addr> Records for ByCookie<R> {
    #[inline(always)]
    fn take(&self) -> Option<Kept> {
        take(self.cookie).map(|record| Kept::new(record, (self.remote)()))
    }

    #[inline(always)]
    fn take_kept(&self) -> Option<Kept> {
        take_kept(self.cookie)
    }
}

/// The cookie that a slot serves.
///
/// # Safety
///
/// `slot` was found in this run.
#[inline(always)]
unsafe fn serves(slot: *const Slot) -> u64 {
    // SAFETY: by the contract above.
    unsafe { (&raw const (*slot).cookie).read_volatile() }
}

/// The same as a word that other CPUs change.
///
/// # Safety
///
/// As for [`serves`].
#[inline(always)]
unsafe fn word<'a>(slot: *mut Slot) -> &'a Shared {
    // SAFETY: by the contract above; the first field, aligned to 8 bytes.
    unsafe { Shared::word(&raw mut (*slot).cookie) }
}
