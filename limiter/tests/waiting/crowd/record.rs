// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What came of one connection, as its client saw it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use limiter_lab::Answer;

/// A connection of a client.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which of the crowd's callers.
    pub who: usize,
    pub local: SocketAddr,
    /// When it sent its SYN.
    pub called: Instant,
    /// When its half of the handshake was complete: it believes itself connected.
    pub connected: Option<Instant>,
    /// When it heard the first bytes, an end without a word, or a reset.
    pub heard: Option<Instant>,
    /// What that was.
    pub answer: Answer,
    /// When it closed, or had enough.
    pub left: Instant,
    /// How many calls in a row were refused like this one, before there was a handshake. This is the one that
    /// took longest.
    pub times: usize,
    /// How the host's end came, where the client waited for it.
    pub end: Option<End>,
}

/// The end of the host's half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

impl Record {
    pub fn new(who: usize, local: SocketAddr) -> Self {
        let called = Instant::now();
        let answer = Answer::Silence;
        Self { who, local, called, connected: None, heard: None, answer, left: called, times: 1, end: None }
    }

    /// It was greeted by the mail daemon.
    pub fn served(&self) -> bool {
        self.answer.is_service()
    }

    /// It was refused before its half of the handshake was complete.
    pub fn turned_away(&self) -> bool {
        self.answer == Answer::Reset && self.connected.is_none()
    }

    /// It was told why not.
    pub fn told(&self) -> bool {
        matches!(&self.answer, Answer::Line(line) if line.starts_with("421 "))
    }

    /// How long it heard nothing at all.
    pub fn silence(&self) -> Duration {
        self.heard.unwrap_or(self.left) - self.called
    }
}
