//! How long places stay free while somebody waits for one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::crowd::Record;
use crate::server::Visit;

/// Who has completed the handshake so much earlier than the place became free surely waits for it.
const SURELY: Duration = Duration::from_millis(5);

/// What `source` had to wait for places.
#[derive(Debug, Default)]
pub struct Freed {
    /// From the end of one connection to the beginning of the next, for each that ended while somebody waited.
    pub used_after: Vec<Duration>,
    /// Places that became free while somebody waited, and were not used at all.
    pub unused: usize,
}

impl Freed {
    /// Compares what the server of one source noted with what its clients, half a round trip of `rtt` away,
    /// saw.
    pub fn of(source: IpAddr, visits: &[Visit], records: &[Record], rtt: Duration) -> Self {
        let visits: Vec<&Visit> = visits.iter().filter(|visit| visit.remote.ip() == source).collect();
        let waits: Vec<(Instant, Instant)> = records
            .iter()
            .filter(|record| record.local.ip() == source)
            .filter_map(|record| {
                let came = visits.iter().find(|visit| {
                    visit.remote == record.local
                        && visit.arrived >= record.called
                        && visit.arrived <= record.left
                });
                // What it heard the host had said half a round trip before. Both are said half a round trip later.
                let heard = record.heard.unwrap_or(record.left);
                let until = came.map_or(heard, |visit| visit.arrived + rtt / 2);
                Some((record.connected? + rtt + SURELY, until))
            })
            .collect();
        let mut ends: Vec<Instant> = visits.iter().filter_map(|visit| visit.left).collect();
        ends.sort_unstable();
        let mut arrivals = visits.iter().map(|visit| visit.arrived).peekable();
        let mut freed = Self::default();
        for end in ends {
            while arrivals.next_if(|arrival| *arrival < end).is_some() {}
            let waiting = waits.iter().any(|(since, until)| *since < end + rtt / 2 && *until > end + rtt / 2);
            match arrivals.next() {
                Some(arrival) if waiting => freed.used_after.push(arrival - end),
                None if waiting => freed.unused += 1,
                _ => {}
            }
        }
        freed
    }
}
