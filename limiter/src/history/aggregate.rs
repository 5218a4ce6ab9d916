// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! From what is seen once a minute to the rows that are kept. Pure: time comes in.
//!
//! What happened is given out as soon as anybody may ask for it: of a source that was refused or reached half of its limit,
//! with each look; of others, when the quarter of an hour is over. What is given out is to be added to what is kept of the
//! same stretch already, so it does not matter how often a daemon is started.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use ipnet::IpNet;

use super::row::{HOUR_S, QUARTER_S, Quarter, floor};

/// A look that is later than this tells nothing of when it happened: the clock was set.
const LONGEST_LOOK_S: i64 = 10 * 60;

/// One source at one service.
type Who = (String, IpNet);

/// The quarter of an hour that is under way.
#[derive(Debug, Default)]
pub struct Aggregator {
    start_s: i64,
    looked_s: Option<i64>,
    running: HashMap<Who, Running>,
}

#[derive(Debug)]
struct Running {
    /// What was not given out yet.
    part: Quarter,
    /// Whether it is to be given out with each look.
    is_notable: bool,
    /// The users that were seen so far.
    users: HashSet<String>,
}

impl Aggregator {
    /// Takes what was seen at `at_s`, in seconds since 1970: what has become of each source since the last look. Returns
    /// what is to be added to the rows that are kept.
    pub fn look(&mut self, at_s: i64, seen: Vec<Quarter>) -> Vec<Quarter> {
        // What happened between two looks counts where the middle between them is.
        let since_s = self.looked_s.map_or(0, |looked_s| at_s - looked_s);
        let middle_s = if (0..=LONGEST_LOOK_S).contains(&since_s) { at_s - since_s / 2 } else { at_s };
        let start_s = floor(middle_s, QUARTER_S);
        let mut rows = if start_s == self.start_s { Vec::new() } else { self.finish() };
        (self.start_s, self.looked_s) = (start_s, Some(at_s));
        for part in seen {
            self.add(part);
        }
        rows.extend(self.running.values_mut().filter_map(|running| running.give_out(false)));
        rows
    }

    /// Ends the quarter of an hour: what was not given out yet.
    pub fn finish(&mut self) -> Vec<Quarter> {
        self.running.drain().filter_map(|(_, mut running)| running.give_out(true)).collect()
    }

    /// Forgets what is not given out yet of the sources for which this is true.
    pub fn forget(&mut self, is_forgotten: impl Fn(&IpNet) -> bool) {
        self.running.retain(|(_, source), _| !is_forgotten(source));
    }

    fn add(&mut self, mut seen: Quarter) {
        let names = std::mem::take(&mut seen.names);
        let running = match self.running.entry((seen.service.clone(), seen.source)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let (service, source) = entry.key();
                let part = Quarter::new(self.start_s, QUARTER_S, service, *source);
                entry.insert(Running { part, is_notable: false, users: HashSet::new() })
            }
        };
        running.part.add(&seen);
        if !names.is_empty() {
            for name in &names {
                if running.users.insert(name.clone()) {
                    running.part.names.push(name.clone());
                }
            }
            running.part.users = Some(u32::try_from(running.users.len()).unwrap_or(u32::MAX));
        }
        running.is_notable |= running.part.is_notable();
    }
}

impl Running {
    /// What is to be given out now; `is_over`: the quarter of an hour is.
    fn give_out(&mut self, is_over: bool) -> Option<Quarter> {
        if self.part.is_empty() || !(is_over || self.is_notable) {
            return None;
        }
        let Quarter { start_s, seconds, service, source, .. } = &self.part;
        let next = Quarter { limit: self.part.limit, ..Quarter::new(*start_s, *seconds, service, *source) };
        let part = std::mem::replace(&mut self.part, next);
        Some(if self.is_notable { part } else { part.within(HOUR_S) })
    }
}

#[cfg(test)]
mod tests;
