// SPDX-License-Identifier: GPL-2.0-only OR MIT
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::{sync::Arc, thread, vec::Vec};

use proptest::prelude::*;

use super::*;

impl Word for AtomicU64 {
    fn load(&self) -> u64 {
        Self::load(self, SeqCst)
    }
    fn fetch_add(&self, value: u64) -> u64 {
        Self::fetch_add(self, value, SeqCst)
    }
    fn compare_exchange(&self, old: u64, new: u64) -> u64 {
        Self::compare_exchange(self, old, new, SeqCst, SeqCst).unwrap_or_else(|now| now)
    }
}

fn now(word: &AtomicU64) -> Count {
    Count(Word::load(word))
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Reserve,
    Commit,
    Cancel,
    Release,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![Just(Step::Reserve), Just(Step::Commit), Just(Step::Cancel), Just(Step::Release)]
}

proptest! {
    #[test]
    fn no_order_of_steps_gets_over_the_limit_or_loses_a_place(
        limit in 1u32..20,
        steps in proptest::collection::vec(any_step(), 0..300),
    ) {
        let word = AtomicU64::new(0);
        let (mut connections, mut reserved) = (0, 0);
        for step in steps {
            match step {
                Step::Reserve => {
                    let taken = reserve(&word, limit, Turn::NEW) == Reserved::Taken;
                    prop_assert_eq!(taken, connections + reserved < limit);
                    reserved += u32::from(taken);
                }
                Step::Commit if reserved > 0 => {
                    reserved -= 1;
                    connections += 1;
                    prop_assert_eq!(commit(&word), connections);
                }
                Step::Cancel if reserved > 0 => {
                    reserved -= 1;
                    cancel(&word);
                }
                Step::Release => {
                    prop_assert_eq!(release(&word), connections > 0);
                    connections = connections.saturating_sub(1);
                }
                Step::Commit | Step::Cancel => {}
            }
            prop_assert_eq!(now(&word).connections(), connections);
            prop_assert_eq!(now(&word).reserved(), reserved);
            prop_assert!(connections + reserved <= limit);
        }
    }

    #[test]
    fn only_an_unused_word_is_collected(connections in 0u32..5, reserved in 0u32..5) {
        let word = AtomicU64::new(u64::from(reserved) << 32 | u64::from(connections));
        let unused = connections == 0 && reserved == 0;
        prop_assert_eq!(collect(&word), unused);
        prop_assert!(!collect(&word));
        if unused {
            prop_assert_eq!(reserve(&word, 8, Turn::NEW), Reserved::Collected);
            prop_assert_eq!(count(&word), None);
            prop_assert!(!release(&word));
            prop_assert_eq!(now(&word), Count::COLLECTED);
            prop_assert_eq!(now(&word).connections(), 0);
        }
    }
}

#[test]
fn a_snapshot_is_what_it_is_made_of() {
    let count = Count(3 * WAITING + 2 * RESERVED + 5);
    assert_eq!((count.connections(), count.reserved(), count.waiting()), (5, 2, 3));
    assert_eq!((count.taken(), count.wanted()), (7, 10));
    assert_eq!(count.without_waiting(), Count(2 * RESERVED + 5));
    assert_eq!(count.with_connections(9), Count(3 * WAITING + 2 * RESERVED + 9));
    assert_eq!(Count::COLLECTED.without_waiting(), Count::COLLECTED);
    assert!(count.has_room(8, Turn::WAITED) && !count.has_room(7, Turn::WAITED));
    assert!(count.has_room(11, Turn::NEW) && !count.has_room(10, Turn::NEW));
}

#[test]
fn a_lowered_limit_admits_nobody_until_there_is_room() {
    let word = AtomicU64::new(8);
    assert_eq!(reserve(&word, 3, Turn::NEW), Reserved::Full);
    for _ in 0..6 {
        assert!(release(&word));
    }
    assert_eq!(reserve(&word, 3, Turn::NEW), Reserved::Taken);
    assert_eq!(reserve(&word, 3, Turn::NEW), Reserved::Full);
}

#[test]
fn a_release_too_many_is_reported_and_changes_nothing() {
    let word = AtomicU64::new(RESERVED);
    assert!(!release(&word));
    assert_eq!(now(&word), Count(RESERVED));
}

#[test]
fn threads_racing_for_the_last_places_never_take_one_too_many() {
    const LIMIT: u32 = 3;
    let word = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let word = Arc::clone(&word);
            thread::spawn(move || {
                let mut taken = 0_u32;
                for round in 0..50_000 {
                    if reserve(&*word, LIMIT, Turn::NEW) == Reserved::Taken {
                        if round % 3 == 0 {
                            cancel(&*word);
                        } else {
                            assert!(commit(&*word) <= LIMIT);
                            assert!(release(&*word));
                        }
                        taken += 1;
                    }
                    assert!(now(&word).connections() <= LIMIT);
                }
                taken
            })
        })
        .collect();
    let taken: u32 = threads.into_iter().map(|t| t.join().unwrap()).sum();
    assert!(taken > 0);
    assert_eq!(now(&word), Count(0));
}
