// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who was refused, for the log: the greeter tells of each refusal, and whoever writes the log asks now and then for the
//! lines.
//!
//! A source has one line a minute, which tells how many more there were; all together have [`LINES`] a minute. What is
//! kept is bounded as well. To note a refusal of a source that is known takes one look-up.

use std::{
    collections::HashMap,
    mem,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use limiter_common::Reason;
use serde::{Deserialize, Serialize};

/// How often a source has a line.
const EVERY: Duration = Duration::from_secs(60);
/// How many lines there are in that time, for all sources together.
pub const LINES: u32 = 60;
/// How many sources are known at a time.
const SOURCES: usize = 1_024;

/// What a refused client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The reason; or, where TLS starts at once, a handshake that is to say it.
    Reply,
    /// A TLS alert, because there is no certificate, or because there are too many handshakes.
    Alert,
    /// A reset.
    Reset,
}

impl Answer {
    /// Its name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Alert => "alert",
            Self::Reset => "reset",
        }
    }
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The service's name.
    pub service: Arc<str>,
    /// The client; IPv4 where it is, never the mapped form.
    pub remote: IpAddr,
    /// Why.
    pub reason: Reason,
    /// The connections there were of what had reached its limit.
    pub count: u32,
    /// That limit.
    pub limit: u32,
    /// What it got.
    pub answer: Answer,
}

/// What the log is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A source was refused: the last time, and how often besides since its last line.
    Source(Refused, u64),
    /// Refusals of sources that had no line, because there were too many.
    Others(u64),
}

/// The refusals that the log does not have yet.
#[derive(Debug)]
struct Refusals {
    sources: HashMap<(Arc<str>, IpAddr), Source>,
    lines: Vec<Line>,
    /// Refusals without a line.
    others: u64,
    /// Since when `left` counts down.
    since: Instant,
    /// How many lines are left in this minute.
    left: u32,
}

#[derive(Debug)]
struct Source {
    /// When it had its line.
    at: Instant,
    /// Refusals since then.
    more: u64,
    /// The last of them.
    last: Refused,
}

impl Refusals {
    fn new(now: Instant) -> Self {
        Self { sources: HashMap::new(), lines: Vec::new(), others: 0, since: now, left: LINES }
    }

    fn note(&mut self, refused: Refused, times: u32, now: Instant) {
        let times = u64::from(times);
        let Some(besides) = times.checked_sub(1) else { return };
        let key = (Arc::clone(&refused.service), source(refused.remote));
        if let Some(source) = self.sources.get_mut(&key) {
            source.more += times;
            source.last = refused;
        } else if self.sources.len() < SOURCES && self.left > 0 {
            self.left -= 1;
            // One that looks has the first line at once, and it is of one; the next has the others.
            self.lines.push(Line::Source(refused.clone(), 0));
            self.sources.insert(key, Source { at: now, more: besides, last: refused });
        } else {
            self.others = self.others.saturating_add(times);
        }
    }

    fn lines(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = mem::take(&mut self.lines);
        if now.saturating_duration_since(self.since) >= EVERY {
            (self.since, self.left) = (now, LINES);
            let others = mem::take(&mut self.others);
            lines.extend((others > 0).then_some(Line::Others(others)));
        }
        let (left, others) = (&mut self.left, &mut self.others);
        self.sources.retain(|_, source| {
            if now.saturating_duration_since(source.at) < EVERY {
                return true;
            }
            let more = mem::take(&mut source.more);
            source.at = now;
            // This one is in the line.
            let Some(besides) = more.checked_sub(1) else { return false };
            if *left > 0 {
                *left -= 1;
                lines.push(Line::Source(source.last.clone(), besides));
            } else {
                *others = others.saturating_add(more);
            }
            true
        });
        lines
    }
}

/// What counts as one source here, whatever the service says: an IPv4 address, an IPv6 /64.
pub fn source(remote: IpAddr) -> IpAddr {
    match remote {
        IpAddr::V4(_) => remote,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
    }
}

/// The refusals that the log does not have yet, for several threads.
#[derive(Clone, Debug)]
pub struct RefusalLog(Arc<Mutex<Refusals>>);

impl RefusalLog {
    /// None so far.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Refusals::new(Instant::now()))))
    }

    /// Notes so many of one source, of which this is the last.
    pub fn note(&self, refused: Refused, times: u32, now: Instant) {
        self.lock().note(refused, times, now);
    }

    /// Notes so many of whom nothing is known.
    pub fn note_others(&self, others: u64) {
        let mut refusals = self.lock();
        refusals.others = refusals.others.saturating_add(others);
    }

    /// The lines that are due.
    #[must_use]
    pub fn lines(&self, now: Instant) -> Vec<Line> {
        self.lock().lines(now)
    }

    /// Nobody writes or waits while it is held.
    fn lock(&self) -> MutexGuard<'_, Refusals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(service: &str, remote: &str, count: u32) -> Refused {
        Refused {
            service: service.into(),
            remote: remote.parse().unwrap(),
            reason: Reason::Concurrency,
            count,
            limit: 8,
            answer: Answer::Reply,
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_source_has_a_line_at_once_and_then_one_a_minute_that_tells_how_many_more() {
        let start = Instant::now();
        let mut log = Refusals::new(start);
        log.note(refused("smtp", "192.0.2.7", 8), 1, start);
        assert_eq!(log.lines(start), [Line::Source(refused("smtp", "192.0.2.7", 8), 0)]);
        for second in 1..=312 {
            log.note(refused("smtp", "192.0.2.7", 9), 1, start + seconds(second) / 10);
        }
        assert_eq!(log.lines(start + seconds(59)), []);
        assert_eq!(log.lines(start + seconds(60)), [Line::Source(refused("smtp", "192.0.2.7", 9), 311)]);
        assert_eq!(log.lines(start + seconds(61)), []);
        // It has stopped: there is nothing to tell, and nothing is kept.
        assert_eq!(log.lines(start + seconds(120)), []);
        assert!(log.sources.is_empty());
    }

    #[test]
    fn several_that_are_told_of_together_are_all_in_the_lines() {
        let start = Instant::now();
        let mut log = Refusals::new(start);
        log.note(refused("smtp", "192.0.2.7", 8), 3, start);
        assert_eq!(log.lines(start), [Line::Source(refused("smtp", "192.0.2.7", 8), 0)]);
        log.note(refused("smtp", "192.0.2.7", 9), 300, start);
        log.note(refused("imap", "192.0.2.7", 9), 0, start);
        assert_eq!(log.lines(start + seconds(60)), [Line::Source(refused("smtp", "192.0.2.7", 9), 301)]);
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_64_at_one_service() {
        let start = Instant::now();
        let mut log = Refusals::new(start);
        for (service, remote) in [
            ("smtp", "192.0.2.7"),
            ("smtp", "192.0.2.8"),
            ("imap", "192.0.2.7"),
            ("smtp", "2001:db8::1"),
            ("smtp", "2001:db8::2"),
            ("smtp", "2001:db8:0:1::2"),
        ] {
            log.note(refused(service, remote, 8), 1, start);
        }
        assert_eq!(log.lines(start).len(), 5);
    }

    #[test]
    fn all_sources_together_have_so_many_lines_and_the_others_are_counted() {
        let start = Instant::now();
        let mut log = Refusals::new(start);
        for n in 0..10_000_u32 {
            log.note(refused("smtp", &format!("10.0.{}.{}", n >> 8, n & 255), 8), 1, start);
        }
        assert_eq!(log.lines(start).len(), LINES as usize);
        let later = log.lines(start + seconds(60));
        assert_eq!(later, [Line::Others(10_000 - u64::from(LINES))]);
        assert!(log.sources.is_empty());
    }

    proptest! {
        /// Whoever comes when: no refusal is lost or told twice, and no more is said and kept than there may be.
        #[test]
        fn every_refusal_is_in_a_line_or_counted_with_the_others(
            steps in prop::collection::vec((0u16..2_000, 0u64..20, prop::bool::weighted(0.1)), 0..3_000),
        ) {
            let mut now = Instant::now();
            let mut log = Refusals::new(now);
            let (mut noted, mut told) = (0, 0);
            let mut said = Vec::new();
            let count = |lines: Vec<Line>, at: Instant, said: &mut Vec<Instant>| -> u64 {
                said.extend(lines.iter().filter(|line| matches!(line, Line::Source(..))).map(|_| at));
                lines.iter().map(|line| match line {
                    Line::Source(_, besides) => besides + 1,
                    Line::Others(others) => *others,
                }).sum()
            };
            for (source, pause, asks) in steps {
                log.note(refused("imap", &format!("10.1.{}.{}", source >> 8, source & 255), 8), 1, now);
                noted += 1;
                prop_assert!(log.sources.len() <= SOURCES && log.lines.len() <= LINES as usize);
                if asks {
                    now += seconds(pause);
                    told += count(log.lines(now), now, &mut said);
                }
            }
            for _ in 0..2 {
                now += EVERY;
                told += count(log.lines(now), now, &mut said);
            }
            now += EVERY;
            told += count(log.lines(now), now, &mut said);
            prop_assert_eq!(noted, told);
            // Lines are handed out when somebody asks: those of two minutes can come together.
            for (first, at) in said.iter().enumerate() {
                let within = said[first..].iter().take_while(|other| other.duration_since(*at) < EVERY).count();
                prop_assert!(within <= 2 * LINES as usize, "{within} lines within a minute");
            }
        }
    }
}
