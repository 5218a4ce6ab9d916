// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What all threads know: how far it is, and when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::ending::{ALL, COUNTED, Ending};

/// At least one connection in so many ends in each of the slow ways.
const RARE: u64 = 1000;

/// How often daemons compare counts, in seconds: as often as can be.
pub const RECONCILED_EVERY_S: u64 = 5;

pub struct Churn {
    pub goal: u64,
    began: Instant,
    within: Option<Duration>,
    tally: [AtomicU64; ALL.len()],
    over: AtomicBool,
    interrupted: AtomicBool,
    took_ms: AtomicU64,
    /// What [`crate::changes`] did.
    pub changes: AtomicU64,
    pub kills: AtomicU64,
    pub verifications: AtomicU64,
}

impl Churn {
    /// `goal` connections, or as many as end `within` a time.
    pub fn new(goal: u64, within: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            goal,
            began: Instant::now(),
            within,
            tally: Default::default(),
            over: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            took_ms: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            kills: AtomicU64::new(0),
            verifications: AtomicU64::new(0),
        })
    }

    pub fn ended(&self, ending: Ending, connections: u64) {
        self.tally[ending as usize].fetch_add(connections, Ordering::Relaxed);
    }

    pub fn of(&self, ending: Ending) -> u64 {
        self.tally[ending as usize].load(Ordering::Relaxed)
    }

    /// Connections that counted and have ended.
    pub fn done(&self) -> u64 {
        ALL[..COUNTED].iter().map(|&(ending, _)| self.of(ending)).sum()
    }

    /// Whether as many have ended as should or could, and enough of them in each way; from then on for good.
    pub fn is_over(&self) -> bool {
        if !self.over.load(Ordering::Relaxed) && self.is_enough() {
            self.end();
        }
        self.over.load(Ordering::Relaxed)
    }

    fn is_enough(&self) -> bool {
        let in_each = |number| ALL.iter().all(|&(ending, _)| self.of(ending) >= number);
        let late = self.within.is_some_and(|within| self.began.elapsed() > within);
        (late && in_each(1)) || (self.done() >= self.goal && in_each((self.goal / RARE).max(1)))
    }

    fn end(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            self.took_ms.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// How often the table of sockets was looked at in so long a time: by each daemon when it took over, by each
    /// comparison, and by the daemons every few seconds.
    pub fn looks(&self, took: Duration) -> u64 {
        let asked = self.kills.load(Ordering::Relaxed) + self.verifications.load(Ordering::Relaxed);
        1 + asked + took.as_secs() / RECONCILED_EVERY_S
    }

    /// How long it took, or takes so far.
    pub fn took(&self) -> Duration {
        match self.took_ms.load(Ordering::Relaxed) {
            0 => self.began.elapsed(),
            took => Duration::from_millis(took),
        }
    }

    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.end();
    }

    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Does a thread's work; if it panics, it is over for the others too.
    pub fn watched(&self, work: impl FnOnce()) {
        struct Guard<'churn>(&'churn Churn);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.end();
                }
            }
        }
        let _guard = Guard(self);
        work();
    }
}
