// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Reconciliation: the ledger against the kernel's own socket table.
//!
//! Both change while they are looked at. So a count is only compared where it stood still: it is read
//! before the census and after it, and with it how many connections its source has had. What differs
//! then is a suspicion; what differs in the same way in the next look, with the count still as it was,
//! is corrected, in one atomic step that fails if the count has moved since. In the same way the record on a
//! connection is removed that is in the table in neither look.

mod books;
mod waiting;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::Path,
    time::Duration,
};

use anyhow::Result;
use limiter_common::{
    Count, Kept, Key,
    census::{SocketRecord, kind},
    maintenance::{Step, step},
};
use tracing::{info, warn};

use self::{books::Books, waiting::Mismarked};
use crate::{
    kernel::{Tables, census, maintenance::Maintenance},
    ledger,
};

/// Between the look that raises a suspicion and the one that confirms it.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Connections by count.
type Tally = HashMap<Key, u32>;

/// A count that is not what the socket table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Whose count.
    pub key: Key,
    /// What the ledger says.
    pub ledger: u32,
    /// What the socket table says.
    pub sockets: u32,
}

/// What one look found.
struct Look {
    differences: Vec<Difference>,
    /// Cookies of sockets that have a record, and are gone.
    orphans: HashSet<u64>,
    /// Connections in the socket table that are counted.
    connections: usize,
    /// Dead ones that nobody has let go of.
    dead: usize,
    /// Counts that do not know how many wait for them.
    mismarked: Vec<Mismarked>,
    /// The counts as they were seen last.
    words: HashMap<Key, Count>,
}

/// Compares at intervals, and corrects.
#[derive(Default)]
pub struct Reconciler {
    suspicions: Vec<Difference>,
    /// As of the last look.
    orphans: HashSet<u64>,
    /// Likewise.
    mismarked: Vec<Mismarked>,
}

/// What a round did.
#[derive(Debug, PartialEq, Eq)]
pub struct Round {
    /// Connections in the socket table.
    pub connections: usize,
    /// Connections that are dead, and whose owner has not let go.
    pub dead: usize,
    /// Counts that were wrong twice, and whether they could be corrected.
    pub corrected: Vec<(Difference, bool)>,
    /// Counts that twice did not know how many wait for them, likewise.
    pub marked: Vec<(Mismarked, bool)>,
}

impl Reconciler {
    /// One look, and the correction of what it confirms. `None` where this kernel has no census.
    pub fn round(&mut self, dir: &Path, maintenance: &mut Maintenance) -> Result<Option<Round>> {
        let adopted = maintenance.tables.adopted()?;
        let Some(look) = Look::take(dir, &maintenance.tables)? else { return Ok(None) };
        let newly_counted = maintenance.tables.adopted()? - adopted;
        if newly_counted > 0 {
            info!("counted {newly_counted} connections that were not counted before");
        }
        let mut corrected = Vec::new();
        for difference in &look.differences {
            if !self.suspicions.contains(difference) {
                continue;
            }
            let seen = look.words.get(&difference.key).copied().unwrap_or_default();
            let to = seen.with_connections(difference.sockets);
            let step = Step { step: step::CORRECT, key: difference.key, from: seen, to, ..Step::default() };
            let done = maintenance.correct(step)?;
            if done {
                warn!("{difference}: drift, corrected; please report this");
            } else {
                info!("{difference}: it has changed since");
            }
            corrected.push((*difference, done));
        }
        self.suspicions = look.differences;
        self.suspicions.retain(|suspicion| !corrected.contains(&(*suspicion, true)));
        let marked = self.correct_waiting(look.mismarked, maintenance)?;
        let forgotten = self.forget_orphans(look.orphans, maintenance)?;
        if forgotten > 0 {
            info!("removed the records of {forgotten} connections that had ended without a report");
        }
        Ok(Some(Round { connections: look.connections, dead: look.dead, corrected, marked }))
    }

    /// Corrects what contradicted the records of those that wait in the last look already.
    fn correct_waiting(
        &mut self,
        mut mismarked: Vec<Mismarked>,
        maintenance: &mut Maintenance,
    ) -> Result<Vec<(Mismarked, bool)>> {
        let mut marked = Vec::new();
        for found in mismarked.iter().filter(|found| self.mismarked.contains(found)) {
            let step = Step {
                step: step::CORRECT_WAITING,
                key: found.key,
                from: found.seen,
                to: found.right(),
                ..Step::default()
            };
            let done = maintenance.correct(step)?;
            if done {
                warn!("{found}: corrected; please report this");
            }
            marked.push((*found, done));
        }
        mismarked.retain(|found| !marked.contains(&(*found, true)));
        self.mismarked = mismarked;
        Ok(marked)
    }

    /// Removes the records of sockets that were gone in the last look already; returns how many.
    fn forget_orphans(&mut self, mut orphans: HashSet<u64>, maintenance: &mut Maintenance) -> Result<u32> {
        let forgotten = maintenance.forget(self.orphans.drain().filter(|cookie| orphans.remove(cookie)))?;
        self.orphans = orphans;
        Ok(forgotten)
    }

    /// Whether another look has to confirm what the last one found.
    fn is_in_doubt(&self) -> bool {
        !self.suspicions.is_empty() || !self.orphans.is_empty() || !self.mismarked.is_empty()
    }

    /// How long to wait before the next round, if `every` is how often the ledger is compared.
    #[must_use]
    pub fn wait(&self, every: Duration) -> Duration {
        if self.is_in_doubt() { LOOK_AGAIN } else { every }
    }
}

impl Look {
    fn take(dir: &Path, tables: &Tables) -> Result<Option<Self>> {
        let mut orphans = tables.recorded()?;
        let before = books(tables, |_, _| true)?;
        let Some(mut records) = census::take(dir, tables)? else { return Ok(None) };
        // Afterwards: what the census has not found any more is kept by now.
        add_dead(&mut records, &tables.kept()?);
        let waiters = tables.waiters()?;
        // What is not used, and has neither sockets nor waiters, is as it should be: there may be a million such.
        let used: HashSet<Key> =
            records.iter().flat_map(keys).chain(waiters.iter().flat_map(waiting::keys)).collect();
        let after = books(tables, |key, count| count != Count(0) || used.contains(key))?;
        for record in &records {
            orphans.remove(&record.cookie);
        }
        if !orphans.is_empty() {
            // Most have ended meanwhile, as they should.
            let recorded = tables.recorded()?;
            orphans.retain(|cookie| recorded.contains(cookie));
        }
        let mismarked = waiting::compare(&before, &waiters, &after);
        Ok(Some(Self { orphans, mismarked, ..Self::compare(&before, &records, &after) }))
    }

    /// What `records`, taken between the readings `before` and `after`, say of the counts.
    fn compare(before: &Books, records: &[SocketRecord], after: &Books) -> Self {
        let counted = tally(records);
        let of_kind = |kind| records.iter().filter(|record| record.kind == kind).count();
        let (connections, dead) = (of_kind(kind::COUNTED), of_kind(kind::DEAD));
        let stood_still = before.iter().filter(|&(key, book)| {
            after.get(key) == Some(book) && book.0 != Count::COLLECTED && book.0.reserved() == 0
        });
        let mut differences: Vec<Difference> = stood_still
            .map(|(key, (count, _))| Difference {
                key: *key,
                ledger: count.connections(),
                sockets: counted.get(key).copied().unwrap_or_default(),
            })
            .filter(|difference| difference.ledger != difference.sockets)
            .collect();
        differences
            .sort_by_key(|difference| (difference.key.service, difference.key.tier, difference.key.addr));
        let words = after.iter().map(|(key, (count, _))| (*key, *count)).collect();
        Self { differences, orphans: HashSet::new(), connections, dead, mismarked: Vec::new(), words }
    }
}

/// Adds to what the census has found the dead connections that nobody has let go of, which are in no table.
fn add_dead(records: &mut Vec<SocketRecord>, kept: &[(u64, Kept)]) {
    let found: HashSet<u64> = records.iter().map(|record| record.cookie).collect();
    records.extend(kept.iter().filter(|(cookie, _)| !found.contains(cookie)).map(|(cookie, kept)| {
        SocketRecord { cookie: *cookie, kind: kind::DEAD, count_keys: kept.count_keys(), zero: 0 }
    }));
}

/// Connections by count.
fn tally(records: &[SocketRecord]) -> Tally {
    let mut counted = Tally::new();
    for record in records.iter().filter(|record| matches!(record.kind, kind::COUNTED | kind::DEAD)) {
        for key in keys(record) {
            *counted.entry(key).or_default() += 1;
        }
    }
    counted
}

/// The counts a connection is in.
fn keys(record: &SocketRecord) -> impl Iterator<Item = Key> + use<> {
    let count_keys = record.count_keys;
    let of_network = count_keys.has_network().then_some(count_keys.network);
    [Some(count_keys.source), of_network, Some(Key::total(count_keys.service()))].into_iter().flatten()
}

/// Every count for which this is true.
fn books(tables: &Tables, is_asked_for: impl Fn(&Key, Count) -> bool) -> Result<Books> {
    let mut books = Books::new();
    tables.each_source(|key, entry| {
        if is_asked_for(&key, entry.count) {
            books.insert(key, (entry.count, entry.accepted.into()));
        }
    })?;
    for (id, _) in tables.policy.services()? {
        let counters = tables.counters(id)?;
        books.insert(Key::total(id), (tables.total(id)?, counters.accepted + counters.adopted));
    }
    Ok(books)
}

/// Compares now, twice, and corrects what is wrong in both looks. `None` where this kernel has no
/// census.
pub fn verify(dir: &Path, maintenance: &mut Maintenance) -> Result<Option<Round>> {
    let mut reconciler = Reconciler::default();
    let Some(first) = reconciler.round(dir, maintenance)? else { return Ok(None) };
    if !reconciler.is_in_doubt() {
        return Ok(Some(first));
    }
    std::thread::sleep(LOOK_AGAIN);
    reconciler.round(dir, maintenance)
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, ledger, sockets } = self;
        write!(
            out,
            "{}: the ledger counts {ledger} connections, the kernel has {sockets}",
            ledger::counted(key)
        )
    }
}

#[cfg(test)]
mod tests;
