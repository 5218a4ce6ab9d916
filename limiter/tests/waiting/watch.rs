// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The limit, held against the kernel's own socket table, again and again.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::sockets::{COUNTED, Sockets};
use crate::support::Lab;

/// Between two looks: the machine has other work, and a connection lasts for longer.
const PAUSE: Duration = Duration::from_millis(2);

/// For each source, the sets of its connections that existed at one time, where there were enough of them.
type Crowds = HashMap<IpAddr, Vec<Vec<u64>>>;

#[derive(Default)]
struct Seen {
    crowds: Crowds,
    stall: Duration,
}

/// A thread that looks until this is dropped.
pub struct Watch {
    done: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the connections to `port`; remembers those of sources that have `limit` of them or more.
    ///
    /// The table is read piece by piece, while connections come and go: one reading may show more than ever
    /// were at one time. But what is in two readings in a row was there in between, all of it.
    pub fn start(lab: &Lab, port: u16, limit: usize) -> Self {
        let (done, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let mut sockets = Sockets::of(lab);
        let (their_end, theirs) = (Arc::clone(&done), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let mut before = HashSet::new();
            let mut last = Instant::now();
            while !their_end.load(Ordering::Relaxed) {
                let table: Vec<(IpAddr, u64)> = sockets
                    .connections(port, &COUNTED)
                    .into_iter()
                    .map(|connection| (connection.remote.ip(), u64::from_ne_bytes(connection.cookie)))
                    .collect();
                let mut lasting: HashMap<IpAddr, Vec<u64>> = HashMap::new();
                for (source, cookie) in table.iter().filter(|(_, cookie)| before.contains(cookie)) {
                    lasting.entry(*source).or_default().push(*cookie);
                }
                let mut seen = theirs.lock().expect("no panic holds it");
                for (source, mut crowd) in lasting.into_iter().filter(|(_, crowd)| crowd.len() >= limit) {
                    crowd.sort_unstable();
                    let known = seen.crowds.entry(source).or_default();
                    if known.last() != Some(&crowd) {
                        known.push(crowd);
                    }
                }
                seen.stall = seen.stall.max(last.elapsed());
                drop(seen);
                last = Instant::now();
                before = table.into_iter().map(|(_, cookie)| cookie).collect();
                std::thread::sleep(PAUSE);
            }
        });
        Self { done, seen, thread: Some(thread) }
    }

    /// The longest time between two looks: for so long this machine lets a thread wait that has little to do.
    pub fn stall(&self) -> Duration {
        self.seen.lock().expect("no panic holds it").stall
    }

    /// The most connections that `server` had of `source` at one time, or 0 if that was below the limit. The
    /// limiter's own, in which it says no, are not the server's.
    pub fn peak(&self, source: IpAddr, server: &Server) -> usize {
        let accepted = server.cookies();
        let seen = self.seen.lock().expect("no panic holds it");
        let of_it = |crowd: &Vec<u64>| crowd.iter().filter(|cookie| accepted.contains(cookie)).count();
        seen.crowds.get(&source).and_then(|known| known.iter().map(of_it).max()).unwrap_or(0)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
