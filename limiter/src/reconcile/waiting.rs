// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Those that wait, as the counts know them, against the records of them.

use std::{collections::HashMap, fmt};

use limiter_common::{
    Count, Key, Waiter,
    waiting::{self, Flow},
};

use super::books::Books;
use crate::ledger;

/// A count that does not know how many wait for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismarked {
    /// Whose count.
    pub key: Key,
    /// The count as it was seen.
    pub seen: Count,
    /// How many wait for it, by the records.
    pub records: u32,
}

impl Mismarked {
    /// The count as it should be.
    pub const fn right(&self) -> Count {
        self.seen.with_waiting(self.records)
    }
}

/// The counts that one that waits may be marked in.
pub fn keys((flow, waiter): &(Flow, Waiter)) -> impl Iterator<Item = Key> + use<> {
    let count_keys = waiter.record.count_keys(&flow.remote);
    [count_keys.source, count_keys.network].into_iter()
}

/// Of the counts that are the same `before` and `after` the `records` were read, those that they contradict.
pub fn compare(before: &Books, records: &[(Flow, Waiter)], after: &Books) -> Vec<Mismarked> {
    let mut waiting: HashMap<Key, u32> = HashMap::new();
    for (flow, waiter) in records.iter().filter(|(_, waiter)| waiting::is_marked(waiter.word)) {
        for key in waiter.marks().keys(&waiter.record.count_keys(&flow.remote)) {
            *waiting.entry(key).or_default() += 1;
        }
    }
    let stood_still =
        before.iter().filter(|&(key, book)| after.get(key) == Some(book) && book.0 != Count::COLLECTED);
    let mut mismarked: Vec<Mismarked> = stood_still
        .map(|(key, (seen, _))| Mismarked {
            key: *key,
            seen: *seen,
            records: waiting.get(key).copied().unwrap_or_default(),
        })
        .filter(|found| found.seen.waiting() != found.records)
        .collect();
    mismarked.sort_by_key(|found| (found.key.service, found.key.tier, found.key.addr));
    mismarked
}

impl fmt::Display for Mismarked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, seen, records } = self;
        write!(
            out,
            "{}: the ledger counts {} waiting handshakes, the records show {records}",
            ledger::counted(key),
            seen.waiting()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use limiter_common::{
        Addr, ConnectionRecord, CountKeys, Reason, ServiceId, ServicePolicy, record, reservation::WaitMarks,
    };

    use super::*;

    #[test]
    fn a_count_that_knows_of_others_than_the_records_is_found_and_made_right() {
        let mut policy = ServicePolicy { network_max_connections: 9, ..ServicePolicy::default() };
        (policy.source.ipv4, policy.network.ipv4) = (32, 24);
        let remote = Addr::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
        let count_keys = CountKeys::new(ServiceId(1), &policy, limiter_common::Scope::SERVICES, &remote);
        let record = |port, state, reason: Reason| {
            let waiter = Waiter {
                word: waiting::word(1, state),
                marks: WaitMarks::of(reason).0,
                record: ConnectionRecord::new(record::COUNTED, &count_keys),
                ..Waiter::default()
            };
            (Flow { remote, remote_port: port, ..Flow::default() }, waiter)
        };
        let records = [
            record(1, waiting::State::Waiting, Reason::Network),
            record(2, waiting::State::Granted, Reason::Concurrency),
            record(3, waiting::State::Told, Reason::Total),
        ];
        let total = Key::total(ServiceId(1));
        let book = |of_source: u32, of_network, in_total| -> Books {
            let word = |waiting| (Count(4).with_waiting(waiting), 4);
            Books::from([
                (count_keys.source, word(of_source)),
                (count_keys.network, word(of_network)),
                (total, word(in_total)),
            ])
        };
        let right = book(2, 1, 0);
        assert_eq!(compare(&right, &records, &right), []);
        let wrong = book(3, 1, 1);
        let found = compare(&wrong, &records, &wrong);
        assert_eq!(
            found.iter().map(|found| (found.key, found.right())).collect::<Vec<_>>(),
            [(count_keys.source, Count(4).with_waiting(2)), (total, Count(4)),]
        );
        // What changed meanwhile is not judged.
        assert_eq!(compare(&wrong, &records, &book(4, 2, 2)), []);
    }
}
