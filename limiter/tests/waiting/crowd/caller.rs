// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The clients of a crowd, and what each of them does.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use limiter_lab::link::Link;

/// What a client does; times are from its SYN, and count only until it has heard something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Waits for what comes, stays for its `stay` if it is served, and closes.
    Stays,
    /// Closes with a FIN.
    Closes(Duration),
    /// Closes with a reset.
    Resets(Duration),
    /// Nothing passes from it or to it any more. Takes a link.
    Vanishes(Duration),
    /// Completes the handshake, and sends nothing ever again. Takes a link.
    NeverAnswers,
}

/// One client.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub source: IpAddr,
    pub to: SocketAddr,
    pub manner: Manner,
    /// How long it stays if it is served.
    pub stay: Duration,
}

impl Caller {
    /// `n` clients at `source` that wait for what comes.
    pub fn crowd(n: usize, source: IpAddr, to: SocketAddr, stay: Duration) -> Vec<Self> {
        vec![Self { source, to, manner: Manner::Stays, stay }; n]
    }
}

/// Clients that connect at once, in this order.
pub struct Crowd<'a> {
    pub callers: Vec<Caller>,
    /// How long each waits for a first word before it takes the silence for an answer.
    pub patience: Duration,
    /// Until then each client connects again at once, whatever it got.
    pub again: Option<Instant>,
    pub link: Option<&'a Link>,
}
