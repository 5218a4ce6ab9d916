// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is measured: which cells there are, and which of them are wanted.

use std::{fmt, time::Duration};

use clap::ValueEnum;

/// A mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mta {
    /// Postfix
    Postfix,
    /// Exim
    Exim,
    /// OpenSMTPD
    Opensmtpd,
}

impl fmt::Display for Mta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postfix => "Postfix",
            Self::Exim => "Exim",
            Self::Opensmtpd => "OpenSMTPD",
        })
    }
}

/// What is between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// A wire
    Lan,
    /// A round trip of 100 ms
    Far,
}

impl Way {
    /// How long a packet is under way, in one direction; nothing where that is up to the kernel.
    pub const fn delay(self) -> Option<Duration> {
        match self {
            Self::Lan => None,
            Self::Far => Some(Duration::from_millis(50)),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lan => "LAN",
            Self::Far => "100 ms",
        })
    }
}

/// When a sender tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Timers {
    /// As its makers deliver it: after minutes
    Default,
    /// After 10 seconds, so that a turn ends within minutes
    Scaled,
}

impl fmt::Display for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Scaled => "10 s",
        })
    }
}

/// Who limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The receiving mail server itself.
    Own,
    /// The limiter in front of it.
    Limiter,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "its own",
            Self::Limiter => "limiter",
        })
    }
}

/// One turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Who has the messages.
    pub sender: Mta,
    /// Who is to get them.
    pub receiver: Mta,
    /// What is between them.
    pub way: Way,
    /// When the sender tries again.
    pub timers: Timers,
    /// Who limits.
    pub limit: Limit,
}

/// What of all that is wanted; an empty list is everything.
pub struct Filter<'a> {
    /// Senders.
    pub senders: &'a [Mta],
    /// Receivers.
    pub receivers: &'a [Mta],
    /// What is between them.
    pub ways: &'a [Way],
    /// When the senders try again.
    pub timers: &'a [Timers],
}

/// Every cell that is wanted, the short ones first.
pub fn cells(limit: Limit, filter: &Filter<'_>) -> Vec<Cell> {
    let mut cells = Vec::new();
    for timers in wanted(&[Timers::Scaled, Timers::Default], filter.timers) {
        for way in wanted(&[Way::Lan, Way::Far], filter.ways) {
            for receiver in wanted(Mta::value_variants(), filter.receivers) {
                // OpenSMTPD has limits of a session, and none of the sessions of a source (smtpd.conf(5)).
                if limit == Limit::Own && receiver == Mta::Opensmtpd {
                    continue;
                }
                for sender in wanted(Mta::value_variants(), filter.senders) {
                    cells.push(Cell { sender, receiver, way, timers, limit });
                }
            }
        }
    }
    cells
}

/// The smallest one, which is done within half a minute where nobody waits for nothing.
pub const fn smallest(limit: Limit) -> Cell {
    Cell { sender: Mta::Exim, receiver: Mta::Postfix, way: Way::Lan, timers: Timers::Scaled, limit }
}

fn wanted<T: Copy + PartialEq>(all: &[T], only: &[T]) -> Vec<T> {
    all.iter().copied().filter(|one| only.is_empty() || only.contains(one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Filter<'_> = Filter { senders: &[], receivers: &[], ways: &[], timers: &[] };

    #[test]
    fn without_filters_every_sender_meets_every_receiver_that_can_be_limited() {
        assert_eq!(cells(Limit::Limiter, &EVERYTHING).len(), 3 * 3 * 2 * 2);
        assert_eq!(cells(Limit::Own, &EVERYTHING).len(), 3 * 2 * 2 * 2);
    }

    #[test]
    fn a_filter_leaves_what_it_names() {
        let filter = Filter { senders: &[Mta::Exim], ways: &[Way::Far], ..EVERYTHING };
        let cells = cells(Limit::Own, &filter);
        assert_eq!(cells.len(), 2 * 2);
        assert!(cells.iter().all(|cell| cell.sender == Mta::Exim && cell.way == Way::Far));
    }
}
