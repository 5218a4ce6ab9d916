// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How long connections were there, from looks at those that are. Pure: what is there comes in.
//!
//! What was there at the last look and is not any more ended since: how long it had been there is known to within the time
//! between two looks. What came and went in between was never seen: the ledger's count of those that began tells how many
//! there were, and they were shorter than that time.

use std::{collections::HashMap, time::Duration};

use limiter_common::Key;

use super::row::Durations;

/// The connections of the last look.
#[derive(Debug, Default)]
pub struct Connections {
    /// When that was; 0: there was none.
    looked_s: u32,
    /// By cookie: whose they are, and since when they are there, 0 where nobody knows.
    there: HashMap<u64, (Key, u32)>,
    /// How many more began than were seen new: of sources where the two looks at them fell on either side of a connection,
    /// it is seen in the next one.
    ahead: HashMap<Key, u64>,
}

/// The connections that ended, by source.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended(HashMap<Key, Durations>);

impl Ended {
    /// Of each source of which some did.
    pub fn by_key(&self) -> impl Iterator<Item = (&Key, &Durations)> {
        self.0.iter()
    }
}

impl Connections {
    /// Takes what is `there` at `now_s`, the clock of the records: cookies, whose they are, and since when, if that is
    /// recorded; and how many connections `began` since the last look.
    pub fn look(
        &mut self,
        now_s: u32,
        there: impl Iterator<Item = (u64, Key, Option<u32>)>,
        began: &HashMap<Key, u64>,
    ) -> Ended {
        let mut now = HashMap::with_capacity(self.there.len());
        let mut new: HashMap<Key, u64> = HashMap::new();
        for (cookie, key, since_s) in there {
            let known = self.there.remove(&cookie);
            // Whose record is gone by now had one.
            let since_s = since_s.or_else(|| known.map(|(_, since_s)| since_s)).unwrap_or(now_s);
            let was_there = now.insert(cookie, (key, since_s)).is_some();
            if known.is_none() && !was_there {
                *new.entry(key).or_default() += 1;
            }
        }
        if self.looked_s == 0 {
            // How many of them began before is not known.
            (self.looked_s, self.there) = (now_s, now);
            return Ended::default();
        }
        let mut ended = Ended::default();
        // In the middle between the two looks.
        let at_s = self.looked_s.midpoint(now_s);
        for (_, (key, since_s)) in self.there.drain().filter(|(_, (_, since_s))| *since_s != 0) {
            let lasted_s = at_s.saturating_sub(since_s);
            ended.0.entry(key).or_default().count(Duration::from_secs(lasted_s.into()));
        }
        for (key, began) in began {
            // Those that were seen before they were counted.
            let ahead = self.ahead.remove(key).unwrap_or(0);
            let seen = new.remove(key).unwrap_or(0) + ahead;
            if *began > seen {
                ended.0.entry(*key).or_default().under_1_min += began - seen;
            } else if seen > *began {
                new.insert(*key, seen - began);
            }
        }
        // Of others nothing began: what is new of them was counted after it was asked how many began.
        self.ahead = new;
        (self.looked_s, self.there) = (now_s, now);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { service: 1, ..Key::NONE };

    fn began(n: u64) -> HashMap<Key, u64> {
        HashMap::from([(KEY, n)])
    }

    fn durations(ended: &Ended) -> Durations {
        ended.0.get(&KEY).copied().unwrap_or_default()
    }

    #[test]
    fn what_is_gone_ended_between_the_two_looks() {
        let mut connections = Connections::default();
        let there = [(1, KEY, Some(1000)), (2, KEY, Some(700)), (3, KEY, Some(0)), (4, KEY, Some(1010))];
        assert_eq!(connections.look(1020, there.into_iter(), &began(4)), Ended::default());
        let ended = connections.look(1080, [(4, KEY, Some(1010))].into_iter(), &HashMap::new());
        assert_eq!(durations(&ended), Durations { under_1_min: 1, under_10_min: 1, ..Durations::default() });
        let ended = connections.look(30_000, [].into_iter(), &HashMap::new());
        assert_eq!(durations(&ended), Durations { under_8_h: 1, ..Durations::default() });
    }

    #[test]
    fn what_came_and_went_between_two_looks_was_short() {
        let mut connections = Connections::default();
        connections.look(60, [].into_iter(), &HashMap::new());
        let ended = connections.look(120, [(1, KEY, Some(100))].into_iter(), &began(7));
        assert_eq!(durations(&ended), Durations { under_1_min: 6, ..Durations::default() });
    }

    #[test]
    fn what_is_seen_before_it_is_counted_is_not_taken_for_one_that_was_short() {
        let mut connections = Connections::default();
        connections.look(60, [].into_iter(), &HashMap::new());
        let there = || [(1, KEY, Some(119))].into_iter();
        assert_eq!(connections.look(120, there(), &HashMap::new()), Ended::default());
        assert_eq!(connections.look(180, there(), &began(1)), Ended::default());
        let ended = connections.look(240, there(), &began(1));
        assert_eq!(durations(&ended).under_1_min, 1);
    }

    #[test]
    fn a_connection_that_dies_and_is_kept_goes_on() {
        let mut connections = Connections::default();
        connections.look(60, [(1, KEY, Some(50))].into_iter(), &HashMap::new());
        // In the table, and kept, at the same moment; then kept alone; then neither has a record.
        let twice = [(1, KEY, Some(50)), (1, KEY, Some(50))];
        assert_eq!(connections.look(120, twice.into_iter(), &HashMap::new()), Ended::default());
        assert_eq!(connections.look(180, [(1, KEY, None)].into_iter(), &HashMap::new()), Ended::default());
        let ended = connections.look(800, [].into_iter(), &HashMap::new());
        assert_eq!(durations(&ended), Durations { under_10_min: 1, ..Durations::default() });
    }
}
