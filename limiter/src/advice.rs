// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Advice from the history: what a limit would have refused, and which one refuses nobody who looks honest. `gather` looks;
//! all else is pure.
//!
//! The unit is the source-day: a source counts once for each day on which it connected, with the most connections that it
//! held at one time that day. How many had which peak is known of all sources; how long connections lasted and whose they
//! were is known of those that were refused or reached half of their limit. Of the others nothing is assumed: a limit that
//! is suggested refuses none of them.

mod gather;
mod past;
mod source;
mod suggestion;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use self::{
    gather::gather,
    past::{ByPeak, MailLimit, Past},
    source::{Look, Source},
    suggestion::{OwnRule, Suggestion, Undecided},
};
use crate::history::Day;

/// Limits that are looked at, beside the present one and the suggested one.
const LIMITS: [u32; 6] = [4, 8, 10, 20, 50, 100];

/// What a limit would have refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Would {
    /// The limit.
    pub limit: u32,
    /// Source-days with more.
    pub source_days: u64,
    /// Connections beyond it at the peak of each of them: so many would have been refused at least.
    pub connections: u64,
    /// Of the source-days, those of sources that look honest.
    pub honest: u64,
    /// Those of sources that look like anything but: short connections, and no user.
    pub dubious: u64,
    /// Those of sources of which that is not known.
    pub unknown: u64,
}

/// How the peaks of all source-days are spread: so many connections or fewer had this part of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Spread {
    /// Half.
    pub percent_50: u32,
    /// Nine in ten.
    pub percent_90: u32,
    /// 99 in 100.
    pub percent_99: u32,
    /// All.
    pub most: u32,
}

/// What there is to say of a service.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Advice {
    /// Its name.
    pub service: String,
    /// The limit of a source that is in force.
    pub max_connections: u32,
    /// Whether it refuses nobody.
    pub observes: bool,
    /// On how many days somebody connected.
    pub days: usize,
    /// Whether all sources of these days were counted.
    pub is_complete: bool,
    /// How many source-days had which peak; sources with a rule of their own are left out.
    pub source_days_by_peak: ByPeak,
    /// The same in four numbers; none where nobody was there.
    pub spread: Option<Spread>,
    /// How many sources have one.
    pub ruled: usize,
    /// What limits would have refused, the smallest first.
    pub limits: Vec<Would>,
    /// The sources that were refused or reached half of their limit, the largest first.
    pub sources: Vec<Source>,
    /// What to do; none where nothing can be suggested.
    pub suggestion: Option<Suggestion>,
    /// Why nothing is suggested, a sentence.
    pub not_suggested: Option<String>,
    /// What the mail daemons have.
    pub mail: Vec<MailLimit>,
}

impl Advice {
    /// What follows from the past.
    pub fn of(past: &Past) -> Self {
        // Where nobody tells who logs in, that no user is known says nothing.
        let tells_users =
            past.notable.iter().chain(&past.ruled).any(|row| row.users.is_some_and(|users| users > 0));
        let ruled = source::sources(&past.ruled, tells_users);
        // Of these another limit is spoken of.
        let mut sources: Vec<Source> = source::sources(&past.notable, tells_users);
        sources.retain(|source| !ruled.iter().any(|ruled| ruled.source == source.source));
        let mut days = Days::of(&past.days);
        days.without(&ruled);
        let all = days.sum();
        days.without(&sources);
        let rest = days.sum();
        let days_known: BTreeSet<i64> = past.days.iter().map(|day| day.start_s).collect();
        let (suggestion, not_suggested) = match suggestion::suggest(past, days_known.len(), &sources, &rest) {
            Ok(suggestion) => (Some(suggestion), None),
            Err(why) => (None, Some(why)),
        };
        let suggested = suggestion.as_ref().map(|suggestion| suggestion.max_connections);
        let mut limits: Vec<u32> =
            LIMITS.into_iter().chain([past.max_connections]).chain(suggested).collect();
        limits.sort_unstable();
        limits.dedup();
        Self {
            service: past.service.clone(),
            max_connections: past.max_connections,
            observes: past.observes,
            days: days_known.len(),
            is_complete: past.days.iter().all(|day| day.is_complete),
            limits: limits.into_iter().map(|limit| would(limit, &all, &sources)).collect(),
            spread: spread(&all),
            source_days_by_peak: all,
            ruled: ruled.len(),
            sources,
            suggestion,
            not_suggested,
            mail: past.mail.clone(),
        }
    }
}

/// The numbers that say how these are spread.
fn spread(all: &ByPeak) -> Option<Spread> {
    let source_days: u64 = all.values().sum();
    let percentile = |percent: u64| {
        let mut seen = 0;
        let reached = |(_, count): &(&u32, &u64)| {
            seen += **count;
            seen * 100 >= source_days * percent
        };
        all.iter().find(reached).map(|(peak, _)| *peak)
    };
    Some(Spread {
        percent_50: percentile(50)?,
        percent_90: percentile(90)?,
        percent_99: percentile(99)?,
        most: all.keys().next_back().copied()?,
    })
}

/// What a limit would have refused of these source-days.
fn would(limit: u32, all: &ByPeak, sources: &[Source]) -> Would {
    let beyond = || all.iter().filter(|(peak, _)| **peak > limit);
    let source_days = beyond().map(|(_, source_days)| source_days).sum();
    let connections = beyond().map(|(peak, source_days)| u64::from(peak - limit) * source_days).sum();
    let of = |look| {
        let of_look = sources.iter().filter(|source| source.look == look);
        of_look.map(|source| source.peaks.values().filter(|peak| **peak > limit).count() as u64).sum()
    };
    let (honest, dubious): (u64, u64) = (of(Look::Honest), of(Look::Dubious));
    Would {
        limit,
        source_days,
        connections,
        honest,
        dubious,
        unknown: u64::saturating_sub(source_days, honest + dubious),
    }
}

/// How many sources had which peak, day by day.
struct Days(BTreeMap<i64, ByPeak>);

impl Days {
    fn of(days: &[Day]) -> Self {
        let mut all: BTreeMap<i64, ByPeak> = BTreeMap::new();
        for day in days {
            let of_day = all.entry(day.start_s).or_default();
            for (peak, sources) in &day.sources_by_peak {
                *of_day.entry(*peak).or_default() += sources;
            }
        }
        Self(all)
    }

    /// Takes sources out.
    fn without(&mut self, sources: &[Source]) {
        for (day, peak) in sources.iter().flat_map(|source| &source.peaks) {
            let Some(of_day) = self.0.get_mut(day) else { continue };
            // Of a source of which not all rows are known the peak may have been higher.
            let Some((&peak, left)) = of_day.range_mut(peak..).next() else { continue };
            *left -= 1;
            if *left == 0 {
                of_day.remove(&peak);
            }
        }
    }

    fn sum(&self) -> ByPeak {
        let mut sum = ByPeak::new();
        for (peak, sources) in self.0.values().flatten().filter(|(peak, sources)| **peak > 0 && **sources > 0)
        {
            *sum.entry(*peak).or_default() += sources;
        }
        sum
    }
}
