// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Looks at the mail host's socket table without a pause, and remembers the most it saw.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sockets::{COUNTED, Sockets};
use crate::support::{Lab, deadline};

#[derive(Default)]
struct Seen {
    looks: u64,
    /// The ports each source is connected from, by the last look.
    now: HashMap<IpAddr, BTreeSet<u16>>,
    peaks: HashMap<IpAddr, usize>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    looked: Condvar,
    done: AtomicBool,
}

/// A thread that looks until this is dropped.
pub struct Watch {
    shared: Arc<Shared>,
    began: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the connections to `port`.
    ///
    /// The table is read piece by piece, while connections come and go: one reading may show more than ever
    /// were at one time. But what is in two readings in a row was there in between, all of it: of that the
    /// peaks are taken.
    pub fn start(lab: &Lab, port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let mut sockets = Sockets::of(lab);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut before = HashSet::new();
            while !theirs.done.load(Ordering::Relaxed) {
                let table = sockets.connections(port, &COUNTED);
                let mut seen = theirs.lock();
                let mut lasting: HashMap<IpAddr, usize> = HashMap::new();
                seen.now.clear();
                for connection in &table {
                    let source = connection.remote.ip();
                    seen.now.entry(source).or_default().insert(connection.remote.port());
                    if before.contains(&connection.cookie) {
                        *lasting.entry(source).or_default() += 1;
                    }
                }
                for (source, count) in lasting {
                    let peak = seen.peaks.entry(source).or_default();
                    *peak = count.max(*peak);
                }
                seen.looks += 1;
                drop(seen);
                theirs.looked.notify_all();
                before = table.into_iter().map(|connection| connection.cookie).collect();
            }
        });
        Self { shared, began: Instant::now(), thread: Some(thread) }
    }

    /// Waits for a look that begins after this call and satisfies `check`, which gets the ports `source`
    /// is connected from; fails with its last complaint.
    #[track_caller]
    pub fn until<T>(
        &self,
        source: IpAddr,
        what: &str,
        within: Duration,
        mut check: impl FnMut(&BTreeSet<u16>) -> Result<T, String>,
    ) -> T {
        let deadline = deadline(within);
        let none = BTreeSet::new();
        let mut seen = self.shared.lock();
        // The look under way may have begun too early.
        let first = seen.looks + 2;
        loop {
            let complaint = if seen.looks < first {
                "the table was not looked at".to_owned()
            } else {
                match check(seen.now.get(&source).unwrap_or(&none)) {
                    Ok(found) => return found,
                    Err(complaint) => complaint,
                }
            };
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {within:?}: {what}, for {source}\n{complaint}");
            let waited = self.shared.looked.wait_timeout(seen, left);
            (seen, _) = waited.expect("no panic holds it");
        }
    }

    /// The ports `source` is connected from, by the last look.
    pub fn ports(&self, source: IpAddr) -> BTreeSet<u16> {
        self.shared.lock().now.get(&source).cloned().unwrap_or_default()
    }

    /// The most connections `source` had at one time.
    pub fn peak(&self, source: IpAddr) -> usize {
        self.shared.lock().peaks.get(&source).copied().unwrap_or(0)
    }

    /// How long a look takes, on average.
    pub fn interval(&self) -> Duration {
        let looks = u32::try_from(self.shared.lock().looks).unwrap_or(u32::MAX);
        self.began.elapsed() / looks.max(1)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic holds it")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
