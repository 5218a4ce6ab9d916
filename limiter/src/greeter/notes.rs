// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who was refused, until the daemon is told, a few times a second: so a refusal costs no message of its own. The daemon
//! decides what of it is in the log.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    log::{self, Refused},
    messages::Noted,
};

/// The longest that a note is kept.
const WITHIN: Duration = Duration::from_millis(200);
/// Of how many sources there are notes at a time; of all others it is known how many there were.
const SOURCES: usize = 1024;

/// The notes.
#[derive(Debug, Default)]
pub struct Notes {
    sources: HashMap<(Arc<str>, IpAddr), (Refused, u32)>,
    others: u64,
    due: Option<Instant>,
}

impl Notes {
    /// Notes a refusal.
    pub fn note(&mut self, refused: Refused, now: Instant) {
        self.due.get_or_insert(now + WITHIN);
        let has_room = self.sources.len() < SOURCES;
        match self.sources.entry((Arc::clone(&refused.service), log::source(refused.remote))) {
            Entry::Occupied(mut known) => {
                let (last, times) = known.get_mut();
                (*last, *times) = (refused, times.saturating_add(1));
            }
            Entry::Vacant(new) if has_room => drop(new.insert((refused, 1))),
            Entry::Vacant(_) => self.others += 1,
        }
    }

    /// When the daemon has to be told.
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes them all: of sources, and how many others.
    pub fn take(&mut self) -> (Vec<Noted>, u64) {
        self.due = None;
        let sources = self.sources.drain().map(|(_, (last, times))| Noted::of(&last, times));
        (sources.collect(), mem::take(&mut self.others))
    }

    /// The daemon could not be told of so many: later, then.
    pub fn put_back(&mut self, others: u64, now: Instant) {
        self.others += others;
        self.due.get_or_insert(now + WITHIN);
    }
}

#[cfg(test)]
mod tests {
    use limiter_common::Reason;

    use super::{super::log::Answer, *};

    fn refused(remote: [u8; 4]) -> Refused {
        Refused {
            service: "smtp".into(),
            remote: remote.into(),
            reason: Reason::Total,
            count: 8,
            limit: 8,
            answer: Answer::Reply,
        }
    }

    #[test]
    fn every_refusal_is_told_once_however_many_sources_there_are() {
        let now = Instant::now();
        let mut notes = Notes::default();
        assert_eq!(notes.due(), None);
        for n in 0..3_000_u32 {
            let [_, _, high, low] = n.to_be_bytes();
            notes.note(refused([10, 0, high, low]), now);
            notes.note(refused([10, 0, 0, 0]), now + WITHIN);
        }
        assert_eq!(notes.due(), Some(now + WITHIN));
        let (sources, others) = notes.take();
        assert_eq!(sources.len(), SOURCES);
        let most = sources.iter().map(|noted| noted.times).max();
        assert_eq!((most, others), (Some(3_001), 3_000 - SOURCES as u64));
        assert_eq!(sources.iter().map(|noted| u64::from(noted.times)).sum::<u64>() + others, 6_000);
        assert_eq!((notes.take(), notes.due()), ((Vec::new(), 0), None));
    }

    #[test]
    fn what_is_noted_survives_being_told() {
        let refused = refused([192, 0, 2, 7]);
        assert_eq!(Noted::of(&refused, 3).last(), refused);
    }
}
