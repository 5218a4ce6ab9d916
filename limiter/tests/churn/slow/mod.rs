// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ways to end that take more than a system call: each has a thread and a door of its own, and takes a fixed
//! share.

pub mod doors;
pub mod moves;
pub mod silence;
pub mod victims;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::libc;
use socket2::Socket;

use crate::lab::{Client, Door, Pair, WORKERS};
use limiter_lab::poll;
use limiter_lab::random::Random;

/// The doors of the slow ways, behind those of the workers.
const DOORS: u16 = WORKERS;
const VICTIMS: u16 = WORKERS + 1;
const SILENCE: u16 = WORKERS + 2;
const MOVES: u16 = WORKERS + 3;

/// How long those who called are waited for: most are there at once, and some are refused.
const ARRIVAL: Duration = Duration::from_millis(20);
/// How often it is looked whether they are.
const A_MOMENT: Duration = Duration::from_millis(1);

/// So many call; at most `most` are accepted. The pairs that came of it, and those who still wait or were refused.
fn gather(door: &Door, random: &mut Random, calls: usize, most: usize) -> (Vec<Pair>, Vec<Client>) {
    let mut callers: HashMap<SocketAddr, Client> =
        (0..calls).map(|_| door.call(random)).map(|client| (client.address, client)).collect();
    let mut pairs = Vec::new();
    let enough = || {
        while let Some((server, remote)) = door.accept() {
            // Otherwise somebody from before, who was held: it ends here.
            if let Some(client) = callers.remove(&remote) {
                pairs.push(Pair { client: client.socket, server });
            }
            if pairs.len() == most {
                return Ok(Some(()));
            }
        }
        Ok(None)
    };
    // Fewer where some are refused.
    let _enough = poll::until(ARRIVAL, A_MOMENT, enough);
    (pairs, callers.into_values().collect())
}

/// How many connections wait in the queue of a listener.
fn queued(door: &Door) -> u64 {
    // SAFETY: plain numbers, for which all zeros is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let listener = door.listener.as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes, all within `info`.
    let result = unsafe {
        let to = (&raw mut info).cast();
        libc::getsockopt(listener, libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut length)
    };
    assert_eq!(result, 0, "a listener does not tell about itself");
    // Of a listener this is the length of its queue: see tcp_get_info in net/ipv4/tcp.c.
    u64::from(info.tcpi_unacked)
}

/// Ends that belong to nobody any more.
fn forget(clients: Vec<Client>, random: &mut Random) {
    for client in clients {
        if random.chance(50) {
            limiter_lab::client::reset(client.socket);
        }
    }
}

/// Client ends, taken out of their pairs.
fn apart(pairs: Vec<Pair>) -> (Vec<Socket>, Vec<Socket>) {
    pairs.into_iter().map(|pair| (pair.client, pair.server)).unzip()
}
