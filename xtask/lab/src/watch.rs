// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Looks at a host's socket table again and again, and remembers the most connections that there were at one time.
#![expect(clippy::expect_used, reason = "the test fails, and says where")]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sock_diag::{COUNTED, Sockets};
use crate::{Namespace, SOON, deadline, let_time_pass};

/// Sets of connections, by their cookies, that existed at one time.
type Crowds = Vec<Vec<u64>>;

#[derive(Default)]
struct Seen {
    looks: u64,
    /// The ports each source is connected from, by the last look.
    now: HashMap<IpAddr, BTreeSet<u16>>,
    /// Of each source, where there were enough of them.
    crowds: HashMap<IpAddr, Crowds>,
    stall: Duration,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    looked: Condvar,
    done: AtomicBool,
}

/// A thread that looks until this is dropped.
///
/// The table is read piece by piece, while connections come and go: one reading may show more than ever were at one
/// time. But what is in two readings in a row was there in between, all of it: of that the peaks are taken.
pub struct Watch {
    shared: Arc<Shared>,
    began: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the connections to `port` without a pause; remembers those of sources that have `limit` of them or more.
    pub fn start(host: &Namespace, port: u16, limit: usize) -> Self {
        Self::every(Duration::ZERO, host, port, limit)
    }

    /// The same with a pause between two looks, which leaves the machine to others.
    pub fn every(pause: Duration, host: &Namespace, port: u16, limit: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let mut sockets = Sockets::of(host);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut before = HashSet::new();
            let mut last = Instant::now();
            while !theirs.done.load(Ordering::Relaxed) {
                let table = sockets.connections(port, &COUNTED);
                let mut now: HashMap<IpAddr, BTreeSet<u16>> = HashMap::new();
                let mut lasting: HashMap<IpAddr, Vec<u64>> = HashMap::new();
                for connection in &table {
                    let (source, cookie) = (connection.remote.ip(), u64::from_ne_bytes(connection.cookie));
                    now.entry(source).or_default().insert(connection.remote.port());
                    if before.contains(&cookie) {
                        lasting.entry(source).or_default().push(cookie);
                    }
                }
                before = table.into_iter().map(|connection| u64::from_ne_bytes(connection.cookie)).collect();
                theirs.lock().note(now, lasting, limit, last.elapsed());
                theirs.looked.notify_all();
                last = Instant::now();
                if !pause.is_zero() {
                    let_time_pass(pause, "the machine has other work between two looks");
                }
            }
        });
        Self { shared, began: Instant::now(), thread: Some(thread) }
    }

    /// Waits for a look that begins after this call and satisfies `check`, which gets the ports `source` is connected
    /// from; fails with its last complaint.
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

    /// Waits until what is there now has been looked at, twice: it is in the peaks.
    #[track_caller]
    pub fn sees(&self, source: IpAddr) {
        // The second of the two begins when the first has ended.
        for _ in 0..2 {
            self.until(source, "the socket table is looked at", SOON, |_| Ok(()));
        }
    }

    /// The ports `source` is connected from, by the last look.
    pub fn ports(&self, source: IpAddr) -> BTreeSet<u16> {
        self.shared.lock().now.get(&source).cloned().unwrap_or_default()
    }

    /// The most connections `source` had at one time, or 0 if that was below the limit.
    pub fn peak(&self, source: IpAddr) -> usize {
        self.peak_of(source, |_| true)
    }

    /// The same of those whose cookies a server has accepted: the limiter's own, in which it says no, are not the
    /// server's.
    pub fn peak_of(&self, source: IpAddr, accepted: impl Fn(&u64) -> bool) -> usize {
        let seen = self.shared.lock();
        let of_it = |crowd: &Vec<u64>| crowd.iter().filter(|cookie| accepted(cookie)).count();
        seen.crowds.get(&source).and_then(|known| known.iter().map(of_it).max()).unwrap_or(0)
    }

    /// How long a look takes, on average.
    pub fn interval(&self) -> Duration {
        let looks = u32::try_from(self.shared.lock().looks).unwrap_or(u32::MAX);
        self.began.elapsed() / looks.max(1)
    }

    /// The longest time between two looks: for so long this machine lets a thread wait that has little to do.
    pub fn stall(&self) -> Duration {
        self.shared.lock().stall
    }
}

impl Seen {
    fn note(
        &mut self,
        now: HashMap<IpAddr, BTreeSet<u16>>,
        lasting: HashMap<IpAddr, Vec<u64>>,
        limit: usize,
        took: Duration,
    ) {
        for (source, mut crowd) in lasting.into_iter().filter(|(_, crowd)| crowd.len() >= limit) {
            crowd.sort_unstable();
            let known = self.crowds.entry(source).or_default();
            if known.last() != Some(&crowd) {
                known.push(crowd);
            }
        }
        self.now = now;
        self.looks += 1;
        self.stall = self.stall.max(took);
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
            let _ended_by_a_panic = thread.join();
        }
    }
}
