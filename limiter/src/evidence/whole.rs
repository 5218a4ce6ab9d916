// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A service as a whole: who else is there, and how close to their limits they are. Pure.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::Duration,
};

use limiter_common::{Key, Penalty};

use super::case::Whole;
use crate::config;

/// This long after it, a refusal counts as one of late.
const LATELY: Duration = Duration::from_secs(600);
/// How many of those who hold most are named.
const LARGEST: usize = 5;

/// What was counted of a service.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections of each source.
    sources: HashMap<Key, u32>,
}

impl Tally {
    /// One connection of this source.
    pub fn count(&mut self, source: Key) {
        *self.sources.entry(source).or_default() += 1;
    }

    /// The same as people look at it; `limit` is that of a source. What is said of the whole service comes from `of`.
    pub fn whole(&self, limit: impl Fn(&Key) -> Option<u32>, refused_lately: u32, of: &Whole) -> Whole {
        let mut largest: Vec<(Key, u32)> = self.sources.iter().map(|(key, count)| (*key, *count)).collect();
        let is_at_limit = |(key, count): &&(Key, u32)| limit(key).is_some_and(|limit| *count >= limit);
        let sources_at_limit = largest.iter().filter(is_at_limit).count();
        // Those that are equal in an order that is the same each time.
        let order = |(key, count): &(Key, u32)| (Reverse(*count), key.addr.to_ip(), key.prefix);
        if largest.len() > LARGEST {
            largest.select_nth_unstable_by_key(LARGEST - 1, order);
            largest.truncate(LARGEST);
        }
        largest.sort_unstable_by_key(order);
        Whole {
            sources: number(self.sources.len()),
            sources_at_limit: number(sources_at_limit),
            refused_lately,
            largest: largest
                .into_iter()
                .map(|(key, count)| (config::ip_net(&key.addresses()), count))
                .collect(),
            ..of.clone()
        }
    }
}

/// How many sources beside `source` were refused within ten minutes before `now_ns` of `CLOCK_BOOTTIME`, at its service.
pub fn refused_lately(penalties: &[(Key, Penalty)], source: &Key, now_ns: u64) -> u32 {
    let is_late = |penalty: &Penalty| {
        penalty.refused_ns != 0 && now_ns.saturating_sub(penalty.refused_ns) < LATELY.as_nanos() as u64
    };
    let others = penalties.iter().filter(|(key, _)| key.service == source.service && key != source);
    let refused: HashSet<Key> = others.filter(|(_, penalty)| is_late(penalty)).map(|(key, _)| *key).collect();
    number(refused.len())
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use limiter_common::{ServiceId, ServicePolicy};

    use super::*;

    fn key(last: u8) -> Key {
        let address = IpAddr::from([192, 0, 2, last]).into();
        Key::source(ServiceId(1), &ServicePolicy::default(), 128, &address)
    }

    #[test]
    fn the_largest_come_first_and_those_at_their_limit_are_counted() {
        let mut tally = Tally::default();
        for last in 1..=9_u8 {
            (0..last.min(7)).for_each(|_| tally.count(key(last)));
        }
        let limit = |key: &Key| if *key == self::key(9) { None } else { Some(6) };
        let of = Whole { connections: 42, max_total: Some(50), ..Whole::default() };
        let whole = tally.whole(limit, 3, &of);
        assert_eq!((whole.connections, whole.max_total), (42, Some(50)));
        assert_eq!((whole.sources, whole.sources_at_limit, whole.refused_lately), (9, 3, 3));
        let shown: Vec<String> =
            whole.largest.iter().map(|(network, count)| format!("{network} {count}")).collect();
        let expected =
            ["192.0.2.7/32 7", "192.0.2.8/32 7", "192.0.2.9/32 7", "192.0.2.6/32 6", "192.0.2.5/32 5"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn others_that_were_refused_within_ten_minutes_are_counted() {
        const MINUTE: u64 = 60_000_000_000;
        let now_ns = 100 * MINUTE;
        let refused = |key, refused_ns| (key, Penalty { refused_ns, ..Penalty::default() });
        let elsewhere = Key { service: 2, ..key(5) };
        let penalties = [
            refused(key(1), now_ns),
            refused(key(2), now_ns - MINUTE),
            refused(key(3), now_ns - 11 * MINUTE),
            refused(key(4), 0),
            refused(elsewhere, now_ns),
        ];
        assert_eq!(refused_lately(&penalties, &key(1), now_ns), 1);
        assert_eq!(refused_lately(&penalties, &key(9), now_ns), 2);
    }
}
