// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Waiters: what the gate does on one CPU while it does the same on another, and the usher on a third.
//!
//! The programs hold a record in hand while they look at more of it than its word. A cell that loom watches
//! stands for all of that: two that had it in hand at once would be found.

use limiter_common::{
    Limits, Reason,
    count::{self, Word as _},
    reservation::{self, Arrival, Outcome, Wait, WaitMarks},
    waiting::{self, State},
};
use loom::{cell::UnsafeCell, sync::Arc, thread};

use super::{Counts, NONE, Shared};

/// Of one source at one service, and one handshake of it that was held back.
struct Waiting {
    counts: Counts,
    record: Shared,
    /// [`limiter_common::Waiter::marks`].
    marks: UnsafeCell<WaitMarks>,
}

const NUMBER: u64 = 7;
const CAPACITY: u32 = 9;

impl Waiting {
    /// One place of one, which is taken, and one handshake that waits in this `state`.
    fn new(state: State) -> Arc<Self> {
        let waiting = Self {
            counts: Counts::zero(),
            record: Shared::new(waiting::word(NUMBER, state)),
            marks: UnsafeCell::new(WaitMarks::IN_SOURCE),
        };
        let words = waiting.counts.words(0);
        assert_eq!(reservation::count(&words), Some(1));
        assert_eq!(
            reservation::wait(&words, &LIMITS, Reason::Concurrency, CAPACITY, CAPACITY),
            Wait::Waits(WaitMarks::IN_SOURCE)
        );
        Arc::new(waiting)
    }

    /// As `again` of limiter-ebpf: whether the ACK of the handshake gets in.
    fn ack(&self, overtakes: u64) -> bool {
        let seen = self.record.load();
        if !waiting::may_try(seen as u8, overtakes == 0) || !waiting::take_in_hand(&self.record, seen) {
            return false;
        }
        let words = self.counts.words(0);
        let marks = self.marks.with(|marks| {
            // SAFETY: in hand.
            unsafe { *marks }
        });
        let arrival = Arrival { marks, overtakes };
        if reservation::reserve(&words, &LIMITS, 0, arrival) == Outcome::Taken {
            // The record is removed, and with it goes who holds it.
            assert_ne!(reservation::commit(&words), 0);
            return true;
        }
        waiting::put_back(&self.record, seen, State::Waiting as u8);
        false
    }

    /// As `reset` of limiter-ebpf, or the usher's `FORGET`: whether it was taken away.
    fn take_away(&self) -> bool {
        let seen = self.record.load();
        if !waiting::take_in_hand(&self.record, seen) {
            return false;
        }
        self.stop_waiting();
        true
    }

    /// As the usher's `TELL`: whether it is to be told.
    fn tell(&self) -> bool {
        let seen = self.record.load();
        if !matches!(waiting::state(seen), Some(State::Waiting)) || !waiting::take_in_hand(&self.record, seen)
        {
            return false;
        }
        self.stop_waiting();
        waiting::put_back(&self.record, seen, State::Told as u8);
        true
    }

    /// As the usher's `REVOKE`: whether its turn is over.
    fn revoke(&self) -> bool {
        let seen = self.record.load();
        if !matches!(waiting::state(seen), Some(State::Granted)) || !waiting::take_in_hand(&self.record, seen)
        {
            return false;
        }
        self.marks.with_mut(|marks| {
            // SAFETY: in hand.
            let marks = unsafe { &mut *marks };
            *marks = reservation::miss(&self.counts.words(0), *marks);
        });
        waiting::put_back(&self.record, seen, State::Waiting as u8);
        true
    }

    fn stop_waiting(&self) {
        self.marks.with_mut(|marks| {
            // SAFETY: in hand.
            let marks = unsafe { &mut *marks };
            reservation::leave(&self.counts.words(0), *marks);
            *marks = WaitMarks::NONE;
        });
    }

    fn waiting(&self) -> [u32; 4] {
        self.counts.all().map(limiter_common::Count::waiting)
    }
}

const LIMITS: Limits = Limits { source: 1, ..NONE };

/// A newcomer whose handshake completes while the place that somebody waits for comes free.
#[test]
fn nobody_overtakes_one_that_waits() {
    loom::model(|| {
        let waiting = Waiting::new(State::Granted);
        let leaving = {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || assert!(reservation::release(&waiting.counts.words(0))))
        };
        let newcomer = reservation::reserve(&waiting.counts.words(0), &LIMITS, 0, Arrival::NEW);
        assert_eq!(newcomer, Outcome::Full(Reason::Concurrency));
        leaving.join().unwrap();
        assert!(waiting.ack(0));
        assert_eq!((waiting.counts.connections()[0], waiting.waiting()), (1, [0; 4]));
    });
}

#[test]
fn two_acks_of_one_that_waits_let_it_in_once() {
    loom::model(|| {
        let waiting = Waiting::new(State::Granted);
        assert!(reservation::release(&waiting.counts.words(0)));
        let other = {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || waiting.ack(0))
        };
        let here = waiting.ack(0);
        assert!(here != other.join().unwrap());
        assert_eq!((waiting.counts.connections(), waiting.waiting()), ([1, 0, 1, 1], [0; 4]));
    });
}

#[test]
fn one_that_waits_gets_in_or_is_told_and_never_both() {
    loom::model(|| {
        // Nobody serves it for a moment, as when one daemon follows the other.
        let waiting = Waiting::new(State::Waiting);
        assert!(reservation::release(&waiting.counts.words(0)));
        let usher = {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || waiting.tell())
        };
        let got_in = waiting.ack(1);
        let told = usher.join().unwrap();
        assert!(!(got_in && told));
        let waits = u32::from(!got_in && !told);
        assert_eq!(waits, 0, "one of them was first");
        assert_eq!((waiting.counts.connections()[0], waiting.waiting()), (u32::from(got_in), [0; 4]));
    });
}

#[test]
fn one_that_gives_up_in_its_turn_gets_in_or_is_gone_and_leaves_nothing_behind() {
    loom::model(|| {
        let waiting = Waiting::new(State::Granted);
        assert!(reservation::release(&waiting.counts.words(0)));
        let reset = {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || waiting.take_away())
        };
        let got_in = waiting.ack(0);
        assert!(got_in != reset.join().unwrap());
        assert_eq!((waiting.counts.connections()[0], waiting.waiting()), (u32::from(got_in), [0; 4]));
    });
}

/// The daemon revokes a turn at the moment of the ACK.
#[test]
fn a_turn_is_used_or_lost() {
    loom::model(|| {
        let waiting = Waiting::new(State::Granted);
        assert!(reservation::release(&waiting.counts.words(0)));
        let usher = {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || waiting.revoke())
        };
        let got_in = waiting.ack(0);
        assert!(got_in != usher.join().unwrap());
        assert_eq!(waiting.waiting()[0], u32::from(!got_in));
        assert!(got_in || waiting.tell(), "it still waits");
        assert_eq!(waiting.waiting(), [0; 4]);
    });
}

#[test]
fn no_more_of_a_source_wait_than_may() {
    loom::model(|| {
        let counts = Counts::new();
        let wait = |counts: &Counts| {
            let wait = reservation::wait(&counts.words(0), &NONE, Reason::Total, 1, CAPACITY);
            wait == Wait::Waits(WaitMarks::of(Reason::Total))
        };
        let other = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || wait(&counts))
        };
        let here = wait(&counts);
        assert!(here != other.join().unwrap());
        assert_eq!(counts.all().map(limiter_common::Count::waiting), [1, 0, 1, 1]);
    });
}

/// Of a network that may have one place, at the moment when a newcomer of it comes.
#[test]
fn for_a_network_no_more_places_of_a_service_are_kept_than_it_may_have() {
    loom::model(|| {
        let counts = Counts::new();
        let limits = Limits { network: 1, ..NONE };
        let newcomer = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || {
                reservation::reserve(&counts.words(0), &limits, 0, Arrival::NEW) == Outcome::Taken
            })
        };
        let wait = reservation::wait(&counts.words(1), &limits, Reason::Total, CAPACITY, CAPACITY);
        let (is_kept, is_in) = (wait == Wait::Waits(WaitMarks::of(Reason::Total)), newcomer.join().unwrap());
        assert!(is_kept != is_in, "one of them was first");
        let [.., network, total] = counts.all();
        let kept = u32::from(is_kept);
        assert_eq!((network.waiting(), total.waiting(), network.reserved()), (kept, kept, u32::from(is_in)));
    });
}

#[test]
fn no_more_wait_in_all_than_there_is_room_for() {
    loom::model(|| {
        let counts = Counts::new();
        let wait = |counts: &Counts, source| {
            let wait = reservation::wait(&counts.words(source), &NONE, Reason::Concurrency, CAPACITY, 1);
            matches!(wait, Wait::Waits(_))
        };
        let other = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || wait(&counts, 1))
        };
        let here = wait(&counts, 0);
        assert!(here != other.join().unwrap());
        let [first, second, ..] = counts.all().map(limiter_common::Count::waiting);
        assert_eq!(first + second, 1, "the other is marked nowhere");
    });
}

#[test]
fn an_entry_is_never_deleted_while_somebody_waits_for_it() {
    loom::model(|| {
        let counts = Counts::new();
        let maintenance = {
            let counts = Arc::clone(&counts);
            thread::spawn(move || count::collect(&counts.source[0]))
        };
        let wait = reservation::wait(&counts.words(0), &NONE, Reason::Concurrency, CAPACITY, CAPACITY);
        let collected = maintenance.join().unwrap();
        assert!(matches!(wait, Wait::Waits(_)) != collected);
        if collected {
            assert_eq!(counts.all()[3].waiting(), 0);
            assert_eq!(counts.waiting.load(), 0, "it is marked nowhere");
        }
    });
}
