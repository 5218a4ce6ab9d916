// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Many clients at once, in one thread: what each hears, and when.

mod caller;
mod engine;
mod record;

use std::sync::Barrier;

pub use caller::{Caller, Crowd, Manner};
pub use record::{End, Record};

use engine::Engine;
use limiter_lab::{Lab, cpu};

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
