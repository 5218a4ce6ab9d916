//! What is noted on each connection, by its socket's cookie.
//!
//! Not in the socket's own storage, and only in a hash map where it must be: for both the kernel allocates and
//! frees, which costs more than all the rest of the ledger (`docs/decisions/notes-by-cookie.md`).
//!
//! A note is made under the socket's lock, and taken away by whoever is first, under it or not: the owner's close
//! is seen before the lock is taken. So taking is one atomic step, and what it gives is given once. A socket that
//! will report no change of state any more has its note kept beside, with the address that it was noted for.

use aya_ebpf::bindings::BPF_NOEXIST;
use limiter_common::{Addr, Kept, Note, Peg, ending::Notes, note, peg};

use crate::{
    atomic::{self, Shared},
    maps::{KEPT, NOTES, PEGS},
};

/// No such key.
const ENOENT: i32 = -2;

/// What is noted on the connection with this cookie.
#[inline(always)]
pub fn of(cookie: u64) -> Option<Note> {
    let peg = PEGS.get_ptr_mut(Peg::of(cookie))?;
    // SAFETY: found in this run.
    unsafe {
        if serves(peg) == cookie {
            return Some((*peg).note);
        }
        if (*peg).crowded == 0 {
            return None;
        }
        if let Some(note) = NOTES.get_ptr(cookie) {
            return Some(*note);
        }
        KEPT.get_ptr(cookie).map(|kept| (*kept).note)
    }
}

/// Notes it on a connection on which nothing is; `false` when there is no room.
#[inline(always)]
pub fn make(cookie: u64, note: Note) -> bool {
    let Some(peg) = PEGS.get_ptr_mut(Peg::of(cookie)) else { return false };
    // SAFETY: found in this run, and ours once it is occupied.
    unsafe {
        if peg::occupy(word(peg), cookie) {
            (*peg).note = note;
            return true;
        }
    }
    if NOTES.insert(cookie, note, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    // SAFETY: found in this run.
    unsafe { atomic::add_u32(&raw mut (*peg).crowded, 1) };
    true
}

/// Takes away what is noted; what it was.
#[inline(always)]
pub fn take(cookie: u64) -> Option<Note> {
    let peg = PEGS.get_ptr_mut(Peg::of(cookie))?;
    // SAFETY: found in this run.
    unsafe {
        if serves(peg) == cookie {
            // Before the peg is free, and serves somebody else.
            let note = (&raw const (*peg).note).read_volatile();
            return if peg::vacate(word(peg), cookie) { Some(note) } else { None };
        }
        if (*peg).crowded == 0 {
            return None;
        }
    }
    let found = NOTES.get_ptr_mut(cookie)?;
    // SAFETY: found in this run. It is what the cookie's note was, if it is ours to remove: no cookie gets a second.
    let note = unsafe { *found };
    match NOTES.remove(cookie) {
        // SAFETY: as above.
        Ok(()) => unsafe { atomic::add_u32(&raw mut (*peg).crowded, u32::MAX) },
        Err(ENOENT) => return None,
        // The kernel may give up on a bucket's lock rather than wait for ever (`htab_lock_bucket`,
        // kernel/bpf/hashtab.c). Then the note stays, and must not give back twice.
        // SAFETY: as above.
        Err(_) => unsafe { (*found).state = note::RELEASED },
    }
    if note.state == note::RELEASED { None } else { Some(note) }
}

/// Keeps what is noted on a socket beyond [`take`]; `false` when there is no room.
#[inline(always)]
pub fn keep(cookie: u64, kept: &Kept) -> bool {
    let Some(peg) = PEGS.get_ptr_mut(Peg::of(cookie)) else { return false };
    if KEPT.insert(cookie, kept, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    // SAFETY: found in this run.
    unsafe { atomic::add_u32(&raw mut (*peg).crowded, 1) };
    true
}

/// Takes away what is kept; what it was.
#[inline(always)]
pub fn take_kept(cookie: u64) -> Option<Kept> {
    let peg = PEGS.get_ptr_mut(Peg::of(cookie))?;
    // SAFETY: found in this run.
    if unsafe { (&raw const (*peg).crowded).read_volatile() } == 0 {
        return None;
    }
    // SAFETY: as in `take`.
    let kept = unsafe { *KEPT.get_ptr(cookie)? };
    if KEPT.remove(cookie).is_err() {
        return None;
    }
    // SAFETY: found in this run.
    unsafe { atomic::add_u32(&raw mut (*peg).crowded, u32::MAX) };
    Some(kept)
}

/// What is noted on the connection with this cookie, whose peer `remote` knows.
pub struct Noted<R> {
    /// The cookie.
    pub cookie: u64,
    /// Reads the peer's address.
    pub remote: R,
}

impl<R: Fn() -> Addr> Notes for Noted<R> {
    #[inline(always)]
    fn take(&self) -> Option<Kept> {
        take(self.cookie).map(|note| Kept::new(note, (self.remote)()))
    }

    #[inline(always)]
    fn take_kept(&self) -> Option<Kept> {
        take_kept(self.cookie)
    }
}

/// The cookie that a peg serves.
///
/// # Safety
///
/// `peg` was found in this run.
#[inline(always)]
unsafe fn serves(peg: *const Peg) -> u64 {
    // SAFETY: by the contract above.
    unsafe { (&raw const (*peg).cookie).read_volatile() }
}

/// The same as a word that other CPUs change.
///
/// # Safety
///
/// As for [`serves`].
#[inline(always)]
unsafe fn word<'a>(peg: *mut Peg) -> &'a Shared {
    // SAFETY: by the contract above; the first field, aligned to 8 bytes.
    unsafe { Shared::word(&raw mut (*peg).cookie) }
}
