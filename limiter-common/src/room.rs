// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Room: how many entries a table may have, and which one makes room for another when there are as many.
//!
//! Whoever makes an entry puts its key into a ring, under the next number, and the number in the entry. When the room is
//! full, the oldest number is taken off the ring: an idle entry is deleted for the new one, one with connections leaves
//! the ring, and is put into it anew when the last of them is let go. So every idle entry stands in the ring, and one is
//! found in a few steps, whatever there are: nothing is searched, and no daemon is needed.
//!
//! The ring has as many slots as the room has entries, and each entry is in it once. What a daemon has deleted
//! leaves its key behind, so a number may be written over before it is taken. Then an entry in use leaves the ring, and
//! is put in anew when it becomes idle ([`is_in_ring`]); an idle one is deleted ([`displaced`]).

use bytemuck::{Pod, Zeroable};

use crate::count::Word;

/// One table's room, or a part of one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Room {
    /// Entries there are.
    pub taken: u64,
    /// The oldest number that has not been taken off the ring.
    pub head: u64,
    /// The next number. Numbers begin at 1: 0 is that of an entry that never was in it.
    pub tail: u64,
    /// When there was no room the last time, in seconds of `CLOCK_MONOTONIC`; 0: never.
    pub full_s: u64,
    /// Entries there may be, and slots of the ring.
    pub most: u32,
    /// Where its slots begin in the array of all rings.
    pub first: u32,
    /// Always 0.
    pub zero: [u64; 3],
}

/// How many numbers are taken off the ring for one entry, at most.
pub const LOOKS: u32 = 2;

/// How many are beforehand for a newcomer, whose entry and whose network's may both be missing.
pub const LOOKS_AHEAD: u32 = 6;

/// For how long after a try that found no room a newcomer is judged as if it would find none either, in seconds.
pub const FULL_FOR_S: u64 = 2;

/// The rooms of the tables, by index.
pub mod rooms {
    /// Sources and their networks.
    pub const SOURCES: u32 = 0;
    /// Shared entries of the first level; the others follow.
    pub const SHARED: u32 = 1;
    /// Sources that were refused lately, or are banned.
    pub const PENALTIES: u32 = 4;
    /// How many there are.
    pub const ROOMS: u32 = 5;
}

/// The rooms of an instance whose file says `max_sources` and `max_bans`.
///
/// Entries that are shared have room of their own, so that the entries of sources can never take it: an eighth of
/// `max_sources` for each of the first two levels, and one for each service and family in the last.
#[must_use]
pub fn rooms(max_sources: u32, max_bans: u32) -> [Room; rooms::ROOMS as usize] {
    let last = 2 * crate::MAX_SERVICES;
    let most = [max_sources, max_sources / 8, max_sources / 8, last, 2 * max_bans];
    let mut first = 0;
    most.map(|most| {
        let room = Room { head: 1, tail: 1, most, first, ..Room::default() };
        first += most;
        room
    })
}

impl Room {
    /// Whether there was no room a moment before `now_s`.
    #[must_use]
    pub const fn is_full(&self, now_s: u64) -> bool {
        is_full(self.full_s, now_s)
    }

    /// Whether there is room for the entries of one newcomer.
    #[inline(always)]
    #[must_use]
    pub const fn has_room(taken: u64, most: u32) -> bool {
        taken + 2 <= most as u64
    }

    /// The slot of a number.
    #[inline(always)]
    #[must_use]
    pub const fn slot(first: u32, most: u32, number: u64) -> u32 {
        match (number as u32).checked_rem(most) {
            Some(slot) => first.wrapping_add(slot),
            None => first,
        }
    }
}

/// Whether there was no room a moment before `now_s`, if the last time was at `full_s` ([`Room::full_s`]).
#[inline(always)]
#[must_use]
pub const fn is_full(full_s: u64, now_s: u64) -> bool {
    full_s != 0 && now_s < full_s.saturating_add(FULL_FOR_S)
}

/// Takes room for one more entry, if there is some.
#[inline(always)]
pub fn take<W: Word>(taken: &W, most: u32) -> bool {
    if taken.fetch_add(1) < u64::from(most) {
        return true;
    }
    give_back(taken);
    false
}

/// Gives it back.
#[inline(always)]
pub fn give_back<W: Word>(taken: &W) {
    taken.fetch_add(1_u64.wrapping_neg());
}

/// The number under which the caller is to put a key in.
#[inline(always)]
pub fn next<W: Word>(tail: &W) -> u64 {
    tail.fetch_add(1)
}

/// The number, still in the ring, whose slot a new `number` takes.
#[inline(always)]
#[must_use]
pub const fn displaced(number: u64, head: u64, most: u32) -> Option<u64> {
    let before = number.saturating_sub(most as u64);
    if before != 0 && before >= head { Some(before) } else { None }
}

/// Takes the oldest number off the ring; `None` if there is none. Without a loop: when another CPU has just moved on past
/// numbers that were written over, it is one of those, whose slot has another key.
#[inline(always)]
pub fn oldest<W: Word>(head: &W, tail: &W, most: u32) -> Option<u64> {
    let number = head.fetch_add(1);
    let to = tail.load();
    if number >= to {
        head.fetch_add(1_u64.wrapping_neg());
        return None;
    }
    let first = first_in(number, to, most);
    if first != number && head.compare_exchange(number + 1, first + 1) == number + 1 {
        return Some(first);
    }
    Some(number)
}

/// Whether the entry that bears the low half of `number` is in a ring that has `head` and `tail`.
#[inline(always)]
#[must_use]
pub const fn is_in_ring(number: u32, head: u64, tail: u64, most: u32) -> bool {
    let back = (tail as u32).wrapping_sub(number) as u64;
    number != 0 && back >= 1 && back <= tail.wrapping_sub(first_in(head, tail, most))
}

/// The oldest number that has been neither taken nor written over.
#[inline(always)]
const fn first_in(head: u64, tail: u64, most: u32) -> u64 {
    let kept = tail.saturating_sub(most as u64);
    if head > kept { head } else { kept }
}

const _: () = assert!(size_of::<Room>() == 64);

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for Room {}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;
    use std::{collections::HashMap, vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    /// A table with such a room, as the kernel keeps it.
    struct Table {
        room: Room,
        ring: Vec<u32>,
        /// Whether each is in use, and its number.
        entries: HashMap<u32, (bool, u32)>,
    }

    impl Table {
        fn new(most: u32) -> Self {
            let room = Room { head: 1, tail: 1, most, ..Room::default() };
            Self { room, ring: vec![0; most as usize], entries: HashMap::new() }
        }

        fn push(&mut self, key: u32) -> u32 {
            let tail = AtomicU64::new(self.room.tail);
            let number = next(&tail);
            self.room.tail = tail.into_inner();
            let slot = Room::slot(0, self.room.most, number) as usize;
            if let Some(before) = displaced(number, self.room.head, self.room.most)
                && self.entries.get(&self.ring[slot]) == Some(&(false, before as u32))
            {
                self.entries.remove(&self.ring[slot]);
                self.room.taken -= 1;
            }
            self.ring[slot] = key;
            number as u32
        }

        fn collect(&mut self) -> bool {
            loop {
                let head = AtomicU64::new(self.room.head);
                let number = oldest(&head, &AtomicU64::new(self.room.tail), self.room.most);
                self.room.head = head.into_inner();
                let Some(number) = number else { return false };
                let key = self.ring[Room::slot(0, self.room.most, number) as usize];
                match self.entries.get(&key) {
                    Some((false, ring_number)) if *ring_number == number as u32 => {
                        self.entries.remove(&key);
                        return true;
                    }
                    _ => {}
                }
            }
        }

        fn make(&mut self, key: u32) -> bool {
            let taken = AtomicU64::new(self.room.taken);
            let has_room = take(&taken, self.room.most);
            self.room.taken = taken.into_inner();
            if !has_room && !self.collect() {
                return false;
            }
            let number = self.push(key);
            self.entries.insert(key, (true, number));
            true
        }

        fn idle(&mut self, key: u32) {
            let (_, number) = self.entries[&key];
            self.entries.insert(key, (false, number));
            let Room { head, tail, most, .. } = self.room;
            let number = if is_in_ring(number, head, tail, most) { number } else { self.push(key) };
            self.entries.insert(key, (false, number));
        }
    }

    proptest! {
        /// Whatever has come, gone, and been deleted by a daemon: only where all entries are in use is there no room.
        #[test]
        fn as_long_as_one_entry_is_idle_there_is_room_for_another(
            most in 1u32..12, steps in prop::collection::vec((0u8..8, 0u32..24), 1..400),
        ) {
            let mut table = Table::new(most);
            for (step, key) in steps {
                let known = table.entries.get(&key).copied();
                match (step, known) {
                    (0..=2, None) => {
                        let all_in_use = table.entries.values().filter(|(used, _)| *used).count() == most as usize;
                        prop_assert_eq!(table.make(key), !all_in_use);
                    }
                    (0..=2, Some((false, number))) => drop(table.entries.insert(key, (true, number))),
                    (3..=6, Some((true, _))) => table.idle(key),
                    (7, Some((false, _))) => {
                        table.entries.remove(&key);
                        table.room.taken -= 1;
                    }
                    _ => {}
                }
                prop_assert!(table.entries.len() <= most as usize);
                prop_assert_eq!(table.room.taken, table.entries.len() as u64);
            }
        }

        #[test]
        fn rings_do_not_overlap(max_sources in 1024u32..=16_777_216, max_bans in 1024u32..=4_194_304) {
            let rooms = rooms(max_sources, max_bans);
            for pair in rooms.windows(2) {
                prop_assert!(pair[0].most > 0 && pair[0].first + pair[0].most == pair[1].first);
            }
        }
    }

    #[test]
    fn who_found_no_room_is_remembered_for_a_moment() {
        let room = Room { full_s: 10, ..Room::default() };
        assert!(room.is_full(10) && room.is_full(11) && !room.is_full(12) && !Room::default().is_full(0));
    }
}
