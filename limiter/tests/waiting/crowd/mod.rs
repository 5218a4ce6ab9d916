// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Many clients at once, in one thread: what each hears, and when.

mod engine;
mod record;

use std::net::{IpAddr, SocketAddr};
use std::sync::Barrier;
use std::time::{Duration, Instant};

pub use record::{End, Record};

use engine::Engine;
use limiter_lab::link::Link;
use limiter_lab::{Lab, cpu};

/// What a client does; times are from its SYN, and count only until it has heard something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Waits for what comes, stays for its `stay` if it is served, and closes.
    Stays,
    /// Closes with a FIN.
    Closes(Duration),
    /// Closes with a reset.
    Resets(Duration),
    /// Nothing passes from it or to it any more. Takes a link.
    Vanishes(Duration),
    /// Completes the handshake, and sends nothing ever again. Takes a link.
    NeverAnswers,
}

/// One client.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub source: IpAddr,
    pub to: SocketAddr,
    pub manner: Manner,
    /// How long it stays if it is served.
    pub stay: Duration,
}

impl Caller {
    /// `n` clients at `source` that wait for what comes.
    pub fn crowd(n: usize, source: IpAddr, to: SocketAddr, stay: Duration) -> Vec<Self> {
        vec![Self { source, to, manner: Manner::Stays, stay }; n]
    }
}

/// Clients that connect at once, in this order.
pub struct Crowd<'a> {
    pub callers: Vec<Caller>,
    /// How long each waits for a first word before it takes the silence for an answer.
    pub patience: Duration,
    /// Until then each client connects again at once, whatever it got.
    pub again: Option<Instant>,
    pub link: Option<&'a Link>,
}

impl Crowd<'_> {
    /// Lets all of them connect from the client host, and waits until the last is done; what each connection
    /// came to, in the order in which they ended.
    pub fn call(&self, lab: &Lab) -> Vec<Record> {
        lab.client.run(|| self.call_here())
    }

    /// The same from all CPUs at once: each has its share of the clients, and handles what they send and hear.
    pub fn call_on_all_cpus(&self, lab: &Lab) -> Vec<Record> {
        let cpus = cpu::allowed().expect("the kernel tells");
        let start = Barrier::new(cpus.len());
        std::thread::scope(|scope| {
            let share = |(nth, cpu): (usize, usize)| {
                let start = &start;
                let mine = self.callers.iter().skip(nth).step_by(cpus.len());
                let share = Self { callers: mine.copied().collect(), ..*self };
                let of_all = cpus.len();
                scope.spawn(move || {
                    cpu::bind_to(&[cpu]).expect("it is one of those allowed");
                    lab.client.enter();
                    start.wait();
                    let mut records = share.call_here();
                    for record in &mut records {
                        record.who = nth + record.who * of_all;
                    }
                    records
                })
            };
            let shares: Vec<_> = cpus.iter().copied().enumerate().map(share).collect();
            shares.into_iter().flat_map(|share| share.join().expect("a crowd does not fail")).collect()
        })
    }

    fn call_here(&self) -> Vec<Record> {
        Engine::new(self).run()
    }
}
