// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The listener is closed with its queue full, and more at the door.

use std::time::Duration;

use socket2::SockRef;

use super::{A_MOMENT, ARRIVAL, DOORS, forget, queued};
use crate::churn::Churn;
use crate::ending::Ending;
use crate::lab::{ChurnLab, Client, Door};
use limiter_lab::client::reset;
use limiter_lab::random::Random;
use limiter_lab::{let_time_pass, poll};

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
pub fn run(lab: &ChurnLab, churn: &Churn) {
    lab.client.enter();
    let mut random = Random::new(100);
    while !churn.is_over() {
        let doors = lab.doors(DOORS, WIDE);
        let mut call =
            |door: &Door| -> Vec<Client> { (0..CALLS).map(|_| door.call_deaf(&mut random)).collect() };
        let callers: Vec<Client> = doors.iter().flat_map(&mut call).collect();
        for door in &doors {
            SockRef::from(&door.listener).listen(BACKLOG).expect("a listener can be given another backlog");
        }
        callers.iter().for_each(Client::hear);
        let full = || Ok(doors.iter().all(|door| queued(door) >= FULL).then_some(()));
        // Not where too many were refused.
        let _full = poll::until(REPEATED, A_MOMENT, full);
        let_time_pass(ARRIVAL, "those who find the queue full come to it, and nothing shows when");
        // Some are dead in the queue when it goes.
        let (dead, callers): (Vec<Client>, Vec<Client>) =
            callers.into_iter().partition(|_| random.chance(30));
        for client in dead {
            reset(client.socket);
        }
        let_time_pass(ARRIVAL, "the resets come to the queue, and nothing shows when");
        for door in doors {
            churn.ended(Ending::ListenerClosed, queued(&door));
        }
        forget(callers, &mut random);
    }
}
