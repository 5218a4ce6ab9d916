// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A connection that dies on one CPU while its owner closes it on another.

use std::cell::Cell;

use limiter_common::{
    Kept,
    count::Word as _,
    ending::{self, Records},
    slot,
};
use loom::{sync::Arc, thread};

use super::Shared;

const COOKIE: u64 = 7;

/// A slot, and what is kept beside it: 0 or 1, as an element is in a hash map or not.
struct Recorded {
    slot: Shared,
    kept: Shared,
}

impl Recorded {
    fn new() -> Arc<Self> {
        Arc::new(Self { slot: Shared::new(COOKIE), kept: Shared::new(0) })
    }

    /// What the change of state does, under the socket's lock; whether it gives back.
    fn dies(&self, has_room: bool) -> bool {
        if self.slot.load() != COOKIE {
            return false;
        }
        let asked = Cell::new(0);
        let given_back = ending::outlive(self, || {
            asked.set(asked.get() + 1);
            has_room && self.kept.compare_exchange(0, 1) == 0
        });
        assert_eq!(asked.get(), 1);
        given_back.is_some()
    }

    /// What the owner's close does; whether it gives back.
    fn is_closed(&self) -> bool {
        ending::let_go(self).is_some()
    }

    fn is_forgotten(&self) -> bool {
        [&self.slot, &self.kept].into_iter().all(|word| word.load() == 0)
    }
}

impl Records for Recorded {
    fn take(&self) -> Option<Kept> {
        slot::vacate(&self.slot, COOKIE).then(Kept::default)
    }

    fn take_kept(&self) -> Option<Kept> {
        (self.kept.compare_exchange(1, 0) == 1).then(Kept::default)
    }
}

#[test]
fn of_a_death_and_a_close_at_the_same_time_one_gives_back_and_no_record_stays() {
    for has_room in [true, false] {
        loom::model(move || {
            let recorded = Recorded::new();
            let death = {
                let recorded = Arc::clone(&recorded);
                thread::spawn(move || recorded.dies(has_room))
            };
            let closed = recorded.is_closed();
            let died = death.join().unwrap();
            assert_eq!(u32::from(closed) + u32::from(died), 1);
            assert!(recorded.is_forgotten());
        });
    }
}

#[test]
fn of_a_close_and_a_daemon_that_gives_back_for_what_is_gone_one_does() {
    loom::model(|| {
        let recorded = Recorded::new();
        assert!(!recorded.dies(true));
        let maintenance = {
            let recorded = Arc::clone(&recorded);
            thread::spawn(move || recorded.take_kept().is_some())
        };
        let closed = recorded.is_closed();
        assert_eq!(u32::from(closed) + u32::from(maintenance.join().unwrap()), 1);
        assert!(recorded.is_forgotten());
    });
}
