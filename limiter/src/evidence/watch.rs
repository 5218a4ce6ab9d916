// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a source does while somebody watches: its connections and its counters, looked at once a second.
//!
//! A connection that begins and ends between two looks is in neither; the counter of the ledger knows that it was there.

use std::{
    collections::{BTreeMap, HashMap},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use ipnet::IpNet;
use limiter_common::{Key, ServiceId};

use super::{case::Watched, each_connection};
use crate::{
    config,
    kernel::Tables,
    ledger::{self, Refusals},
    policy::Selection,
    standing::Standing,
};

/// Between two looks.
const STEP: Duration = Duration::from_secs(1);

/// What one look finds of a source at a service.
#[derive(Clone, Debug, Default)]
struct Look {
    /// Its connections by their cookies.
    connections: HashMap<u64, Seen>,
    /// Connections that were ever counted, while its entry is there.
    accepted: u64,
    /// Refusals, likewise.
    refused: u64,
}

/// What is seen of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    age: Option<Duration>,
    bytes: u64,
}

/// What was seen of a source at a service since the watch began.
#[derive(Debug)]
struct Watch {
    first: Look,
    last: Look,
    watched: Watched,
    /// Connections that were counted meanwhile.
    accepted: u64,
}

impl Watch {
    fn new(first: Look) -> Self {
        Self { last: first.clone(), first, watched: Watched::default(), accepted: 0 }
    }

    /// The next look, so long after the first.
    fn look(&mut self, time: Duration, look: Look) {
        let step = time.saturating_sub(self.watched.time);
        let (before, now) = (&self.last.connections, &look.connections);
        let mut begun: Vec<Duration> = Vec::new();
        for (_, new) in now.iter().filter(|(cookie, _)| !before.contains_key(cookie)) {
            // Ages are in whole seconds: it did not begin before the last look.
            begun.push(time.saturating_sub(new.age.unwrap_or_default().min(step)));
        }
        let mut ended: Vec<(Duration, Option<Duration>)> = Vec::new();
        for (_, gone) in before.iter().filter(|(cookie, _)| !now.contains_key(cookie)) {
            ended.push((time, gone.age.map(|age| age + step)));
        }
        // Its entry may have been forgotten, and made anew.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        self.accepted += since(look.accepted, self.last.accepted);
        // One that is there may be counted in the next look only: all that have begun are compared with all that were
        // counted.
        let known = self.watched.begun.len() + begun.len();
        for _ in (known as u64)..self.accepted {
            begun.push(time);
            ended.push((time, Some(step)));
        }
        begun.sort_unstable();
        self.watched.begun.extend(begun);
        self.watched.ended.extend(ended);
        self.watched.refused += since(look.refused, self.last.refused);
        self.watched.time = time;
        self.last = look;
    }

    fn end(self) -> Watched {
        let Self { first, last, watched, .. } = self;
        let number = |look: &Look| u32::try_from(look.connections.len()).unwrap_or(u32::MAX);
        let moved = first.connections.iter().filter_map(|(cookie, before)| {
            Some(last.connections.get(cookie)?.bytes.saturating_sub(before.bytes))
        });
        Watched { connections: (number(&first), number(&last)), bytes: moved.sum(), ..watched }
    }
}

/// Watches the source of the address of `standing` at each of these services for `time`, and says what it did, by the
/// names of the services.
///
/// # Errors
/// As of [`super::gather()`].
pub fn watch(
    tables: &Tables,
    standing: &Standing,
    services: &Selection,
    time: Duration,
) -> Result<BTreeMap<String, Watched>> {
    let asked = standing.services.iter().filter(|at| services.includes(at.facts.count_keys.service()));
    let sources: HashMap<ServiceId, Key> =
        asked.clone().map(|at| (at.facts.count_keys.service(), at.facts.count_keys.source)).collect();
    let networks: Vec<IpNet> = sources.values().map(|key| config::ip_net(&key.addresses())).collect();
    let remote = networks.into_iter().min_by_key(IpNet::prefix_len);
    let begun = Instant::now();
    let mut first = look(tables, &sources, remote)?;
    for (id, look) in &mut first {
        // What has begun during the look was counted before the watch.
        let key = sources.get(id).copied().unwrap_or_default();
        look.accepted = tables.source(&key)?.unwrap_or_default().accepted.into();
    }
    let mut watches: HashMap<ServiceId, Watch> =
        first.into_iter().map(|(id, first)| (id, Watch::new(first))).collect();
    loop {
        let left = time.saturating_sub(begun.elapsed());
        thread::sleep(left.min(STEP));
        for (id, look) in look(tables, &sources, remote)? {
            if let Some(watch) = watches.get_mut(&id) {
                watch.look(begun.elapsed(), look);
            }
        }
        if begun.elapsed() >= time {
            break;
        }
    }
    let name = |id: ServiceId| asked.clone().find(|at| at.facts.count_keys.service() == id);
    let named =
        watches.into_iter().filter_map(|(id, watch)| Some((name(id)?.name().to_owned(), watch.end())));
    Ok(named.collect())
}

fn look(
    tables: &Tables,
    sources: &HashMap<ServiceId, Key>,
    remote: Option<IpNet>,
) -> Result<HashMap<ServiceId, Look>> {
    let mut looks: HashMap<ServiceId, Look> = HashMap::new();
    let now_ns = ledger::now_ns()?;
    for (id, key) in sources {
        let entry = tables.source(key)?.unwrap_or_default();
        let refusals = Refusals::of(&tables.penalty(key)?.unwrap_or_default(), now_ns);
        let look =
            Look { accepted: entry.accepted.into(), refused: refusals.at_least(&entry), ..Look::default() };
        looks.insert(*id, look);
    }
    let is_asked_for = |id: ServiceId| sources.contains_key(&id);
    each_connection(tables, remote, is_asked_for, |connection| {
        if sources.get(&connection.service) != Some(&connection.source) {
            return;
        }
        let bytes = connection.tcp().map_or(0, |tcp| tcp.sent.saturating_add(tcp.received));
        let seen = Seen { age: connection.age, bytes };
        if let Some(look) = looks.get_mut(&connection.service) {
            look.connections.insert(connection.cookie, seen);
        }
    })?;
    Ok(looks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Connections as (cookie, age, bytes).
    fn look(connections: &[(u64, u64, u64)], accepted: u64, refused: u64) -> Look {
        let seen =
            |&(cookie, age, bytes): &(u64, u64, u64)| (cookie, Seen { age: Some(seconds(age)), bytes });
        Look { connections: connections.iter().map(seen).collect(), accepted, refused }
    }

    #[test]
    fn what_begins_and_ends_is_noted_with_its_time() {
        let mut watch = Watch::new(look(&[(1, 100, 10), (2, 50, 20)], 2, 7));
        watch.look(seconds(1), look(&[(1, 101, 15), (2, 51, 20), (3, 0, 5)], 3, 7));
        watch.look(seconds(2), look(&[(1, 102, 30), (3, 1, 9)], 3, 9));
        let watched = watch.end();
        assert_eq!(watched.time, seconds(2));
        assert_eq!(watched.begun, [seconds(1)]);
        assert_eq!(watched.ended, [(seconds(2), Some(seconds(52)))]);
        assert_eq!((watched.refused, watched.connections, watched.bytes), (2, (2, 2), 20));
    }

    #[test]
    fn what_comes_and_goes_between_two_looks_is_known_by_the_counter() {
        let mut watch = Watch::new(look(&[], 10, 0));
        watch.look(seconds(1), look(&[(1, 0, 0)], 14, 0));
        let watched = watch.end();
        assert_eq!(watched.begun, [seconds(1); 4]);
        assert_eq!(watched.ended, [(seconds(1), Some(seconds(1))); 3]);
        assert_eq!(watched.connections, (0, 1));
    }

    #[test]
    fn one_that_is_counted_a_look_later_is_counted_once() {
        let mut watch = Watch::new(look(&[], 10, 0));
        watch.look(seconds(1), look(&[(1, 0, 0)], 10, 0));
        watch.look(seconds(2), look(&[(1, 1, 0)], 11, 0));
        let watched = watch.end();
        assert_eq!((watched.begun, watched.ended), (vec![seconds(1)], Vec::new()));
    }

    #[test]
    fn a_source_that_was_forgotten_meanwhile_begins_anew() {
        let mut watch = Watch::new(look(&[], 1000, 50));
        watch.look(seconds(1), look(&[], 2, 1));
        let watched = watch.end();
        assert_eq!((watched.begun.len(), watched.refused), (2, 1));
    }

    #[test]
    fn one_of_which_the_age_is_not_known_is_not_given_one() {
        let old = Look { connections: [(1, Seen::default())].into(), ..Look::default() };
        let mut watch = Watch::new(old);
        watch.look(seconds(1), Look::default());
        assert_eq!(watch.end().ended, [(seconds(1), None)]);
    }
}
