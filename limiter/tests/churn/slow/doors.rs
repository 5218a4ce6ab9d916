// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The listener is closed with its queue full, and more at the door.

use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{ARRIVAL, DOORS, forget, queued};
use crate::churn::Churn;
use crate::dice::Dice;
use crate::ends::reset;
use crate::ground::{Client, Door, Ground};
use crate::ways::Way;

/// While the SYNs come: or the kernel would answer them with cookies.
const WIDE: i32 = 256;
const BACKLOG: i32 = 31;
/// A backlog of 31 holds 32: see `sk_acceptq_is_full` in `include/net/sock.h`.
const FULL: u64 = 32;
const CALLS: usize = 56;
/// A SYN-ACK that was not heard is repeated after one second.
const REPEATED: Duration = Duration::from_millis(1500);

/// A SYN that finds the queue full is dropped. So all SYNs come first, while there is room, and then the ACKs:
/// those that find the queue full have a place reserved, of which nothing comes.
pub fn run(ground: &Ground, churn: &Churn) {
    ground.client.enter();
    let mut dice = Dice::new(100);
    while !churn.is_over() {
        let doors = ground.doors(DOORS, WIDE);
        let mut call =
            |door: &Door| -> Vec<Client> { (0..CALLS).map(|_| door.call_deaf(&mut dice)).collect() };
        let callers: Vec<Client> = doors.iter().flat_map(&mut call).collect();
        for door in &doors {
            SockRef::from(&door.listener).listen(BACKLOG).expect("a listener can be given another backlog");
        }
        callers.iter().for_each(Client::hear);
        let until = Instant::now() + REPEATED;
        while Instant::now() < until && doors.iter().any(|door| queued(door) < FULL) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(ARRIVAL);
        // Some are dead in the queue when it goes.
        let (dead, callers): (Vec<Client>, Vec<Client>) = callers.into_iter().partition(|_| dice.chance(30));
        for client in dead {
            reset(client.socket);
        }
        std::thread::sleep(ARRIVAL);
        for door in doors {
            churn.ended(Way::ListenerClosed, queued(&door));
        }
        forget(callers, &mut dice);
    }
}
