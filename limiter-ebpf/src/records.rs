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
    map_ref::{Find as _, field},
    maps::{KEPT, OVERFLOW, SLOTS},
};

/// No such key.
const ENOENT: i32 = -2;

/// The record of the connection with this cookie.
#[inline(always)]
pub fn of(cookie: u64) -> Option<ConnectionRecord> {
    let slot = SLOTS.find(Slot::of(cookie))?;
    if field!(slot, cookie).get() == cookie {
        return Some(field!(slot, record).get());
    }
    if field!(slot, crowded).get() == 0 {
        return None;
    }
    if let Some(record) = OVERFLOW.find(&cookie) {
        return Some(record.get());
    }
    KEPT.find(&cookie).map(|kept| field!(kept, record).get())
}

/// Makes the record of a connection without one; `false` when there is no room.
#[inline(always)]
pub fn make(cookie: u64, record: ConnectionRecord) -> bool {
    let Some(slot) = SLOTS.find(Slot::of(cookie)) else { return false };
    if slot::occupy(field!(slot, cookie).shared(), cookie) {
        field!(slot, record).set(record);
        return true;
    }
    if OVERFLOW.insert(cookie, record, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    field!(slot, crowded).add(1);
    true
}

/// Takes the record away; what it was.
#[inline(always)]
pub fn take(cookie: u64) -> Option<ConnectionRecord> {
    let slot = SLOTS.find(Slot::of(cookie))?;
    if field!(slot, cookie).get() == cookie {
        // Before the slot is free, and serves somebody else.
        let record = field!(slot, record).get();
        return if slot::vacate(field!(slot, cookie).shared(), cookie) { Some(record) } else { None };
    }
    if field!(slot, crowded).get() == 0 {
        return None;
    }
    let found = OVERFLOW.find(&cookie)?;
    // It is what the cookie's record was, if it is ours to remove: no cookie gets a second.
    let record = found.get();
    match OVERFLOW.remove(cookie) {
        Ok(()) => field!(slot, crowded).add(u32::MAX),
        Err(ENOENT) => return None,
        // The kernel may give up on a bucket's lock rather than wait for ever (`htab_lock_bucket`,
        // kernel/bpf/hashtab.c). Then the record stays, and must not give back twice.
        Err(_) => field!(found, state).set(record::RELEASED),
    }
    if record.state == record::RELEASED { None } else { Some(record) }
}

/// Keeps the record of a socket beyond [`take`]; `false` when there is no room.
#[inline(always)]
pub fn keep(cookie: u64, kept: &Kept) -> bool {
    let Some(slot) = SLOTS.find(Slot::of(cookie)) else { return false };
    if KEPT.insert(cookie, kept, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    field!(slot, crowded).add(1);
    true
}

/// Takes away what is kept; what it was.
#[inline(always)]
pub fn take_kept(cookie: u64) -> Option<Kept> {
    let slot = SLOTS.find(Slot::of(cookie))?;
    if field!(slot, crowded).get() == 0 {
        return None;
    }
    // As in `take`.
    let kept = KEPT.find(&cookie)?.get();
    if KEPT.remove(cookie).is_err() {
        return None;
    }
    field!(slot, crowded).add(u32::MAX);
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
