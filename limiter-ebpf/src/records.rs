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
use limiter_common::{Addr, ConnectionRecord, DatedRecord, Kept, Slot, ending::Records, record, slot};

use crate::{
    map_ref::{Find as _, MapRef, field},
    maps::{CROWDED, KEPT, OVERFLOW, SLOTS},
};

/// No such key.
const ENOENT: i32 = -2;

/// The record of the connection with this cookie.
#[inline(always)]
pub fn of(cookie: u64) -> Option<ConnectionRecord> {
    find(cookie).map(|(record, _)| record.get())
}

/// The same, and since when there is a connection. Apart, because of both in one register older verifiers (6.1) do not
/// know that a byte of it is one.
#[inline(always)]
pub fn dated(cookie: u64) -> Option<DatedRecord> {
    find(cookie).map(|(record, since_s)| DatedRecord { record: record.get(), since_s: since_s.get() })
}

/// Where the record is, and since when.
#[inline(always)]
fn find(cookie: u64) -> Option<(MapRef<ConnectionRecord>, MapRef<u32>)> {
    let slot = SLOTS.find(Slot::of(cookie))?;
    if field!(slot, cookie).get() == cookie {
        return Some((field!(slot, record), field!(slot, since_s)));
    }
    if crowded(cookie)?.get() == 0 {
        return None;
    }
    if let Some(dated) = OVERFLOW.find(&cookie) {
        return Some((field!(dated, record), field!(dated, since_s)));
    }
    KEPT.find(&cookie).map(|kept| (field!(kept, record), field!(kept, since_s)))
}

/// How many records of the cookies that have this one's slot are in hash maps.
#[inline(always)]
fn crowded(cookie: u64) -> Option<MapRef<u32>> {
    CROWDED.find(Slot::of(cookie))
}

/// Makes the record of a connection without one; `false` when there is no room.
#[inline(always)]
pub fn make(cookie: u64, dated: DatedRecord) -> bool {
    let Some(slot) = SLOTS.find(Slot::of(cookie)) else { return false };
    if slot::occupy(field!(slot, cookie).shared(), cookie) {
        field!(slot, record).set(dated.record);
        field!(slot, since_s).set(dated.since_s);
        return true;
    }
    let Some(crowded) = crowded(cookie) else { return false };
    if OVERFLOW.insert(cookie, dated, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    crowded.add(1);
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
    let crowded = crowded(cookie)?;
    if crowded.get() == 0 {
        return None;
    }
    let found = OVERFLOW.find(&cookie)?;
    // It is what the cookie's record was, if it is ours to remove: no cookie gets a second.
    let record = field!(found, record).get();
    match OVERFLOW.remove(cookie) {
        Ok(()) => crowded.add(u32::MAX),
        Err(ENOENT) => return None,
        // The kernel may give up on a bucket's lock rather than wait for ever (`htab_lock_bucket`,
        // kernel/bpf/hashtab.c). Then the record stays, and must not give back twice.
        Err(_) => field!(found, record.state).set(record::RELEASED),
    }
    if record.state == record::RELEASED { None } else { Some(record) }
}

/// Keeps the record of a socket beyond [`take`]; `false` when there is no room.
#[inline(always)]
pub fn keep(cookie: u64, kept: &Kept) -> bool {
    let Some(crowded) = crowded(cookie) else { return false };
    if KEPT.insert(cookie, kept, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    crowded.add(1);
    true
}

/// Takes away what is kept; what it was.
#[inline(always)]
pub fn take_kept(cookie: u64) -> Option<Kept> {
    let crowded = crowded(cookie)?;
    if crowded.get() == 0 {
        return None;
    }
    // As in `take`.
    let kept = KEPT.find(&cookie)?.get();
    if KEPT.remove(cookie).is_err() {
        return None;
    }
    crowded.add(u32::MAX);
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
