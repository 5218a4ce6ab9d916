// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Room in the ledger, and for penalties: an entry is made, if need be in the place of an idle one.
//!
//! What stands in the rings, and why an idle entry is always found, is in `limiter_common::room`. To make an entry takes
//! a function of its own: it is done once for a source, and the path of a connection keeps its stack.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "copies would not fit the stack, of which the callers leave little"
)]

use aya_ebpf::bindings::BPF_NOEXIST;
use limiter_common::{
    Cause, Count, Entry, Key, Penalty, Room,
    count::{self, Word as _},
    ladder,
    room::{self, LOOKS, LOOKS_AHEAD, rooms},
};

use crate::{
    atomic::Shared,
    clock,
    map_ref::{Find as _, MapRef, field},
    maps::{self, LEDGER, PENALTIES, RINGS, ROOMS},
};

/// Makes the entry of `key`, if there is room. Another CPU may make it meanwhile: whoever calls looks for it.
///
/// This and what it calls are calls of their own, each with little on the stack: they begin where much of it is taken.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn make_entry(key: *const Key) -> u32 {
    let Some(key) = given(key) else { return 0 };
    if take(key.room()) {
        insert(&key, push_entry(&raw const key));
    }
    0
}

/// Makes room for a newcomer, as far as a few looks can.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn clear_room() -> u32 {
    let Some(room) = room(rooms::SOURCES) else { return 0 };
    for looks in (LOOKS..LOOKS + LOOKS_AHEAD).rev() {
        if Room::has_room(room.taken().load(), room.most()) {
            return 0;
        }
        match look_at_entry(rooms::SOURCES, looks) {
            NEXT => {}
            FOUND => room.give_back(),
            _ => return 0,
        }
    }
    0
}

#[inline(always)]
fn take(index: u32) -> bool {
    let Some(room) = room(index) else { return false };
    if room.take() {
        return true;
    }
    for looks in (0..LOOKS).rev() {
        match look_at_entry(index, looks) {
            NEXT => {}
            FOUND => return true,
            _ => break,
        }
    }
    room.was_full();
    false
}

#[inline(always)]
fn insert(key: &Key, ring_number: u32) {
    let fresh = Entry { tag: key.tag(), last_seen_s: clock::now_s(), ring_number, ..Entry::default() };
    if LEDGER.insert(key, &fresh, u64::from(BPF_NOEXIST)).is_err() {
        give_back(key);
    }
}

/// Gives back the room of an entry that was deleted.
#[inline(always)]
pub fn give_back(key: &Key) {
    if let Some(room) = room(key.room()) {
        room.give_back();
    }
}

/// The count of an entry has gone down: one without connections has to stand in the ring.
///
/// The memory of an entry that is idle may come to serve another source at any moment. Then that one gets a number that
/// it is not in the ring under, and is put in anew when it is idle the next time.
#[inline(always)]
pub fn may_be_idle(key: &Key, entry: MapRef<Entry>) {
    if field!(entry, count).get().connections() != 0 {
        return;
    }
    let Some(room) = room(key.room()) else { return };
    if !room.has_in_ring(field!(entry, ring_number).get()) {
        push_idle(key);
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn push_idle(key: *const Key) -> u32 {
    let Some(key) = given(key) else { return 0 };
    let ring_number = push_entry(&raw const key);
    if let Some(entry) = maps::entry(&key) {
        field!(entry, ring_number).set(ring_number);
    }
    0
}

/// Whether a newcomer finds no room in the ledger, as far as is known.
#[inline(always)]
pub fn is_full() -> bool {
    room(rooms::SOURCES)
        .is_some_and(|room| room::is_full(field!(room.0, full_s).get(), clock::tick_s().into()))
}

/// Makes the penalty of `key`, if there is room, or another source that is not banned can be forgotten for it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn make_penalty(key: *const Key) -> u32 {
    let Some(key) = given(key) else { return 0 };
    let Some(room) = room(rooms::PENALTIES) else { return 0 };
    // Memory of a deleted penalty that serves another source at once costs or spares one of them a reply.
    let insert = || PENALTIES.insert(&key, Penalty::default(), u64::from(BPF_NOEXIST)).is_ok();
    if insert() || maps::penalty(&key).is_none() && forget_penalty() && insert() {
        push_penalty(&room, &key);
    }
    0
}

/// Puts the key of an entry into the ring; the one whose slot it takes is deleted if it is idle.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn push_entry(key: *const Key) -> u32 {
    let Some(key) = given(key) else { return 0 };
    let Some(room) = room(key.room()) else { return 0 };
    let number = room.next();
    if let Some((before, old)) = room.displaced(number)
        && let Some(entry) = maps::entry(&old)
        && field!(entry, ring_number).get() == before
        && count::collect(field!(entry, count).shared())
        && LEDGER.remove(&old).is_ok()
    {
        room.give_back();
    }
    room.write(number, &key)
}

/// The same for a penalty, if it is of no ban.
#[inline(always)]
fn push_penalty(room: &Slots, key: &Key) {
    let number = room.next();
    if let Some((_, old)) = room.displaced(number)
        && let Some(penalty) = maps::penalty(&old)
        && !is_in_force(penalty, clock::now_ns())
    {
        let _forgotten = PENALTIES.remove(&old);
    }
    room.write(number, key);
}

/// The argument of a function that the verifier looks at by itself: all it knows there is the type. A copy, because older
/// verifiers (6.1) take nothing else for a map's key there.
#[inline(always)]
pub fn given<T: Copy>(argument: *const T) -> Option<T> {
    if argument.is_null() {
        return None;
    }
    // SAFETY: points at a `T` that the caller has borrowed for the call: the verifier sees to it at each
    // (`btf_check_func_arg_match`, kernel/bpf/btf.c).
    Some(unsafe { argument.read() })
}

/// What a look at the oldest in a ring has found: room.
const FOUND: u32 = 1;
/// Nothing, and there is nothing else to look at.
const NOTHING: u32 = 2;
/// One that has to stay.
const NEXT: u32 = 3;

/// Takes one number off the ring, and deletes its entry if that is idle; with so many `looks` left. A call of its own, so
/// that the verifier goes on in one way from each look.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look_at_entry(room: u32, looks: u32) -> u32 {
    let Some(room) = self::room(room) else { return NOTHING };
    let Some((number, key)) = room.oldest() else { return NOTHING };
    let Some(entry) = maps::entry(&key) else { return NEXT };
    let word = field!(entry, count).shared();
    let (ring_number, due_ns) = (field!(entry, ring_number), field!(entry, due_ns));
    let count = Count(word.load());
    if ring_number.get() != number || count.connections() != 0 {
        return NEXT;
    }
    // A reservation or a waiter may come to nothing, and nobody tells.
    if count != Count::default() || looks > 0 && due_ns.get() > clock::now_ns() {
        ring_number.set(room.push(&key));
        return NEXT;
    }
    if count::collect(word) && LEDGER.remove(&key).is_ok() { FOUND } else { NEXT }
}

/// Deletes a penalty that is of no ban; `false` if none is found.
#[inline(always)]
fn forget_penalty() -> bool {
    for _ in 0..LOOKS + LOOKS_AHEAD {
        match look_at_penalty() {
            NEXT => {}
            found => return found == FOUND,
        }
    }
    false
}

/// The same for a penalty. Bans by hand are never looked at again; those that the ladder made go to the end.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look_at_penalty() -> u32 {
    let Some(room) = room(rooms::PENALTIES) else { return NOTHING };
    let Some((_, key)) = room.oldest() else { return NOTHING };
    let Some(penalty) = maps::penalty(&key) else { return NEXT };
    if !is_in_force(penalty, clock::now_ns()) && PENALTIES.remove(&key).is_ok() {
        return FOUND;
    }
    if field!(penalty, cause).get() == Cause::Ladder as u32 {
        room.push(&key);
    }
    NEXT
}

/// A room, found in this run.
struct Slots(MapRef<Room>);

#[inline(always)]
fn room(index: u32) -> Option<Slots> {
    ROOMS.find(index).map(Slots)
}

impl Slots {
    #[inline(always)]
    fn taken<'a>(&self) -> &'a Shared {
        field!(self.0, taken).shared()
    }

    #[inline(always)]
    fn head<'a>(&self) -> &'a Shared {
        field!(self.0, head).shared()
    }

    #[inline(always)]
    fn tail<'a>(&self) -> &'a Shared {
        field!(self.0, tail).shared()
    }

    #[inline(always)]
    fn most(&self) -> u32 {
        field!(self.0, most).get()
    }

    #[inline(always)]
    fn take(&self) -> bool {
        room::take(self.taken(), self.most())
    }

    #[inline(always)]
    fn give_back(&self) {
        room::give_back(self.taken());
    }

    #[inline(always)]
    fn was_full(&self) {
        field!(self.0, full_s).set(clock::now_s().into());
    }

    /// Puts a key in where a slot has just come free; returns the low half of its number.
    #[inline(always)]
    fn push(&self, key: &Key) -> u32 {
        self.write(self.next(), key)
    }

    #[inline(always)]
    fn next(&self) -> u64 {
        room::next(self.tail())
    }

    /// The low half of the number, still in the ring, whose slot this one takes, and the key.
    #[inline(always)]
    fn displaced(&self, number: u64) -> Option<(u32, Key)> {
        let before = room::displaced(number, self.head().load(), self.most())?;
        Some((before as u32, RINGS.find(self.slot(number))?.get()))
    }

    #[inline(always)]
    fn write(&self, number: u64, key: &Key) -> u32 {
        if let Some(slot) = RINGS.find(self.slot(number)) {
            // Who reads it at this moment reads half of one key and half of another, and finds no entry, or one with
            // another number.
            slot.fill(*key);
        }
        number as u32
    }

    /// Takes the oldest number off the ring; its low half, and the key.
    #[inline(always)]
    fn oldest(&self) -> Option<(u32, Key)> {
        let number = room::oldest(self.head(), self.tail(), self.most())?;
        Some((number as u32, RINGS.find(self.slot(number))?.get()))
    }

    #[inline(always)]
    fn has_in_ring(&self, number: u32) -> bool {
        room::is_in_ring(number, self.head().load(), self.tail().load(), self.most())
    }

    #[inline(always)]
    fn slot(&self, number: u64) -> u32 {
        Room::slot(field!(self.0, first).get(), self.most(), number)
    }
}

/// The penalty of `key`, made if there is none; `None` when there is no room for it.
#[inline(always)]
pub fn penalty_or_new(key: &Key) -> Option<MapRef<Penalty>> {
    if let Some(penalty) = maps::penalty(key) {
        return Some(penalty);
    }
    make_penalty(key);
    maps::penalty(key)
}

/// The entry of `key`, made if there is none; `None` when there is no room for it.
#[inline(always)]
pub fn entry_or_new(key: &Key) -> Option<MapRef<Entry>> {
    if let Some(entry) = maps::entry(key) {
        return Some(entry);
    }
    make_entry(key);
    maps::entry(key)
}

/// Whether there is a ban in force at `now_ns`.
#[inline(always)]
pub fn is_in_force(penalty: MapRef<Penalty>, now_ns: u64) -> bool {
    ladder::is_banned(field!(penalty, banned_until_ns).get(), now_ns)
}
