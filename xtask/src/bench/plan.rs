// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who takes part in what.

use std::{fmt, time::Duration};

use anyhow::{Result, bail};
use serde::{Serialize, Serializer};

/// Something that a mail host can limit connections with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Contestant {
    /// No limit: the server alone, which accepts, writes and closes. Everyone's bound.
    Nothing,
    /// This project.
    Limiter,
    /// The same with its shield on the wire, a veth, which `auto` would leave alone.
    LimiterShield,
    /// The same, which knows a million sources and has 100,000 rules.
    LimiterFull,
    /// The same, of which something is changed twice a second: its policy, or the daemon.
    LimiterChanged,
    /// Another build of it: of another commit, to see what a change is worth.
    LimiterOther,
    /// Programs that do nothing, on the hooks of the limiter's: as low as it could get.
    Empty,
    /// An XDP program on the wire that drops the flooder by one comparison and lets all others pass: as low as a
    /// shield could get.
    EmptyShield,
    /// `ct count` and `reject with tcp reset`.
    Nftables,
    /// `connlimit` and `REJECT --reject-with tcp-reset`.
    Iptables,
    /// A stick table in TCP mode; the server is behind it.
    Haproxy,
    /// Postfix's own limit, which its anvil counts.
    Postfix,
    /// Exim's own limit, `smtp_accept_max_per_host`.
    Exim,
}

impl Contestant {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 13] = [
        Self::Nothing,
        Self::Limiter,
        Self::LimiterShield,
        Self::LimiterFull,
        Self::LimiterChanged,
        Self::LimiterOther,
        Self::Empty,
        Self::EmptyShield,
        Self::Nftables,
        Self::Iptables,
        Self::Haproxy,
        Self::Postfix,
        Self::Exim,
    ];

    /// Its name, for the command line and the tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Limiter => "limiter",
            Self::LimiterShield => "limiter-shield",
            Self::LimiterFull => "limiter-full",
            Self::LimiterChanged => "limiter-changed",
            Self::LimiterOther => "limiter-other",
            Self::Empty => "empty",
            Self::EmptyShield => "empty-shield",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Haproxy => "haproxy",
            Self::Postfix => "postfix",
            Self::Exim => "exim",
        }
    }

    /// Whether it is this project.
    pub const fn is_limiter(self) -> bool {
        matches!(
            self,
            Self::Limiter
                | Self::LimiterShield
                | Self::LimiterFull
                | Self::LimiterChanged
                | Self::LimiterOther
        )
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Contestant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// Connect, read the banner, see the end; from so many sources.
    Accept { sources: usize },
    /// The same from one source that holds so many connections.
    Held(usize),
    /// Be refused by a reset.
    Reset,
    /// Be refused with a reply.
    Reply,
    /// Connect as ever, while somebody who is banned floods.
    Flood,
    /// Send as much as goes, on mail connections.
    BulkMail,
    /// The same on a port that is nobody's.
    BulkOther,
    /// As `Accept`, of 1,000 sources out of all that are known.
    Known,
    /// As `Accept`, while another policy is put in force.
    Reload,
    /// As `Accept`, while the daemon is replaced.
    Takeover,
}

impl Workload {
    /// All of them, in order.
    pub const ALL: [Self; 13] = [
        Self::Accept { sources: 1 },
        Self::Accept { sources: 1000 },
        Self::Held(1000),
        Self::Held(8000),
        Self::Held(15000),
        Self::Reset,
        Self::Reply,
        Self::Flood,
        Self::BulkMail,
        Self::BulkOther,
        Self::Known,
        Self::Reload,
        Self::Takeover,
    ];

    /// Its name, for the command line, and files.
    pub fn name(self) -> String {
        match self {
            Self::Accept { sources } => format!("accept-{sources}"),
            Self::Held(held) => format!("held-{held}"),
            Self::Reset => "reset".into(),
            Self::Reply => "reply".into(),
            Self::Flood => "flood".into(),
            Self::BulkMail => "bulk-mail".into(),
            Self::BulkOther => "bulk-other".into(),
            Self::Known => "known".into(),
            Self::Reload => "reload".into(),
            Self::Takeover => "takeover".into(),
        }
    }

    /// What it is, in one line.
    pub fn title(self) -> String {
        match self {
            Self::Accept { sources: 1 } => "Accept, banner, close; 1 source".into(),
            Self::Accept { sources } => format!("Accept, banner, close; {sources} sources, IPv4 and IPv6"),
            Self::Held(held) => format!("Accept, banner, close; the source holds {held} connections"),
            Self::Reset => "Refuse by reset".into(),
            Self::Reply => "Refuse with a reply".into(),
            Self::Flood => {
                "Accept, banner, close; 1 source, while another one, banned, floods with SYNs".into()
            }
            Self::BulkMail => "Bulk transfer on 4 established mail connections".into(),
            Self::BulkOther => "Bulk transfer on 4 connections to another port".into(),
            Self::Known => {
                "Accept, banner, close; 1,000 sources and 10 rules, or 1,000,000 in the ledger and 100,000 rules"
                    .into()
            }
            Self::Reload => "Accept, banner, close; while another policy is put in force twice a second".into(),
            Self::Takeover => "Accept, banner, close; while the daemon is replaced twice a second".into(),
        }
    }

    /// Who can do it. The first is who the others are compared with.
    pub const fn contestants(self) -> &'static [Contestant] {
        use Contestant::{
            Empty, EmptyShield, Exim, Haproxy, Iptables, Limiter, LimiterChanged, LimiterFull, LimiterOther,
            LimiterShield, Nftables, Nothing, Postfix,
        };
        match self {
            Self::Accept { .. } => &[
                Nothing,
                Limiter,
                LimiterOther,
                LimiterShield,
                Empty,
                Nftables,
                Iptables,
                Haproxy,
                Postfix,
                Exim,
            ],
            // Postfix and Exim have a process for each connection.
            Self::Held(_) | Self::Reset | Self::BulkMail => {
                &[Nothing, Limiter, LimiterOther, Nftables, Iptables, Haproxy]
            }
            // The others have no words.
            Self::Reply => &[Nothing, Limiter, LimiterOther, Postfix, Exim],
            // The others cannot ban.
            Self::Flood => &[Nothing, Limiter, LimiterOther, LimiterShield, EmptyShield, Nftables, Iptables],
            // Haproxy is not on the way of what it does not serve.
            Self::BulkOther => {
                &[Nothing, Limiter, LimiterOther, LimiterShield, Empty, EmptyShield, Nftables, Iptables]
            }
            Self::Known => &[Limiter, LimiterFull],
            Self::Reload | Self::Takeover => &[Limiter, LimiterChanged],
        }
    }

    /// Where a figure needs a word.
    pub const fn remark(self) -> &'static str {
        match self {
            Self::Accept { .. } => {
                "Postfix and Exim are sent QUIT after their banner, and serve each connection by a process; the \
                 others' server closes after it. Empty: kernel programs that do nothing, on the same hooks."
            }
            Self::Held(_) => {
                "Postfix and Exim cannot hold as many: each connection is a process. HAProxy takes part where a process \
                 may open two files for each."
            }
            Self::Reset => {
                "Nothing: a port on which nobody listens. HAProxy cannot refuse a handshake: it completes it and \
                 closes."
            }
            Self::Reply => {
                "Nothing: the server says 421 to everyone, and closes. nftables, iptables and HAProxy have no words."
            }
            Self::Flood => {
                "The flood takes a processor to send; nothing: it is for another host, so only that is left. limiter-shield \
                 and empty-shield have an XDP program on the wire, behind its driver; the latter's drops that one address, \
                 and looks at nothing else. nftables and iptables drop the address by a rule of its own. In the last \
                 column, SYNs of the flood in a second."
            }
            Self::BulkMail => "MB/s instead of connections, CPU per MB. HAProxy copies the data.",
            Self::BulkOther => {
                "MB/s instead of connections, CPU per MB. limiter-shield and empty-shield have an XDP program on the wire, \
                 behind its driver; the latter's compares one address."
            }
            Self::Known | Self::Reload | Self::Takeover => "Compared with the limiter itself.",
        }
    }

    /// Whether megabytes are counted, not connections.
    pub const fn is_bulk(self) -> bool {
        matches!(self, Self::BulkMail | Self::BulkOther)
    }
}

/// What is measured, and for how long.
pub struct Plan {
    /// Each contestant's turn comes so often.
    pub rounds: usize,
    /// A turn, after its run-up.
    pub window: Duration,
    /// The time before it that does not count.
    pub run_up: Duration,
    /// Whether it is the quick one.
    pub quick: bool,
    cells: Vec<(Workload, Vec<Contestant>)>,
}

impl Plan {
    /// The plan, or what of it `only` leaves; with [`Contestant::LimiterOther`] if it `has_other`.
    ///
    /// # Errors
    ///
    /// When `only` leaves nothing.
    pub fn new(quick: bool, only: &[String], has_other: bool) -> Result<Self> {
        let selected = |workload: Workload, contestant: Contestant| {
            (has_other || contestant != Contestant::LimiterOther)
                && (only.is_empty() || only.iter().any(|only| selects(only, workload, contestant)))
        };
        let mut cells = Vec::new();
        for workload in Workload::ALL {
            // It takes nftables and iptables most of three minutes to let so many in.
            if quick && only.is_empty() && workload == Workload::Held(15000) {
                continue;
            }
            let contestants: Vec<_> =
                workload.contestants().iter().copied().filter(|&one| selected(workload, one)).collect();
            if !contestants.is_empty() {
                cells.push((workload, contestants));
            }
        }
        if cells.is_empty() {
            let workloads = Workload::ALL.map(Workload::name).join(", ");
            bail!(
                "{} selects nothing: contestants are {} (limiter-other with --against); workloads are {workloads}",
                only.join(", "),
                Contestant::ALL.map(Contestant::name).join(", ")
            );
        }
        let ms = Duration::from_millis;
        let (rounds, window, run_up) = if quick { (3, ms(450), ms(100)) } else { (7, ms(2000), ms(300)) };
        Ok(Self { rounds, window, run_up, quick, cells })
    }

    /// Each workload, and who is measured at it.
    pub fn cells(&self) -> &[(Workload, Vec<Contestant>)] {
        &self.cells
    }

    /// Whether a contestant takes part in anything.
    pub fn needs(&self, contestant: Contestant) -> bool {
        self.cells.iter().any(|(_, contestants)| contestants.contains(&contestant))
    }
}

/// Whether `CONTESTANT`, `WORKLOAD` or `CONTESTANT/WORKLOAD` means this one.
fn selects(only: &str, workload: Workload, contestant: Contestant) -> bool {
    let workload = workload.name();
    match only.split_once('/') {
        Some((who, what)) => {
            (who.is_empty() || who == contestant.name()) && (what.is_empty() || what == workload)
        }
        None => only == contestant.name() || only == workload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(only: &[&str]) -> Result<Plan> {
        Plan::new(false, &only.iter().map(|&only| only.to_owned()).collect::<Vec<_>>(), false)
    }

    #[test]
    fn only_selects_a_contestant_a_workload_or_one_at_the_other() {
        let cells =
            |only: &[&str]| plan(only).unwrap().cells().iter().map(|cell| cell.1.len()).sum::<usize>();
        assert_eq!(cells(&["postfix"]), 3);
        assert_eq!(cells(&["reply"]), 4);
        assert_eq!(cells(&["limiter/reply"]), 1);
        assert_eq!(cells(&["limiter/reply", "/reset"]), 6);
        assert!(plan(&["sendmail"]).is_err());
    }

    #[test]
    fn the_first_contestant_of_a_workload_is_who_the_others_are_compared_with() {
        for (workload, contestants) in plan(&[]).unwrap().cells() {
            assert_eq!(contestants[0], workload.contestants()[0]);
        }
    }
}
