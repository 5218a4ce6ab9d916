// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A case: all that is known of one source at one service, when somebody asks why it holds so many connections.
//!
//! Plain data. `gather` fills it from its witnesses; `diagnose` makes findings of it, without asking anybody else. What a
//! witness could not say is [`Known::Not`], with the reason: it is never taken for zero.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipnet::IpNet;
use limiter_common::{Protocol, Reason};

use super::Connection;

/// What a witness says, or why it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// It says this.
    Is(T),
    /// It was not asked, cannot be asked, or did not answer: the reason, as a part of a sentence ("doveadm did not
    /// answer within 2 s").
    Not(String),
}

impl<T> Known<T> {
    /// What it says, if it says anything.
    pub const fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Not(_) => None,
        }
    }
}

/// One source at one service.
#[derive(Clone, Debug)]
pub struct Case {
    /// When it was looked at, in seconds since 1970.
    pub now_s: u64,
    /// The address that was asked about.
    pub address: IpAddr,
    /// What kind of address it is.
    pub kind: AddressKind,
    /// The service's name.
    pub service: String,
    /// What its clients speak.
    pub protocol: Protocol,
    /// What the address is counted as.
    pub source: IpNet,
    /// Connections of the source now.
    pub connections: u32,
    /// Its limit; none: no limit.
    pub limit: Option<u32>,
    /// Why its next connection would be refused, if it would.
    pub reason: Option<Reason>,
    /// Handshakes of it that wait for a place.
    pub waiting: u32,
    /// How often it was refused for which reason, as far back as the limiter remembers.
    pub refused: BTreeMap<Reason, u64>,
    /// Since the last refusal.
    pub last_refused: Option<Duration>,
    /// Each connection that it holds, the oldest first.
    pub sessions: Vec<Session>,
    /// Users with sessions from this source, by what the mail daemon says: name and number of sessions.
    pub users: Known<BTreeMap<String, u32>>,
    /// What it did in the past, the oldest first; what is not in it, was not interesting enough to be kept.
    pub history: Known<Vec<Period>>,
    /// What it did while somebody watched (`--watch`).
    pub watched: Option<Watched>,
    /// The service as a whole.
    pub whole: Whole,
    /// What serves the service on this host.
    pub server: Server,
}

/// What kind of address a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// One of the Internet's.
    Public,
    /// Private or link-local (RFC 1918, RFC 4193, RFC 3927, RFC 4291): a local network, a bridge, a container.
    Private,
    /// Shared by customers of a provider (100.64.0.0/10, RFC 6598).
    CarrierNat,
    /// The host's own.
    Local,
}

/// A connection, and whose it is.
#[derive(Clone, Debug)]
pub struct Session {
    /// The connection.
    pub connection: Connection,
    /// The user that is logged in; none if that is not known of this one.
    pub user: Option<String>,
}

/// What a source did in a period of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// When it began, in seconds since 1970.
    pub start_s: u64,
    /// How long it is: a quarter of an hour, an hour or a day.
    pub seconds: u32,
    /// The most connections at one time.
    pub peak: u32,
    /// The limit then; none: no limit.
    pub limit: Option<u32>,
    /// Connections that began.
    pub accepted: u64,
    /// Refusals by reason.
    pub refused: BTreeMap<Reason, u64>,
    /// Connections that ended within a minute of their beginning.
    pub ended_within_minute: u64,
    /// All that ended.
    pub ended: u64,
    /// Distinct users; none if that was not known.
    pub users: Option<u32>,
}

/// What a source did while somebody watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// For how long.
    pub time: Duration,
    /// When connections began, since the watch began.
    pub begun: Vec<Duration>,
    /// Those that ended: how long after the watch began, and how old they were, where that is known.
    pub ended: Vec<(Duration, Option<Duration>)>,
    /// Refusals.
    pub refused: u64,
    /// Connections at the beginning, and at the end.
    pub connections: (u32, u32),
    /// Bytes either way, of connections that were there at the beginning and at the end.
    pub bytes: u64,
}

/// A service as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Its connections.
    pub connections: u32,
    /// The most that it may have; none: any number.
    pub max_total: Option<u32>,
    /// The network of the source, where networks are counted: which, its connections, its limit.
    pub network: Option<(IpNet, u32, Option<u32>)>,
    /// Sources with at least one connection.
    pub sources: u32,
    /// Of these, those at their limit.
    pub sources_at_limit: u32,
    /// Other sources that were refused within the last ten minutes.
    pub refused_lately: u32,
    /// Who holds most: the largest first, five at most.
    pub largest: Vec<(IpNet, u32)>,
}

/// What serves a service on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// The mail daemon's name ("Dovecot"), where it is known.
    pub daemon: Option<String>,
    /// Connections that nobody has accepted yet, and the room for them, of the fullest listener.
    pub accept_queue: Option<(u32, u32)>,
    /// Connections of the service, of any source, that are older than 5 s and to which nothing was ever sent: nobody
    /// greeted them.
    pub not_greeted: u32,
    /// Of these, the oldest.
    pub longest_not_greeted: Duration,
    /// The mail daemon's own limits on connections.
    pub limits: Vec<DaemonLimit>,
}

/// A limit of the mail daemon's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonLimit {
    /// The mail daemon.
    pub daemon: &'static str,
    /// The setting: `smtpd_client_connection_count_limit`.
    pub setting: String,
    /// Its value; none: no limit.
    pub value: Option<u64>,
    /// Whom it is for.
    pub scope: LimitScope,
    /// The file that an administrator edits.
    pub file: String,
    /// The command that makes it read it again.
    pub reload: &'static str,
}

/// Whom a limit of a mail daemon is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitScope {
    /// Each address.
    Source,
    /// Each user at each address.
    UserAtSource,
    /// The whole service: connections or processes.
    Service,
}
