//! The listener is closed with its queue full, and more at the door.

use std::time::Duration;

use super::{ARRIVAL, DOORS, forget, gather, queued};
use crate::churn::Churn;
use crate::dice::Dice;
use crate::ground::Ground;
use crate::ways::Way;

/// A backlog of 31 holds 32: see `sk_acceptq_is_full` in `include/net/sock.h`.
const BACKLOG: i32 = 31;
const CALLS: usize = 56;

pub fn run(ground: &Ground, churn: &Churn) {
    ground.client.enter();
    let mut dice = Dice::new(100);
    while !churn.is_over() {
        for door in ground.doors(DOORS, BACKLOG) {
            let (_, callers) = gather(&door, &mut dice, CALLS, 0);
            std::thread::sleep(ARRIVAL);
            churn.ended(Way::ListenerClosed, queued(&door));
            drop(door);
            forget(callers, &mut dice);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
