// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon says of its history, for `limiter status`.

use std::{collections::VecDeque, fs, io::ErrorKind, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::staged;

/// So many things that are over are told, and so long.
const MOST: usize = 4;
const LONG_S: i64 = 86_400;

/// What is not as it should be, a sentence each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// For `limiter status`.
    pub warnings: Vec<String>,
    /// Until when the history has all refusals, in seconds since 1970; none where nothing was written yet.
    #[serde(default)]
    pub until: Option<i64>,
    /// When nobody wrote it, the latest last: refusals in these times are not in it.
    #[serde(default)]
    pub gaps: Vec<Gap>,
}

/// A time in which nobody wrote the history: no daemon ran, or it could not read the kernel's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gap {
    /// From when on, in seconds since 1970.
    pub since: i64,
    /// Until when.
    pub until: i64,
}

/// So many gaps are kept.
const MOST_GAPS: usize = 64;

impl Report {
    /// The history is written again from `now_s` on.
    pub fn resume(&mut self, now_s: i64) {
        if let Some(since) = self.until.filter(|since| *since < now_s) {
            self.gaps.push(Gap { since, until: now_s });
            let surplus = self.gaps.len().saturating_sub(MOST_GAPS);
            self.gaps.drain(..surplus);
        }
        self.until = None;
    }
}

impl Report {
    /// As the daemon wrote it last; empty if it did not.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// Tells what is wrong: the log once, and `limiter status` for as long as it is.
#[derive(Debug, Default)]
pub struct Teller {
    /// Why nothing is written.
    problem: Option<String>,
    /// What is over, and when that was.
    events: VecDeque<(i64, String)>,
    written: Report,
}

impl Teller {
    /// Nothing is written, because of that.
    pub fn is_paused(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            warn!("{problem}");
        }
        self.problem = Some(problem);
    }

    /// It is written.
    pub fn goes_on(&mut self) {
        if self.problem.take().is_some() {
            info!("the history is written again");
        }
    }

    /// Something happened that is over.
    pub fn happened(&mut self, now_s: i64, what: String) {
        warn!("{what}");
        self.events.truncate(MOST - 1);
        self.events.push_front((now_s, what));
    }

    /// Leaves it for `limiter status`, and what the history has: until when, and where there are gaps in it.
    pub fn leave(&mut self, path: &Path, now_s: i64, (until, gaps): (Option<i64>, &[Gap])) {
        self.events.retain(|(at_s, _)| (0..LONG_S).contains(&(now_s - at_s)));
        let events = self.events.iter().map(|(_, event)| event.clone());
        let report = Report {
            warnings: self.problem.iter().cloned().chain(events).collect(),
            until,
            gaps: gaps.to_vec(),
        };
        if report == self.written {
            return;
        }
        let text = serde_json::to_vec(&report).map_err(Into::into);
        match text.and_then(|text| staged::replace(path, &text, staged::PUBLIC)) {
            Ok(durable) => {
                durable.or_not();
                self.written = report;
            }
            Err(problem) => warn!("`limiter status` cannot show what is wrong with the history: {problem}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_last_writing_to_the_first_look_of_the_next_daemon_there_is_a_gap() {
        let mut report = Report { until: Some(100), ..Report::default() };
        report.resume(160);
        assert_eq!((report.until, report.gaps.as_slice()), (None, &[Gap { since: 100, until: 160 }][..]));
        report.resume(170);
        assert_eq!(report.gaps.len(), 1, "until when it was written is not known");
        report.until = Some(200);
        report.resume(200);
        assert_eq!(report.gaps.len(), 1, "nothing is missing");
        for n in 0..200 {
            report.until = Some(300 + n * 10);
            report.resume(305 + n * 10);
        }
        assert_eq!(report.gaps.len(), MOST_GAPS);
        assert_eq!(report.gaps.last(), Some(&Gap { since: 2290, until: 2295 }));
    }
}
