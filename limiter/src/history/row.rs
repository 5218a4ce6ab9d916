// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is kept of one source at one service over a stretch of time, and how two such make one.

use std::time::Duration;

use ipnet::IpNet;
use limiter_common::Reason;
use serde::{Serialize, Serializer};

/// Seconds of a row for a source that was refused, or reached half of its limit.
pub const QUARTER_S: u32 = 900;
/// Seconds of a row for others.
pub const HOUR_S: u32 = 3600;
/// Seconds of a row that is old.
pub const DAY_S: u32 = 86_400;

/// How many reasons there are.
pub const REASONS: usize = Reason::ALL.len();

/// One row: a quarter of an hour of a source that was refused or reached half of its limit; an hour of others; a day of
/// what is old.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Quarter {
    /// When it begins, in seconds since 1970, UTC; a multiple of `seconds`.
    pub start_s: i64,
    /// How long it is: 900, 3,600 or 86,400.
    pub seconds: u32,
    /// The service's name.
    pub service: String,
    /// The source, as the ledger counts: an address, or what the prefix of the service or a rule makes of it.
    #[cfg_attr(test, schemars(with = "String"))]
    pub source: IpNet,
    /// The most connections at one time. Exact while a daemon ran.
    pub peak: u32,
    /// The limit that was in force for it, the last if there were several, 0 where it was denied; none where it was allowed.
    pub limit: Option<u32>,
    /// Connections that began.
    pub accepted: u64,
    /// How often it was refused, at least.
    pub refused: u64,
    /// When it was refused last, in seconds since 1970, to within a minute; none where it was not, and in rows of limiter 0.1
    /// before this was kept.
    pub last_refused: Option<i64>,
    /// How often for which [`Reason`], by its number, as far as that is known.
    #[serde(serialize_with = "by_name")]
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, u64>"))]
    pub refused_for: [u64; REASONS],
    /// Connections that were let through because the service only observed.
    pub would_refuse: u64,
    /// Completing ACKs that were held back for want of a place.
    pub held: u64,
    /// The most handshakes that were seen waiting at once. Looked at once a minute, so there may have been more.
    pub waiting: u32,
    /// How long the connections had been there that ended; none where that is not known.
    pub durations: Option<Durations>,
    /// How many users were seen, at least; none where that is not known.
    pub users: Option<u32>,
    /// Their names, as far as they are known and may be kept; those of the whole day.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl Quarter {
    /// One in which nothing has happened.
    pub fn new(start_s: i64, seconds: u32, service: &str, source: IpNet) -> Self {
        Self {
            start_s: floor(start_s, seconds),
            seconds,
            service: service.to_owned(),
            source,
            peak: 0,
            limit: None,
            accepted: 0,
            refused: 0,
            last_refused: None,
            refused_for: [0; REASONS],
            would_refuse: 0,
            held: 0,
            waiting: 0,
            durations: None,
            users: None,
            names: Vec::new(),
        }
    }

    /// Adds what happened in a part of it, the later one.
    pub fn add(&mut self, part: &Self) {
        self.peak = self.peak.max(part.peak);
        self.limit = part.limit;
        self.accepted += part.accepted;
        self.refused += part.refused;
        self.last_refused = self.last_refused.max(part.last_refused);
        for (sum, more) in self.refused_for.iter_mut().zip(part.refused_for) {
            *sum += more;
        }
        self.would_refuse += part.would_refuse;
        self.held += part.held;
        self.waiting = self.waiting.max(part.waiting);
        if let Some(more) = part.durations {
            let mut sum = self.durations.unwrap_or_default();
            sum.add(&more);
            self.durations = Some(sum);
        }
        self.users = self.users.max(part.users);
        for name in &part.names {
            if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
    }

    /// Whether anybody will ask for it: it was refused, or would have been, or reached half of its limit.
    pub fn is_notable(&self) -> bool {
        self.refused > 0
            || self.would_refuse > 0
            || self.limit.is_some_and(|limit| self.peak > 0 && 2 * u64::from(self.peak) >= limit.into())
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        let Self { peak, accepted, refused, refused_for, would_refuse, held, waiting, .. } = self;
        let Self { durations, users, names, .. } = self;
        *peak == 0
            && *accepted == 0
            && *refused == 0
            && *refused_for == [0; REASONS]
            && *would_refuse == 0
            && *held == 0
            && *waiting == 0
            && durations.is_none_or(|durations| durations == Durations::default())
            && users.is_none_or(|users| users == 0)
            && names.is_empty()
    }

    /// The same as a part of a longer row.
    pub fn within(mut self, seconds: u32) -> Self {
        self.start_s = floor(self.start_s, seconds);
        self.seconds = seconds;
        self
    }
}

/// How often for which reason, by the names of those that there are.
pub fn by_name<S: Serializer>(refused_for: &[u64; REASONS], serializer: S) -> Result<S::Ok, S::Error> {
    let times = Reason::ALL.iter().zip(refused_for).filter(|(_, times)| **times > 0);
    serializer.collect_map(times.map(|(reason, times)| (reason.name(), times)))
}

/// When the stretch of so many seconds begins that a time is in.
pub const fn floor(at_s: i64, seconds: u32) -> i64 {
    at_s - at_s.rem_euclid(seconds as i64)
}

/// How many connections ended, by how long they had been there, to within a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Durations {
    /// Less than a minute.
    pub under_1_min: u64,
    /// Less than ten.
    pub under_10_min: u64,
    /// Less than an hour.
    pub under_1_h: u64,
    /// Less than eight.
    pub under_8_h: u64,
    /// Longer.
    pub longer: u64,
}

impl Durations {
    /// One that was there for so long.
    pub fn count(&mut self, duration: Duration) {
        let bucket = match duration.as_secs() {
            0..60 => &mut self.under_1_min,
            60..600 => &mut self.under_10_min,
            600..3600 => &mut self.under_1_h,
            3600..28_800 => &mut self.under_8_h,
            _ => &mut self.longer,
        };
        *bucket += 1;
    }

    /// Those of another stretch.
    pub fn add(&mut self, more: &Self) {
        let Self { under_1_min, under_10_min, under_1_h, under_8_h, longer } = more;
        self.under_1_min += under_1_min;
        self.under_10_min += under_10_min;
        self.under_1_h += under_1_h;
        self.under_8_h += under_8_h;
        self.longer += longer;
    }

    /// How many in all.
    pub const fn ended(&self) -> u64 {
        self.under_1_min + self.under_10_min + self.under_1_h + self.under_8_h + self.longer
    }
}
