// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How long places stay free while somebody waits for one.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::crowd::Record;
use crate::server::Visit;

/// Whose handshake was complete so much earlier surely was not let in at once.
const SURELY: Duration = Duration::from_millis(5);

/// What those of one source who waited had to wait for.
#[derive(Debug, Default)]
pub struct Freed {
    /// For each who waited and got in: for how long there had been a place for it.
    pub used_after: Vec<Duration>,
    /// For each who waited and did not get in: the longest that there was a place for it.
    pub unused_for: Vec<Duration>,
}

/// Somebody who waited, by the host's clock.
struct Wait {
    since: Instant,
    until: Instant,
    served: bool,
}

impl Freed {
    /// Compares what the server of one source with `limit` places noted with what its clients, half a round trip
    /// of `rtt` away, saw. A segment may have come `late`.
    ///
    /// Who comes takes the place that has been free for longest. As long as one is free that is nobody's, nobody
    /// waits: so what is free while somebody waits is on its way to the first in line.
    pub fn of(
        source: IpAddr,
        limit: usize,
        visits: &[Visit],
        records: &[Record],
        rtt: Duration,
        late: Duration,
    ) -> Self {
        let visits: Vec<&Visit> = visits.iter().filter(|visit| visit.remote.ip() == source).collect();
        let Some(began) = visits.first().map(|visit| visit.arrived) else { return Self::default() };
        let waits: Vec<Wait> = records
            .iter()
            .filter(|record| record.local.ip() == source)
            .filter_map(|record| wait(record, &visits, rtt, late))
            .collect();
        let mut leaves: Vec<Instant> = visits.iter().filter_map(|visit| visit.left).collect();
        leaves.sort_unstable();
        let mut leaves = leaves.into_iter().peekable();
        let mut free: VecDeque<Instant> = std::iter::repeat_n(began, limit).collect();
        let mut freed = Self::default();
        let mut idle = Vec::new();
        for arrived in visits.iter().map(|visit| visit.arrived) {
            while let Some(left) = leaves.next_if(|left| *left < arrived) {
                free.push_back(left);
            }
            let Some(since) = free.pop_front() else { continue };
            idle.push((since, Some(arrived)));
            let of_this =
                waits.iter().find(|wait| wait.served && wait.until == arrived && wait.since < arrived);
            freed.used_after.extend(of_this.map(|wait| arrived - since.max(wait.since)));
        }
        idle.extend(free.into_iter().chain(leaves).map(|since| (since, None)));
        for wait in waits.iter().filter(|wait| !wait.served) {
            let in_vain = |(since, until): &(Instant, Option<Instant>)| {
                let until = until.map_or(wait.until, |until| until.min(wait.until));
                until.saturating_duration_since(wait.since.max(*since))
            };
            freed.unused_for.extend(idle.iter().map(in_vain).max().filter(|unused| !unused.is_zero()));
        }
        freed
    }
}

/// When a client waited at the host, if its handshake was ever complete.
fn wait(record: &Record, visits: &[&Visit], rtt: Duration, late: Duration) -> Option<Wait> {
    let since = record.connected? + rtt / 2 + late + SURELY;
    let came = visits.iter().find(|visit| {
        visit.remote == record.local && visit.arrived >= record.called && visit.arrived <= record.left
    });
    if let Some(visit) = came {
        return Some(Wait { since, until: visit.arrived, served: true });
    }
    // What it heard the host had said half a round trip before.
    let until = record.heard.unwrap_or(record.left).checked_sub(rtt / 2)?;
    Some(Wait { since, until, served: false })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use limiter_lab::Answer;

    /// A world of one place, in milliseconds from its beginning.
    struct World {
        began: Instant,
        visits: Vec<Visit>,
        records: Vec<Record>,
    }

    impl World {
        fn at(&self, ms: u64) -> Instant {
            self.began + Duration::from_millis(ms)
        }

        /// Somebody whose handshake is complete at `connected`, and who is served or hears something else.
        fn client(&mut self, connected: u64, served: Option<(u64, u64)>, heard: u64) {
            let remote = SocketAddr::from(([198, 51, 100, 7], 50_000 + self.records.len() as u16));
            let mut record = Record::new(self.records.len(), remote);
            record.called = self.at(connected);
            record.connected = Some(self.at(connected));
            record.heard = Some(self.at(heard));
            record.left = self.at(heard + 1);
            record.answer = Answer::Reset;
            self.records.push(record);
            if let Some((arrived, left)) = served {
                let (arrived, left) = (self.at(arrived), Some(self.at(left)));
                self.visits.push(Visit { remote, arrived, left, cookie: 0 });
            }
        }

        fn freed(&self) -> (Vec<u128>, Vec<u128>) {
            let source = [198, 51, 100, 7].into();
            let freed = Freed::of(source, 1, &self.visits, &self.records, Duration::ZERO, Duration::ZERO);
            let ms = |durations: Vec<Duration>| durations.iter().map(Duration::as_millis).collect();
            (ms(freed.used_after), ms(freed.unused_for))
        }
    }

    #[test]
    fn a_place_is_free_from_when_one_left_to_when_who_waited_came_and_who_comes_late_did_not_wait() {
        let mut world = World { began: Instant::now(), visits: Vec::new(), records: Vec::new() };
        world.client(0, Some((0, 1000)), 0);
        world.client(10, Some((1020, 2000)), 1020);
        world.client(2500, Some((2501, 3000)), 2501);
        assert_eq!(world.freed(), (vec![20], vec![]));
    }

    #[test]
    fn who_waited_beside_a_free_place_and_was_told_waited_in_vain() {
        let mut world = World { began: Instant::now(), visits: Vec::new(), records: Vec::new() };
        world.client(0, Some((0, 1000)), 0);
        world.client(10, None, 5010);
        assert_eq!(world.freed(), (vec![], vec![4010]));
        world.client(20, Some((1030, 6000)), 1030);
        assert_eq!(world.freed(), (vec![30], vec![30]));
    }
}
