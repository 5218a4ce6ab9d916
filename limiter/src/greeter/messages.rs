// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon and the greeter's process tell each other. Both are the same program, so there are no versions.
//!
//! Strangers talk to the greeter: the daemon takes what it says as it takes a stranger's word. It is parsed, bounded,
//! counted, and shown; nothing that it says decides who is let in.

use std::{net::IpAddr, time::Duration};

use limiter_common::Reason;
use serde::{Deserialize, Serialize};

use super::{
    log::{Answer as Got, Refused},
    tls::Unsigned,
};

/// What the daemon tells the greeter.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Say this from now on: a file with a [`Setup`](super::setup::Setup) comes with it. With the first, the memory of
    /// the [`Totals`](super::Totals) does, too.
    Say,
    /// Tell this client, which comes with it.
    Tell,
    /// Answer by [`Notice::Alive`].
    Live,
    /// Close the listener, and end when everyone has heard.
    Stop,
}

/// What the greeter tells the daemon.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// It is confined, and serves.
    Ready {
        /// Whether Landlock is a part of that.
        landlock: bool,
    },
    /// It cannot go on, and ends.
    Failed(String),
    /// The answer to [`Order::Live`].
    Alive,
    /// Who was refused since the last notice.
    Refused(Vec<Noted>),
    /// How many others were, of whom nothing is known.
    Others(u64),
    /// Who was refused just now, in full, where the log is to have everything.
    Each {
        /// At which port.
        port: u16,
        /// Who, and what it got.
        noted: Noted,
    },
    /// `accept` fails for want of something.
    CannotAccept {
        /// Whether the clients wait, and are not reset.
        waits: bool,
        /// The system's number.
        errno: i32,
    },
}

/// Refusals of one source at one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    service: String,
    remote: IpAddr,
    reason: u8,
    count: u32,
    limit: u32,
    got: Got,
    /// How many.
    pub times: u32,
}

impl Noted {
    /// So many, of which this is the last.
    pub fn of(refused: &Refused, times: u32) -> Self {
        let Refused { service, remote, reason, count, limit, answer } = refused;
        let service = service.as_ref().to_owned();
        let (reason, got) = (*reason as u8, *answer);
        Self { service, remote: *remote, reason, count: *count, limit: *limit, got, times }
    }

    /// The last of them.
    pub fn last(&self) -> Refused {
        let Self { service, remote, reason, count, limit, got, times: _ } = self;
        Refused {
            service: service.as_str().into(),
            remote: remote.to_canonical(),
            reason: Reason::from_u8(*reason),
            count: *count,
            limit: *limit,
            answer: *got,
        }
    }
}

/// What the greeter asks, one at a time; each has a number, which its answer bears.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// A signature for a handshake.
    Sign {
        /// Of the certificate.
        key: u64,
        /// Which (RFC 8446, 4.2.3).
        scheme: u16,
        /// Of what.
        message: Vec<u8>,
    },
    /// When the rate of a client allows its next connection.
    Due {
        /// At which port.
        port: u16,
        /// Whose.
        remote: IpAddr,
    },
}

/// What the daemon answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The signature, and how much of the CPU it has taken.
    Signature(Result<(Vec<u8>, Duration), Unsigned>),
    /// In which time; `None` if it is not known.
    Due(Option<Duration>),
}
