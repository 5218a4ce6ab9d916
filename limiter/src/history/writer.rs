// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon's thread that looks once a minute and writes what it saw. Whatever fails here, nobody else waits for it.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    sync::mpsc::{self, RecvTimeoutError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use tokio::sync::watch;
use tracing::error;

use super::{
    aggregate::Aggregator,
    clock,
    fault::Fault,
    report::{Report, Teller},
    row::{HOUR_S, QUARTER_S, Quarter},
    sample::Sampler,
    store::{self, Store},
    tidy::{self, Retention},
    users::Users,
};
use crate::{
    config::{Config, HistoryConfig},
    instance::Instance,
};

/// How often it looks.
const EVERY_S: i64 = 60;
/// The first time it does not wait so long: somebody may be looking.
const FIRST: Duration = Duration::from_secs(5);
/// How often old rows are made shorter.
const TIDY_EVERY: Duration = Duration::from_secs(HOUR_S as u64);
/// Rows that wait for a database that cannot be written: more are lost, the least interesting first.
const MOST_WAITING: usize = 200_000;

/// The thread.
pub struct Thread {
    /// Dropped, it ends.
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

/// Starts it. `users` is where others say whom they have seen.
///
/// # Errors
/// When this process may have no more threads.
pub fn start(instance: &Instance, config: watch::Receiver<Config>, users: Option<Users>) -> Result<Thread> {
    let (stop, stopped) = mpsc::channel();
    let writer = Writer::new(instance, config, users);
    let run = move || writer.run(&stopped);
    let thread =
        std::thread::Builder::new().name("history".to_owned()).spawn(run).context("cannot start a thread")?;
    Ok(Thread { stop, thread })
}

impl Thread {
    /// Has it write what it has and end; `false` if it does not within `patience`.
    pub fn end(self, patience: Duration) -> bool {
        drop(self.stop);
        let since = Instant::now();
        while !self.thread.is_finished() {
            if since.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

struct Writer {
    instance: Instance,
    config: watch::Receiver<Config>,
    users: Option<Users>,
    path: PathBuf,
    teller: Teller,
    /// While the configuration wants it.
    sampler: Option<Sampler>,
    aggregator: Aggregator,
    store: Option<Store>,
    /// What is to be written.
    rows: Vec<Quarter>,
    /// Until when all refusals are written, and since the daemon before where there are gaps.
    past: Report,
    lost: usize,
    tidied: Option<Instant>,
    /// The clock on the wall, and when that was.
    clock: Option<(i64, Instant)>,
}

impl Writer {
    fn new(instance: &Instance, config: watch::Receiver<Config>, users: Option<Users>) -> Self {
        Self {
            instance: instance.clone(),
            config,
            users,
            path: instance.history_path(),
            teller: Teller::default(),
            sampler: None,
            aggregator: Aggregator::default(),
            store: None,
            rows: Vec::new(),
            past: Report::default(),
            lost: 0,
            tidied: None,
            clock: None,
        }
    }

    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        self.round(false);
        let mut wait = FIRST;
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            self.round(false);
            let late_s = clock::now_s().rem_euclid(EVERY_S);
            wait = Duration::from_secs((EVERY_S - late_s).unsigned_abs());
        }
        self.round(true);
    }

    /// One look, and what comes of it; `is_last`: nothing is kept for later.
    fn round(&mut self, is_last: bool) {
        let (config, remember_s) = {
            let config = self.config.borrow();
            (config.history, config.remember_seconds)
        };
        let Some(config) = config else {
            // What was seen so far is not wanted any more.
            (self.sampler, self.store, self.rows) = (None, None, Vec::new());
            self.aggregator = Aggregator::default();
            self.teller = Teller::default();
            self.past = Report::default();
            let _there_may_be_none = std::fs::remove_file(self.instance.history_report_path());
            return;
        };
        let now_s = clock::now_s();
        self.watch_clock(now_s);
        let looked = self.look(now_s, remember_s);
        let has_looked = looked.is_ok();
        match looked {
            Ok(seen) => self.rows.extend(self.aggregator.look(now_s, seen)),
            Err(problem) => {
                self.sampler = None;
                error!("the history misses a minute: {problem:#}");
            }
        }
        if is_last {
            self.rows.extend(self.aggregator.finish());
        }
        if !config.users {
            self.rows.iter_mut().for_each(|row| row.names.clear());
        }
        let mut written = self.write(config, now_s);
        if written.as_ref().is_err_and(Fault::is_damage) {
            self.put_aside(now_s);
            written = self.write(config, now_s);
        }
        match written {
            Ok(()) => {
                self.teller.goes_on();
                if has_looked {
                    self.past.until = Some(now_s);
                }
            }
            Err(fault) => self.wait(&fault),
        }
        let (until, gaps) = (self.past.until, self.past.gaps.as_slice());
        self.teller.leave(&self.instance.history_report_path(), now_s, (until, gaps));
    }

    fn look(&mut self, now_s: i64, remember_s: u32) -> Result<Vec<Quarter>> {
        match &mut self.sampler {
            Some(sampler) => sampler.look(remember_s),
            None => {
                self.sampler = Some(Sampler::new(&self.instance, self.users.clone())?);
                // What happened before is in what it begins with, and not told from what was written.
                if self.past == Report::default() {
                    // What the daemon before has left, if it can be read.
                    let left = Report::read(&self.instance.history_report_path()).unwrap_or_default();
                    self.past = Report { warnings: Vec::new(), ..left };
                }
                self.past.resume(now_s);
                Ok(Vec::new())
            }
        }
    }

    /// Says so when the clock on the wall was set back.
    fn watch_clock(&mut self, now_s: i64) {
        if let Some((before_s, at)) = self.clock.replace((now_s, Instant::now())) {
            if let Some(back_s) = clock::set_back(before_s, at.elapsed(), now_s) {
                self.teller.happened(
                    now_s,
                    format!(
                        "the host's clock was set back by {back_s} seconds: the history adds what happens now to what it \
                         has of these times already"
                    ),
                );
            }
        }
    }

    /// Writes what there is, and tidies up where it is time.
    fn write(&mut self, config: HistoryConfig, now_s: i64) -> Result<(), Fault> {
        if self.store.as_ref().is_some_and(|store| !store.is_in_place()) {
            self.store = None;
            let path = self.path.display();
            self.teller.happened(
                now_s,
                format!("{path} was removed or replaced while the daemon ran: what it had is not in the history any more"),
            );
        }
        let store = match &mut self.store {
            Some(store) => store,
            None => self.store.insert(Store::open(&self.path)?),
        };
        let forgotten = store.forgotten()?;
        if !forgotten.is_empty() {
            let is_forgotten = |source: &IpNet| {
                forgotten.iter().any(|network| network.contains(source) || source.contains(network))
            };
            self.rows.retain(|row| !is_forgotten(&row.source));
            self.aggregator.forget(is_forgotten);
            store.end_forgetting()?;
        }
        store.write(&self.rows, config.users)?;
        self.rows = Vec::new();
        let retention = Retention { days: config.days, bytes: u64::from(config.max_mib) << 20 };
        if self.tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
            tidy::tidy(store.connection(), now_s, &retention)?;
            self.tidied = Some(Instant::now());
        } else if tidy::used(store.connection())? > retention.bytes {
            tidy::shrink(store.connection(), now_s, &retention)?;
        }
        Ok(())
    }

    /// Moves a damaged database aside, so that another can be begun.
    fn put_aside(&mut self, now_s: i64) {
        self.store = None;
        self.tidied = None;
        let path = self.path.display();
        let what = match store::put_aside(&self.path) {
            Ok(aside) => {
                format!("{path} was damaged: it is now {}, and a new history has begun", aside.display())
            }
            Err(problem) => format!("{path} is damaged, and cannot be moved aside: {problem}"),
        };
        self.teller.happened(now_s, what);
    }

    /// Keeps what could not be written for the next time, as far as there is room.
    fn wait(&mut self, fault: &Fault) {
        if !fault.is_passing() {
            self.store = None;
        }
        let rows = std::mem::take(&mut self.rows);
        let (kept, lost) = bounded(merged(rows), MOST_WAITING);
        self.rows = kept;
        self.lost += lost;
        let lost = if self.lost == 0 {
            "what happens meanwhile is written when that is mended".to_owned()
        } else {
            // Not how many: that would be another warning each minute.
            "too much has happened meanwhile for all of it to be written later".to_owned()
        };
        self.teller.is_paused(format!(
            "the history is not written: {}; {lost}; the limits are in force",
            fault.sentence(&self.path)
        ));
    }
}

/// One row of those for the same stretch of the same source.
fn merged(rows: Vec<Quarter>) -> Vec<Quarter> {
    let mut merged: HashMap<(u32, i64, String, IpNet), Quarter> = HashMap::new();
    for row in rows {
        match merged.entry((row.seconds, row.start_s, row.service.clone(), row.source)) {
            Entry::Occupied(mut there) => there.get_mut().add(&row),
            Entry::Vacant(place) => {
                place.insert(row);
            }
        }
    }
    merged.into_values().collect()
}

/// No more than `most` of them, the most interesting; and how many are left out.
fn bounded(mut rows: Vec<Quarter>, most: usize) -> (Vec<Quarter>, usize) {
    let all = rows.len();
    if all > most {
        // Those of an hour are of sources that were neither refused nor near their limit.
        rows.sort_by_key(|row| (row.seconds != QUARTER_S, std::cmp::Reverse(row.refused)));
        rows.truncate(most);
    }
    let left_out = all - rows.len();
    (rows, left_out)
}
