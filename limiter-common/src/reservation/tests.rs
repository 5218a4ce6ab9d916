// SPDX-License-Identifier: GPL-2.0-only OR MIT
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{Count, Rate};

const SECOND: u64 = 1_000_000_000;

/// Two sources of one network at one service.
#[derive(Default)]
struct Counts {
    source: [AtomicU64; 2],
    due: [AtomicU64; 2],
    network: AtomicU64,
    total: AtomicU64,
    waiting: AtomicU64,
}

impl Counts {
    fn words(&self, source: usize, with_network: bool) -> CountWords<'_, AtomicU64> {
        CountWords {
            source: &self.source[source],
            network: with_network.then_some(&self.network),
            total: &self.total,
            waiting: &self.waiting,
            due: &self.due[source],
        }
    }

    fn held(&self) -> [Count; 4] {
        [&self.source[0], &self.source[1], &self.network, &self.total].map(|word| Count(word.load(SeqCst)))
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Reserve,
    Count,
    Commit,
    Cancel,
    Release,
}

fn any_step() -> impl Strategy<Value = (Step, usize)> {
    let step = prop::sample::select(&[Step::Reserve, Step::Count, Step::Commit, Step::Cancel, Step::Release]);
    (step, 0usize..2)
}

proptest! {
    /// Whatever happens in whatever order: each count holds what its connections and reservations are,
    /// a reservation is taken exactly when there is room in all three, and the rate is paid by what was
    /// not given back.
    #[test]
    fn all_counts_are_taken_or_none(
        of_source in 1u32..6, of_network in 1u32..8, total in 1u32..10, with_network: bool,
        steps in prop::collection::vec(any_step(), 0..300),
    ) {
        let limits = Limits { source: of_source, network: of_network, total, rate: Rate::new(1, 1, 1000), ..Limits::NONE };
        let counts = Counts::default();
        let (mut connections, mut reserved, mut paid) = ([0_u32; 2], [0_u32; 2], [0_u64; 2]);
        for (step, source) in steps {
            let words = counts.words(source, with_network);
            let held = |source: usize| connections[source] + reserved[source];
            let both = held(0) + held(1);
            match step {
                Step::Reserve => {
                    let expected = if held(source) >= of_source {
                        Outcome::Full(Reason::Concurrency)
                    } else if with_network && both >= of_network {
                        Outcome::Full(Reason::Network)
                    } else if both >= total {
                        Outcome::Full(Reason::Total)
                    } else {
                        Outcome::Taken
                    };
                    prop_assert_eq!(reserve(&words, &limits, SECOND, Arrival::NEW), expected);
                    if expected == Outcome::Taken {
                        reserved[source] += 1;
                        paid[source] += 1;
                    }
                }
                Step::Count => {
                    connections[source] += 1;
                    prop_assert_eq!(count(&words), Some(connections[source]));
                }
                Step::Commit if reserved[source] > 0 => {
                    reserved[source] -= 1;
                    connections[source] += 1;
                    prop_assert_eq!(commit(&words), connections[source]);
                }
                Step::Cancel if reserved[source] > 0 => {
                    reserved[source] -= 1;
                    paid[source] -= 1;
                    cancel(&words, limits.rate.interval_ns);
                }
                Step::Release if connections[source] > 0 => {
                    connections[source] -= 1;
                    prop_assert!(release(&words));
                }
                Step::Commit | Step::Cancel | Step::Release => {}
            }
            let sum = |of: [u32; 2]| of[0] + of[1];
            let expected = [
                (connections[0], reserved[0]),
                (connections[1], reserved[1]),
                if with_network { (sum(connections), sum(reserved)) } else { (0, 0) },
                (sum(connections), sum(reserved)),
            ];
            for (count, expected) in counts.held().into_iter().zip(expected) {
                prop_assert_eq!((count.connections(), count.reserved()), expected);
            }
            for (due, paid) in counts.due.iter().zip(paid) {
                prop_assert_eq!(due.load(SeqCst).saturating_sub(SECOND), paid * SECOND);
            }
        }
    }
}

#[test]
fn a_rate_that_is_used_up_holds_no_place() {
    let counts = Counts::default();
    let limits = Limits { source: 5, network: 5, total: 5, rate: Rate::new(1, 1, 2), ..Limits::NONE };
    let words = counts.words(0, true);
    let outcomes: Vec<_> = (0..3).map(|_| reserve(&words, &limits, 9 * SECOND, Arrival::NEW)).collect();
    assert_eq!(outcomes, [Outcome::Taken, Outcome::Taken, Outcome::Full(Reason::Rate)]);
    assert_eq!(counts.held().map(Count::reserved), [2, 0, 2, 2]);
    assert_eq!(
        reserve(&words, &limits, 10 * SECOND, Arrival::NEW),
        Outcome::Taken,
        "a second later there is one more"
    );
}

#[test]
fn an_entry_that_is_being_deleted_takes_nothing_and_leaves_nothing() {
    let limits = Limits { source: 5, network: 5, total: 5, rate: Rate::default(), ..Limits::NONE };
    for collected in ["of_source", "of_network"] {
        let counts = Counts::default();
        let word = if collected == "of_source" { &counts.source[0] } else { &counts.network };
        assert!(count::collect(word));
        let words = counts.words(0, true);
        assert_eq!(reserve(&words, &limits, 0, Arrival::NEW), Outcome::Again, "{collected}");
        assert_eq!(count(&words), None, "{collected}");
        let left = counts.held().map(|count| count.connections() + count.reserved());
        assert_eq!(left, [0; 4], "{collected}");
    }
}

#[test]
fn a_release_too_many_is_told_whichever_count_it_is() {
    let counts = Counts::default();
    let words = counts.words(0, true);
    assert_eq!(count(&words), Some(1));
    assert!(count::release(words.network.unwrap()));
    assert!(!release(&words));
    assert_eq!(counts.held(), [Count(0); 4]);
}

/// One that waits, of a source, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiter {
    source: usize,
    waits_for: Reason,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    New { overtakes: bool },
    Release,
    Wait,
    Try { overtakes: bool },
    Leave,
    WaitOn(Reason),
}

fn any_turn() -> impl Strategy<Value = (Turn, usize)> {
    let turn = prop_oneof![
        4 => prop::bool::weighted(0.2).prop_map(|overtakes| Turn::New { overtakes }),
        3 => Just(Turn::Release),
        3 => Just(Turn::Wait),
        3 => prop::bool::weighted(0.2).prop_map(|overtakes| Turn::Try { overtakes }),
        1 => Just(Turn::Leave),
        1 => prop::sample::select(&[Reason::Network, Reason::Total, Reason::Concurrency, Reason::Rate])
            .prop_map(Turn::WaitOn),
    ];
    (turn, 0usize..2)
}

proptest! {
    /// Whatever happens in whatever order: a newcomer gets no place that somebody waits for, unless nobody serves
    /// those; who waits gets in exactly where there is a place, and is marked where it waits and nowhere else.
    #[test]
    fn who_waits_is_marked_where_it_waits_and_overtaken_only_where_nobody_serves_it(
        of_source in 1u32..5, of_network in 1u32..7, total in 1u32..8, most in 1u32..4, capacity in 1u32..6,
        turns in prop::collection::vec(any_turn(), 0..200),
    ) {
        let limits = Limits { source: of_source, network: of_network, total, rate: Rate::default(), ..Limits::NONE };
        let counts = Counts::default();
        let (mut connections, mut waiters) = ([0_u32; 2], Vec::<Waiter>::new());
        for (turn, source) in turns {
            let words = counts.words(source, true);
            let both = connections[0] + connections[1];
            let marked = |waiters: &[Waiter], of: fn(&Waiter) -> bool| waiters.iter().filter(|w| of(w)).count() as u32;
            let mine = waiters.iter().filter(|waiter| waiter.source == source).count() as u32;
            let network_marks = marked(&waiters, |waiter| waiter.waits_for == Reason::Network);
            let total_marks = marked(&waiters, |waiter| waiter.waits_for == Reason::Total);
            // What is kept free for others, if anything is.
            let expected = |own: u32, in_network: u32, in_total: u32| {
                if connections[source] + own >= of_source {
                    Outcome::Full(Reason::Concurrency)
                } else if both + in_network >= of_network {
                    Outcome::Full(Reason::Network)
                } else if both + in_total >= total {
                    Outcome::Full(Reason::Total)
                } else {
                    Outcome::Taken
                }
            };
            match turn {
                Turn::New { overtakes } => {
                    let kept = u32::from(!overtakes);
                    let expected = expected(mine * kept, network_marks * kept, total_marks * kept);
                    let arrival = Arrival { overtakes: u64::from(overtakes), ..Arrival::NEW };
                    prop_assert_eq!(reserve(&words, &limits, 0, arrival), expected);
                    if expected == Outcome::Taken {
                        connections[source] += 1;
                        prop_assert_eq!(commit(&words), connections[source]);
                    }
                }
                Turn::Release if connections[source] > 0 => {
                    connections[source] -= 1;
                    prop_assert!(release(&words));
                }
                Turn::Wait => {
                    let waits_for = match expected(0, 0, 0) {
                        Outcome::Full(reason) => reason,
                        _ => Reason::Concurrency,
                    };
                    let expected = if mine >= most {
                        Wait::SourceFull
                    } else if waiters.len() as u32 >= capacity {
                        Wait::ListenerFull
                    } else {
                        Wait::Waits
                    };
                    prop_assert_eq!(wait(&words, WaitMarks::of(waits_for), most, capacity), expected);
                    if expected == Wait::Waits {
                        waiters.push(Waiter { source, waits_for });
                    }
                }
                Turn::Try { overtakes } => {
                    let Some(at) = waiters.iter().position(|waiter| waiter.source == source) else { continue };
                    let waits_for = waiters[at].waits_for;
                    let kept = |reason, marks| if overtakes || waits_for == reason { 0 } else { marks };
                    let expected =
                        expected(0, kept(Reason::Network, network_marks), kept(Reason::Total, total_marks));
                    let arrival = Arrival { marks: WaitMarks::of(waits_for), overtakes: u64::from(overtakes) };
                    prop_assert_eq!(reserve(&words, &limits, 0, arrival), expected);
                    if expected == Outcome::Taken {
                        waiters.remove(at);
                        connections[source] += 1;
                        prop_assert_eq!(commit(&words), connections[source]);
                    }
                }
                Turn::Leave => {
                    let Some(at) = waiters.iter().position(|waiter| waiter.source == source) else { continue };
                    leave(&words, WaitMarks::of(waiters.remove(at).waits_for));
                }
                Turn::WaitOn(reason) => {
                    let Some(waiter) = waiters.iter_mut().find(|waiter| waiter.source == source) else { continue };
                    prop_assert!(wait_on(&words, WaitMarks::of(waiter.waits_for), WaitMarks::of(reason)));
                    waiter.waits_for = reason;
                }
                Turn::Release => {}
            }
            let of = |source| waiters.iter().filter(|waiter| waiter.source == source).count() as u32;
            let expected = [
                (connections[0], of(0)),
                (connections[1], of(1)),
                (connections[0] + connections[1], marked(&waiters, |waiter| waiter.waits_for == Reason::Network)),
                (connections[0] + connections[1], marked(&waiters, |waiter| waiter.waits_for == Reason::Total)),
            ];
            for (count, expected) in counts.held().into_iter().zip(expected) {
                prop_assert_eq!((count.connections(), count.waiting()), expected);
                prop_assert_eq!(count.reserved(), 0);
            }
            prop_assert_eq!(Count(counts.waiting.load(SeqCst)).waiting(), waiters.len() as u32);
        }
    }
}
