// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Every interleaving of CPUs on the counts, by loom: reserve, commit, give back, release, collect,
//! correct, and the rate's word.
//!
//! Each model runs a few CPUs through the steps the kernel programs take, in every order in which
//! their atomic steps can follow one another. What the programs do between those steps (the kernel
//! handles one packet on one CPU without a break) is the order of the code.

mod ending;
mod waiting;

use limiter_common::{
    Count, Limits, Rate, Reason,
    count::{self, Word},
    rate,
    reservation::{self, Arrival, CountWords, Outcome},
};
use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

/// A word as loom sees it.
struct Shared(AtomicU64);

impl Shared {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    fn count(&self) -> Count {
        Count(self.0.load(SeqCst))
    }
}

impl Word for Shared {
    fn load(&self) -> u64 {
        self.0.load(SeqCst)
    }

    fn fetch_add(&self, value: u64) -> u64 {
        self.0.fetch_add(value, SeqCst)
    }

    fn compare_exchange(&self, old: u64, new: u64) -> u64 {
        self.0.compare_exchange(old, new, SeqCst, SeqCst).unwrap_or_else(|now| now)
    }
}

/// The counts of two sources of one network at one service.
struct Counts {
    source: [Shared; 2],
    due: [Shared; 2],
    network: Shared,
    total: Shared,
    waiting: Shared,
}

impl Counts {
    fn new() -> Arc<Self> {
        Arc::new(Self::zero())
    }

    fn zero() -> Self {
        let zero = || Shared::new(0);
        Self {
            source: [zero(), zero()],
            due: [zero(), zero()],
            network: zero(),
            total: zero(),
            waiting: zero(),
        }
    }

    fn words(&self, source: usize) -> CountWords<'_, Shared> {
        CountWords {
            source: &self.source[source],
            network: Some(&self.network),
            total: &self.total,
            waiting: &self.waiting,
            due: &self.due[source],
        }
    }

    fn all(&self) -> [Count; 4] {
        [&self.source[0], &self.source[1], &self.network, &self.total].map(Shared::count)
    }

    fn connections(&self) -> [u32; 4] {
        self.all().map(Count::connections)
    }

    fn reserved(&self) -> [u32; 4] {
        self.all().map(Count::reserved)
    }
}

/// No limit at all.
const NONE: Limits = Limits::NONE;

/// A handshake completes on a CPU: the gate reserves, the ledger commits. Whether it got in.
fn complete(counts: &Counts, source: usize, limits: &Limits) -> bool {
    let words = counts.words(source);
    let taken = reservation::reserve(&words, limits, 0, Arrival::NEW) == Outcome::Taken;
    if taken {
        assert_ne!(reservation::commit(&words), 0);
    }
    taken
}

#[test]
fn two_cpus_at_the_last_place_of_a_source_let_one_in() {
    loom::model(|| {
        let counts = Counts::new();
        let limits = Limits { source: 1, ..NONE };
        let other = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || complete(&counts, 0, &limits))
        };
        let here = complete(&counts, 0, &limits);
        assert_eq!(u32::from(here) + u32::from(other.join().unwrap()), 1);
        assert_eq!(counts.connections(), [1, 0, 1, 1]);
        assert_eq!(counts.reserved(), [0; 4]);
    });
}

#[test]
fn two_sources_at_the_last_place_of_their_network_or_service_let_one_in() {
    for limits in [Limits { network: 1, ..NONE }, Limits { total: 1, ..NONE }] {
        loom::model(move || {
            let counts = Counts::new();
            let other = {
                let counts = Arc::clone(&counts);
                thread::spawn(move || complete(&counts, 1, &limits))
            };
            let here = complete(&counts, 0, &limits);
            assert_eq!(u32::from(here) + u32::from(other.join().unwrap()), 1);
            assert_eq!(counts.connections()[2..], [1, 1]);
            assert_eq!(counts.reserved(), [0; 4]);
        });
    }
}

/// The counts of a source without its network, which is one like the others: with it there are a hundred
/// times as many interleavings.
fn without_network(counts: &Counts) -> CountWords<'_, Shared> {
    CountWords { network: None, ..counts.words(0) }
}

#[test]
fn a_reservation_that_comes_to_nothing_leaves_no_trace_whatever_goes_on_beside_it() {
    loom::model(|| {
        let counts = Counts::new();
        let limits = Limits { source: 2, network: 2, total: 2, rate: Rate::new(1, 1, 5), ..Limits::NONE };
        let other = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || {
                let words = without_network(&counts);
                if reservation::reserve(&words, &limits, 0, Arrival::NEW) == Outcome::Taken {
                    reservation::cancel(&words, limits.rate.interval_ns);
                }
            })
        };
        assert_eq!(
            reservation::reserve(&without_network(&counts), &limits, 0, Arrival::NEW),
            Outcome::Taken,
            "there is room for both"
        );
        assert_eq!(reservation::commit(&without_network(&counts)), 1);
        other.join().unwrap();
        assert_eq!(counts.connections(), [1, 0, 0, 1]);
        assert_eq!(counts.reserved(), [0; 4]);
        assert_eq!(counts.due[0].load(), limits.rate.interval_ns, "one handshake is paid for");
    });
}

#[test]
fn a_place_that_is_given_back_is_there_for_the_next_ack() {
    loom::model(|| {
        let counts = Counts::new();
        let limits = Limits { source: 1, ..NONE };
        assert!(complete(&counts, 0, &limits));
        let leaving = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || assert!(reservation::release(&counts.words(0))))
        };
        let here = complete(&counts, 0, &limits);
        leaving.join().unwrap();
        assert_eq!(counts.connections()[0], u32::from(here));
        assert!(here || complete(&counts, 0, &limits));
    });
}

#[test]
fn an_entry_is_never_deleted_with_something_in_it() {
    loom::model(|| {
        let counts = Counts::new();
        let limits = Limits { source: 1, ..NONE };
        let maintenance = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || count::collect(&counts.source[0]))
        };
        let let_in = complete(&counts, 0, &limits);
        let collected = maintenance.join().unwrap();
        assert!(let_in != collected, "the one or the other");
        if collected {
            assert_eq!((counts.connections(), counts.reserved()), ([0; 4], [0; 4]));
            assert_eq!(reservation::count(&counts.words(0)), None);
        }
    });
}

#[test]
fn a_network_that_is_deleted_takes_nothing_from_its_source() {
    loom::model(|| {
        let counts = Counts::new();
        let limits = Limits { network: 5, ..NONE };
        let maintenance = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || count::collect(&counts.network))
        };
        let let_in = complete(&counts, 0, &limits);
        let collected = maintenance.join().unwrap();
        assert!(let_in != collected);
        assert_eq!((counts.connections()[0], counts.reserved()[0]), (u32::from(let_in), 0));
    });
}

/// The daemon saw a count that stood still and was wrong; the correction goes through only if it still
/// is what was seen.
#[test]
fn a_correction_never_undoes_what_came_or_went_meanwhile() {
    for leaves in [false, true] {
        loom::model(move || {
            // Two are counted, and one is there.
            let word = Arc::new(Shared::new(2));
            let corrector = {
                let word = Arc::clone(&word);
                thread::spawn(move || word.compare_exchange(2, 1) == 2)
            };
            if leaves {
                assert!(count::release(&*word));
            } else {
                assert_eq!(count::reserve(&*word, 9, count::Turn::NEW), count::Reserved::Taken);
                assert_ne!(count::commit(&*word), 0);
            }
            let corrected = corrector.join().unwrap();
            let right = if leaves { 0 } else { 2 };
            assert_eq!(word.count(), Count(right + u64::from(!corrected)));
        });
    }
}

#[test]
fn two_handshakes_pay_twice_or_one_waits() {
    for burst in [1, 2] {
        loom::model(move || {
            let rate = Rate::new(1, 1, burst);
            let due = Arc::new(Shared::new(0));
            let other = {
                let due = Arc::clone(&due);
                thread::spawn(move || rate::pay(&*due, &rate, 0).unwrap())
            };
            let here = rate::pay(&*due, &rate, 0).unwrap();
            let paid = u64::from(here) + u64::from(other.join().unwrap());
            assert_eq!(paid, u64::from(burst));
            assert_eq!(due.load(), paid * rate.interval_ns);
        });
    }
}

#[test]
fn a_full_service_is_the_reason_whoever_asks() {
    loom::model(|| {
        let counts = Counts::new();
        let limits = Limits { source: 5, network: 5, total: 1, rate: Rate::default(), ..Limits::NONE };
        assert!(complete(&counts, 0, &limits));
        let ask = move |counts: &Counts, source| {
            reservation::reserve(&counts.words(source), &limits, 0, Arrival::NEW)
        };
        let other = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || ask(&counts, 1))
        };
        assert_eq!(ask(&counts, 0), Outcome::Full(Reason::Total));
        assert_eq!(other.join().unwrap(), Outcome::Full(Reason::Total));
        assert_eq!(counts.reserved(), [0; 4]);
    });
}
