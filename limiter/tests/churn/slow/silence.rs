// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The client falls silent: the server's patience ends, or it lets go, and nobody hears it.

use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use super::{SILENCE, forget, gather};
use crate::churn::Churn;
use crate::ending::Ending;
use crate::ends::reads;
use crate::lab::{ChurnLab, deafen};
use limiter_lab::client::reset;
use limiter_lab::random::Random;

const CALLS: usize = 96;
/// How long the server waits for an acknowledgement.
const PATIENCE: Duration = Duration::from_millis(250);

pub fn run(lab: &ChurnLab, churn: &Churn) {
    lab.client.enter();
    let mut random = Random::new(300);
    let doors = lab.doors(SILENCE, 256);
    while !churn.is_over() {
        for door in &doors {
            let (pairs, callers) = gather(door, &mut random, CALLS, CALLS);
            let mut silent = Vec::new();
            let mut let_go = Vec::new();
            for (number, pair) in pairs.into_iter().enumerate() {
                deafen(&pair.client);
                if number % 2 == 0 {
                    pair.server.set_tcp_user_timeout(Some(PATIENCE)).expect("a socket option");
                    (&pair.server).write_all(b"is anyone there?").expect("there is room");
                    silent.push(pair);
                } else {
                    drop(pair.server);
                    let_go.push(pair.client);
                }
            }
            churn.ended(Ending::NeverAcknowledged, let_go.len() as u64);
            for pair in silent {
                assert_eq!(reads(&pair.server), Err(ErrorKind::TimedOut), "its patience ends");
                churn.ended(Ending::TimedOut, 1);
                drop(pair.server);
                reset(pair.client);
            }
            let_go.into_iter().for_each(reset);
            forget(callers, &mut random);
        }
    }
}
