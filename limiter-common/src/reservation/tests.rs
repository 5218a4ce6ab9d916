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

/// One that waits, of a source, and how it is marked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiter {
    source: usize,
    marks: WaitMarks,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    New,
    Release,
    Wait,
    Try,
    Leave,
    WaitOn(Reason),
    Miss,
}

fn any_turn() -> impl Strategy<Value = (Turn, usize)> {
    let turn = prop_oneof![
        4 => Just(Turn::New),
        3 => Just(Turn::Release),
        4 => Just(Turn::Wait),
        3 => Just(Turn::Try),
        1 => Just(Turn::Leave),
        1 => Just(Turn::Miss),
        2 => prop::sample::select(&[Reason::Network, Reason::Total, Reason::Concurrency, Reason::Rate])
            .prop_map(Turn::WaitOn),
    ];
    (turn, 0usize..2)
}

fn marked(waiters: &[Waiter], tier: Tier, source: Option<usize>) -> u32 {
    let of =
        |waiter: &&Waiter| waiter.marks.is_in(tier) && source.is_none_or(|source| waiter.source == source);
    waiters.iter().filter(of).count() as u32
}

proptest! {
    /// Whatever happens in whatever order: a newcomer gets no place that is kept for somebody; who waits gets in exactly
    /// where there is a place that is kept for nobody else; and what the counts say is what there is.
    ///
    /// The law: what is kept for those who wait is never more than they could have as connections. Of a service no
    /// more places than it has; of those, for a network no more than it may have beside its connections; of a network that
    /// is full, no more than it has; for one that has missed its turn, none. A waiter that comes is kept a place only
    /// where its source may have one more, beside its connections and all of it that wait.
    #[test]
    fn what_is_kept_for_those_who_wait_is_never_more_than_they_could_have(
        of_source in 1u32..5, of_network in 1u32..7, total in 1u32..8, most in 1u32..6, capacity in 1u32..8,
        turns in prop::collection::vec(any_turn(), 0..300),
    ) {
        let limits = Limits { source: of_source, network: of_network, total, rate: Rate::default(), ..Limits::NONE };
        let counts = Counts::default();
        let (mut connections, mut waiters) = ([0_u32; 2], Vec::<Waiter>::new());
        for (turn, source) in turns {
            let words = counts.words(source, true);
            let both = connections[0] + connections[1];
            let mine = waiters.iter().filter(|waiter| waiter.source == source).count() as u32;
            // What is kept for others than one with these marks.
            let expected = |marks: WaitMarks| {
                let kept = |tier| if marks.is_in(tier) { 0 } else { marked(&waiters, tier, None) };
                if connections[source] + if marks.is_none() { mine } else { 0 } >= of_source {
                    Outcome::Full(Reason::Concurrency)
                } else if both + kept(Tier::Network) >= of_network {
                    Outcome::Full(Reason::Network)
                } else if both + kept(Tier::Total) >= total {
                    Outcome::Full(Reason::Total)
                } else {
                    Outcome::Taken
                }
            };
            let at = waiters.iter().position(|waiter| waiter.source == source);
            match turn {
                Turn::New => {
                    let expected = expected(WaitMarks::NONE);
                    prop_assert_eq!(reserve(&words, &limits, 0, Arrival::NEW), expected);
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
                    // As the gate looks at what is in the way.
                    let waits_for = match expected(WaitMarks::NONE) {
                        Outcome::Full(reason) => reason,
                        _ => Reason::Concurrency,
                    };
                    match wait(&words, &limits, waits_for, most, capacity) {
                        Wait::Waits(marks) => {
                            prop_assert!(mine < most && (waiters.len() as u32) < capacity);
                            prop_assert!(marks == WaitMarks::IN_SOURCE || marks == WaitMarks::of(waits_for));
                            let is_kept_one = marks != WaitMarks::IN_SOURCE;
                            prop_assert!(!is_kept_one || connections[source] + mine < of_source);
                            waiters.push(Waiter { source, marks });
                        }
                        Wait::SourceFull => prop_assert!(mine >= most),
                        Wait::ListenerFull => prop_assert!(waiters.len() as u32 >= capacity),
                        Wait::Again => prop_assert!(false, "nobody else was there"),
                    }
                }
                Turn::Try => {
                    let Some(at) = at else { continue };
                    let marks = waiters[at].marks;
                    let expected = expected(marks);
                    prop_assert_eq!(reserve(&words, &limits, 0, Arrival { marks, overtakes: 0 }), expected);
                    if expected == Outcome::Taken {
                        waiters.remove(at);
                        connections[source] += 1;
                        prop_assert_eq!(commit(&words), connections[source]);
                    } else {
                        waiters[at].marks = marks.answered();
                    }
                }
                Turn::Leave => {
                    let Some(at) = at else { continue };
                    leave(&words, waiters.remove(at).marks);
                }
                Turn::Miss => {
                    let Some(at) = at else { continue };
                    waiters[at].marks = miss(&words, waiters[at].marks);
                }
                Turn::WaitOn(reason) => {
                    let Some(at) = at else { continue };
                    let from = waiters[at].marks;
                    if !from.has_missed() {
                        waiters[at].marks = wait_on(&words, &limits, from, WaitMarks::of(reason));
                        let to = [WaitMarks::IN_SOURCE, WaitMarks::of(reason)];
                        prop_assert!(to.contains(&waiters[at].marks));
                    }
                }
                Turn::Release => {}
            }
            let sum = connections[0] + connections[1];
            let expected = [
                (connections[0], marked(&waiters, Tier::Source, Some(0))),
                (connections[1], marked(&waiters, Tier::Source, Some(1))),
                (sum, marked(&waiters, Tier::Network, None)),
                (sum, marked(&waiters, Tier::Total, None)),
            ];
            for (count, expected) in counts.held().into_iter().zip(expected) {
                prop_assert_eq!((count.connections(), count.waiting()), expected);
                prop_assert_eq!(count.reserved(), 0);
            }
            prop_assert_eq!(Count(counts.waiting.load(SeqCst)).waiting(), waiters.len() as u32);
            // The law.
            let [.., (_, in_network), (_, in_total)] = expected;
            prop_assert!(in_total <= total && in_network <= of_network);
            prop_assert!(in_total == 0 || sum + in_total <= of_network, "{in_total} beside {sum}");
            let keeps = |marks: WaitMarks| marks.is_in(Tier::Network) || marks.is_in(Tier::Total);
            let late = waiters.iter().find(|waiter| waiter.marks.has_missed() && keeps(waiter.marks));
            prop_assert_eq!(late, None);
        }
    }

    /// Where nobody serves those who wait, a newcomer takes what is kept for them.
    #[test]
    fn where_nobody_serves_them_who_waits_is_overtaken(
        of_source in 1u32..5, of_network in 1u32..5, total in 1u32..5, waiting in 0u32..5,
    ) {
        let limits = Limits { source: of_source, network: of_network, total, rate: Rate::default(), ..Limits::NONE };
        let counts = Counts::default();
        for _ in 0..waiting {
            let _full = wait(&counts.words(0, true), &limits, Reason::Total, 5, 5);
        }
        let least = of_source.min(of_network).min(total);
        for _ in 0..least {
            let words = counts.words(1, true);
            prop_assert_eq!(reserve(&words, &limits, 0, Arrival::UNATTENDED), Outcome::Taken);
        }
        let reserved = reserve(&counts.words(1, true), &limits, 0, Arrival::UNATTENDED);
        prop_assert!(matches!(reserved, Outcome::Full(_)));
    }
}

/// A network that may have two of the four places of a service, with six who wait for them.
#[test]
fn a_crowd_of_one_network_keeps_no_more_of_a_service_than_the_network_may_have() {
    let limits = Limits { source: 3, network: 2, total: 4, ..Limits::NONE };
    let counts = Counts::default();
    for _ in 0..4 {
        // Of others.
        assert!(count::count(&counts.total).is_some());
    }
    let marks: Vec<_> =
        (0..6).map(|n| wait(&counts.words(n % 2, true), &limits, Reason::Total, 3, 9)).collect();
    let (kept, not) = (Wait::Waits(WaitMarks::of(Reason::Total)), Wait::Waits(WaitMarks::IN_SOURCE));
    assert_eq!(marks, [kept, kept, not, not, not, not]);
    assert_eq!(Count(counts.total.load(SeqCst)).waiting(), 2);
}
