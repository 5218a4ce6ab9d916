// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! From the ledger's numbers, which count since an entry exists, to what happened between two looks. Pure.
//!
//! There may be millions of sources that are only remembered, so of each there are 28 bytes: its numbers, under a hash of
//! its key. Two keys share one by chance in 2⁻⁶⁴, and nobody can look for such: the hash is keyed.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
};

use limiter_common::{Entry, Key};

use super::row::Quarter;

/// How much longer than it is remembered an entry may stay: it is looked for every ten seconds.
const LATE_S: u32 = 30;

/// A key's hash, in halves, which need no room between them.
type Hash = (u32, u32);

/// The numbers of an entry as they were seen last.
#[derive(Clone, Copy)]
struct Known {
    accepted: u32,
    refused: u32,
    held: u32,
    would_refuse: u32,
    last_seen_s: u32,
}

impl From<&Entry> for Known {
    fn from(entry: &Entry) -> Self {
        let Entry { accepted, refused, held, would_refuse, last_seen_s, .. } = *entry;
        Self { accepted, refused, held, would_refuse, last_seen_s }
    }
}

/// What has become of one source since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The most connections at one time.
    pub peak: u32,
    /// Connections that began.
    pub accepted: u32,
    /// SYNs that were refused.
    pub refused: u32,
    /// ACKs that were held back.
    pub held: u32,
    /// Connections that were let through, because the service only observed.
    pub would_refuse: u32,
    /// Handshakes that wait now.
    pub waiting: u32,
}

impl Change {
    /// Puts it into a row.
    pub fn add_to(&self, row: &mut Quarter) {
        let Self { peak, accepted, refused, held, would_refuse, waiting } = *self;
        row.peak = peak;
        row.accepted = accepted.into();
        row.refused = refused.into();
        row.held = held.into();
        row.would_refuse = would_refuse.into();
        row.waiting = waiting;
    }
}

/// Whether there is anything to say of an entry: it has connections, reservations or waiters, something came since the last
/// look, or was refused or held back since the entry exists.
pub const fn is_active(entry: &Entry) -> bool {
    entry.count.0 != 0 || entry.recent_peak != 0 || entry.refused != 0 || entry.held != 0
}

/// Whether the recent peak of an entry that was seen has to begin anew: where it is no more than what is there now, it says
/// nothing that the next look does not know.
pub const fn is_over(entry: &Entry) -> bool {
    entry.recent_peak > entry.count.connections()
}

/// What is known of all sources.
#[derive(Default)]
pub struct Baselines {
    hasher: RandomState,
    known: HashMap<Hash, Known>,
    /// How many connections those had at the last look that had any.
    connections: HashMap<Hash, u32>,
    /// The same of the look that is under way.
    now: HashMap<Hash, u32>,
}

impl Baselines {
    /// Takes an entry as it is: what happened before is nothing new.
    pub fn learn(&mut self, key: &Key, entry: &Entry) {
        let hash = self.hash(key);
        self.known.insert(hash, entry.into());
        if entry.count.connections() > 0 {
            self.connections.insert(hash, entry.count.connections());
        }
    }

    /// What has become of a source, whose entry is forgotten `remember_s` after its last connection.
    pub fn change(&mut self, key: &Key, entry: &Entry, remember_s: u32) -> Change {
        let hash = self.hash(key);
        let before = self.known.insert(hash, entry.into());
        // An entry that was forgotten meanwhile began at 0 again.
        let before = before.filter(|before| {
            let quiet_s = entry.last_seen_s.saturating_sub(before.last_seen_s);
            entry.accepted.wrapping_sub(before.accepted) <= u32::MAX / 2
                && entry.refused.wrapping_sub(before.refused) <= u32::MAX / 2
                && quiet_s <= remember_s.saturating_add(LATE_S)
        });
        let connections = self.connections.get(&hash).copied().unwrap_or(0);
        self.now.insert(hash, entry.count.connections());
        let since = |now: u32, before: Option<u32>| now.wrapping_sub(before.unwrap_or(0));
        Change {
            // What was there at the last look; when one came since; now.
            peak: before.map_or(0, |_| connections).max(entry.recent_peak).max(entry.count.connections()),
            accepted: since(entry.accepted, before.map(|before| before.accepted)),
            refused: since(entry.refused, before.map(|before| before.refused)),
            held: since(entry.held, before.map(|before| before.held)),
            would_refuse: since(entry.would_refuse, before.map(|before| before.would_refuse)),
            waiting: entry.count.waiting(),
        }
    }

    /// The look is over: those that were not seen have no connections now.
    pub fn end_look(&mut self) {
        self.connections = std::mem::take(&mut self.now);
    }

    /// Forgets all that `each` does not show: what the ledger has.
    pub fn keep<E>(&mut self, each: impl FnOnce(&mut dyn FnMut(&Key)) -> Result<(), E>) -> Result<(), E> {
        let mut there = HashSet::with_capacity(self.known.len());
        each(&mut |key| {
            there.insert(hash(&self.hasher, key));
        })?;
        self.known.retain(|hash, _| there.contains(hash));
        self.known.shrink_to(self.known.len() * 2);
        Ok(())
    }

    fn hash(&self, key: &Key) -> Hash {
        hash(&self.hasher, key)
    }
}

fn hash(hasher: &RandomState, key: &Key) -> Hash {
    let hash = hasher.hash_one(key);
    ((hash >> 32) as u32, hash as u32)
}

#[cfg(test)]
mod tests {
    use limiter_common::Count;

    use super::*;

    fn key(service: u8) -> Key {
        Key { service, ..Key::NONE }
    }

    fn seen(accepted: u32, recent_peak: u32, connections: u64) -> Entry {
        Entry { accepted, recent_peak, count: Count(connections), last_seen_s: 100, ..Entry::default() }
    }

    #[test]
    fn what_was_there_at_the_first_look_is_nothing_new_and_a_new_source_is() {
        let mut baselines = Baselines::default();
        baselines.learn(&key(1), &seen(50, 0, 3));
        let change = baselines.change(&key(1), &seen(52, 5, 4), 600);
        assert_eq!(change, Change { peak: 5, accepted: 2, ..Change::default() });
        let change = baselines.change(&key(2), &seen(2, 2, 0), 600);
        assert_eq!(change, Change { peak: 2, accepted: 2, ..Change::default() });
    }

    #[test]
    fn who_held_most_at_the_last_look_and_let_go_since_had_that_peak_once() {
        let mut baselines = Baselines::default();
        let mut change = |entry: Entry| {
            let change = baselines.change(&key(1), &entry, 600);
            baselines.end_look();
            change
        };
        change(seen(9, 9, 9));
        assert_eq!(change(seen(9, 0, 2)).peak, 9);
        assert_eq!(change(seen(9, 0, 2)).peak, 2);
        change(seen(9, 0, 0));
        assert_eq!(change(seen(10, 1, 1)), Change { peak: 1, accepted: 1, ..Change::default() });
    }

    #[test]
    fn who_is_idle_is_not_seen_and_had_no_connections() {
        let mut baselines = Baselines::default();
        baselines.change(&key(1), &seen(9, 9, 9), 600);
        baselines.end_look();
        baselines.end_look();
        assert_eq!(baselines.change(&key(1), &seen(10, 1, 0), 600).peak, 1);
    }

    #[test]
    fn an_idle_entry_says_nothing_and_a_peak_that_is_still_there_need_not_begin_anew() {
        let idle = Entry { tag: 1, peak: 5, due_ns: 6, ring_number: 4, ..seen(7, 0, 0) };
        assert!(!is_active(&idle));
        for entry in [
            Entry { count: Count(1), ..idle },
            Entry { recent_peak: 1, ..idle },
            Entry { refused: 1, ..idle },
            Entry { held: 1, ..idle },
        ] {
            assert!(is_active(&entry));
        }
        assert!(is_over(&seen(9, 3, 2)) && !is_over(&seen(9, 3, 3)) && !is_over(&idle));
    }

    #[test]
    fn a_number_that_wraps_counts_on_and_an_entry_that_was_forgotten_counts_anew() {
        let mut baselines = Baselines::default();
        let mut accepted = |entry: Entry| baselines.change(&key(1), &entry, 600).accepted;
        accepted(seen(u32::MAX, 1, 0));
        assert_eq!(accepted(seen(2, 1, 0)), 3);
        accepted(seen(1000, 1, 0));
        assert_eq!(accepted(seen(4, 1, 0)), 4, "it has had more than that");
        let later = Entry { last_seen_s: 731, ..seen(6, 1, 0) };
        assert_eq!(accepted(later), 6, "nobody remembers a source for so long");
    }

    #[test]
    fn what_the_ledger_has_forgotten_is_forgotten() {
        let mut baselines = Baselines::default();
        baselines.learn(&key(1), &seen(7, 0, 0));
        baselines.learn(&key(2), &seen(7, 0, 0));
        let kept = baselines.keep(|see| {
            see(&key(2));
            Ok::<_, ()>(())
        });
        assert_eq!((kept, baselines.known.len()), (Ok(()), 1));
        assert_eq!(baselines.change(&key(1), &seen(8, 1, 0), 600).accepted, 8);
    }
}
