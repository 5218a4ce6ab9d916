//! What is noted on each connection, by its socket's cookie.
//!
//! Not in the socket's own storage, and only in a hash map where it must be: for both the kernel allocates and
//! frees, which costs more than all the rest of the ledger (`docs/decisions/notes-by-cookie.md`). Whoever makes,
//! reads or takes a note away holds the socket's lock, but for the steward, which is only sent after those of
//! sockets that are gone.

use aya_ebpf::bindings::BPF_NOEXIST;
use limiter_common::{Note, Peg, ledger::note, peg};

use crate::{
    atomic::{self, Shared},
    maps::{NOTES, PEGS},
};

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
        NOTES.get_ptr(cookie).map(|note| *note)
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
    // SAFETY: found in this run.
    let note = unsafe { *found };
    // The kernel may give up on a bucket's lock rather than wait for ever (`htab_lock_bucket`,
    // kernel/bpf/hashtab.c). Then the note stays, and must not give back twice.
    // SAFETY: as above.
    unsafe { (*found).state = note::RELEASED };
    if NOTES.remove(cookie).is_ok() {
        // SAFETY: as above.
        unsafe { atomic::add_u32(&raw mut (*peg).crowded, u32::MAX) };
    }
    Some(note)
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
