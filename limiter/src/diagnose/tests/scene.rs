// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Cases for the tests, made step by step.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use limiter_common::{Key, Protocol, Reason, ServiceId};

use crate::{
    evidence::{
        Connection, State,
        case::{AddressKind, Case, DaemonLimit, Known, LimitScope, Period, Server, Session, Watched, Whole},
    },
    sock_diag::{self, FourTuple, Tcp},
};

pub const MINUTE: u64 = 60;
/// When the tests take place.
pub const NOW_S: u64 = 1_800_000_000;

/// A case.
#[derive(Clone, Debug)]
pub struct Scene {
    pub case: Case,
}

/// A session as it is seen; times in seconds.
#[derive(Clone, Debug)]
pub struct Seen {
    pub age: Option<u64>,
    pub received_ago: u64,
    pub heard_ago: u64,
    pub received: u64,
    pub sent_bytes: u64,
    pub probes: u8,
    pub state: State,
    /// Whether the kernel tells nothing of it.
    pub is_blind: bool,
}

impl Seen {
    /// Its client answers, and has sent nothing for so long.
    pub fn resting(age: u64, received_ago: u64) -> Self {
        Self {
            age: Some(age),
            received_ago,
            heard_ago: received_ago.min(110),
            received: 500,
            sent_bytes: 5000,
            probes: 0,
            state: State::Open,
            is_blind: false,
        }
    }

    /// Its client has just sent something.
    pub fn busy(age: u64) -> Self {
        Self::resting(age, 0)
    }

    fn session(&self, cookie: u64, port: u16) -> Session {
        let at = |port| SocketAddr::from(([203, 0, 113, 7], port));
        let seconds = Duration::from_secs;
        let tcp = Tcp {
            sent_ago: seconds(self.received_ago.min(110)),
            received_ago: seconds(self.received_ago),
            heard_ago: seconds(self.heard_ago),
            sent: self.sent_bytes,
            received: self.received,
            probes: self.probes,
            retransmits: 0,
            rtt: Duration::from_millis(30),
        };
        let socket = sock_diag::Connection {
            cookie,
            tuple: FourTuple { remote: at(40_000), local: at(port), ifindex: 0 },
            state: 1,
            inode: 1,
            unread: 0,
            unacknowledged: 0,
            timer: None,
            tcp: (!self.is_blind).then_some(tcp),
        };
        Session {
            connection: Connection {
                service: ServiceId(1),
                source: Key::NONE,
                cookie,
                age: self.age.map(seconds),
                state: self.state,
                remote: at(0).ip(),
                socket: (self.state != State::Dead).then_some(socket),
                process: None,
            },
            user: None,
        }
    }
}

impl Scene {
    /// A source at imap that is at its limit of ten, among sixty others; nobody says anything about users and the past.
    pub fn imap() -> Self {
        Self::of("imap", Protocol::Imap)
    }

    /// The same at smtp.
    pub fn smtp() -> Self {
        Self::of("smtp", Protocol::Smtp)
    }

    pub fn of(service: &str, protocol: Protocol) -> Self {
        let server =
            Server { daemon: Some("Dovecot".to_owned()), accept_queue: Some((0, 100)), ..Server::default() };
        let whole = Whole { connections: 200, sources: 60, sources_at_limit: 2, ..Whole::default() };
        let case = Case {
            now_s: NOW_S,
            address: "203.0.113.7".parse().expect("an address"),
            kind: AddressKind::Public,
            service: service.to_owned(),
            protocol,
            source: "203.0.113.7/32".parse().expect("a network"),
            connections: 0,
            limit: Some(10),
            reason: Some(Reason::Concurrency),
            waiting: 0,
            refused: BTreeMap::from([(Reason::Concurrency, 4)]),
            last_refused: Some(Duration::from_secs(120)),
            sessions: Vec::new(),
            users: Known::Not("doveadm is not installed".to_owned()),
            history: Known::Not("no history is kept".to_owned()),
            watched: None,
            whole,
            server,
        };
        Self { case }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Case)) -> Self {
        change(&mut self.case);
        self
    }

    /// So many sessions more.
    pub fn sessions(mut self, count: u64, seen: impl Fn(u64) -> Seen) -> Self {
        let port = match self.case.protocol {
            Protocol::Smtp if self.case.service == "smtp" => 25,
            Protocol::Smtp => 587,
            _ => 993,
        };
        for n in 0..count {
            let cookie = self.case.sessions.len() as u64 + 1;
            self.case.sessions.push(seen(n).session(cookie, port));
        }
        self.case.connections = u32::try_from(self.case.sessions.len()).expect("few");
        self
    }

    pub fn users(self, users: &[(&str, u32)]) -> Self {
        let users = users.iter().map(|(name, sessions)| ((*name).to_owned(), *sessions)).collect();
        self.with(|case| case.users = Known::Is(users))
    }

    pub fn at(self, address: &str, kind: AddressKind) -> Self {
        let address: std::net::IpAddr = address.parse().expect("an address");
        self.with(|case| (case.address, case.source, case.kind) = (address, address.into(), kind))
    }

    pub fn reason(self, reason: Reason) -> Self {
        self.with(|case| case.reason = Some(reason))
    }

    pub fn whole(self, change: impl FnOnce(&mut Whole)) -> Self {
        self.with(|case| change(&mut case.whole))
    }

    pub fn server(self, change: impl FnOnce(&mut Server)) -> Self {
        self.with(|case| change(&mut case.server))
    }

    /// A limit of the mail daemon's own.
    pub fn daemon_limit(self, setting: &str, value: u64, scope: LimitScope) -> Self {
        let limit = DaemonLimit {
            daemon: "Postfix",
            setting: setting.to_owned(),
            value: Some(value),
            scope,
            file: "/etc/postfix/main.cf".to_owned(),
            reload: "postfix reload",
        };
        self.server(|server| server.limits.push(limit))
    }

    /// What somebody saw who watched for so many seconds: when connections began, and how old those were that ended.
    pub fn watched(self, seconds: u64, begun: Vec<u64>, ended: &[u64], connections: (u32, u32)) -> Self {
        let watched = Watched {
            time: Duration::from_secs(seconds),
            begun: begun.into_iter().map(Duration::from_secs).collect(),
            ended: ended.iter().map(|age| (Duration::ZERO, Some(Duration::from_secs(*age)))).collect(),
            refused: 0,
            connections,
            bytes: 0,
        };
        self.with(|case| case.watched = Some(watched))
    }

    /// Quarters of an hour up to now: peak, connections that began, that ended, and of these those that were short.
    pub fn history(self, quarters: &[(u32, u64, u64, u64)]) -> Self {
        let count = quarters.len() as u64;
        let periods =
            (0_u64..).zip(quarters).map(|(n, &(peak, accepted, ended, ended_within_minute))| Period {
                start_s: NOW_S - (count - n) * 900,
                seconds: 900,
                peak,
                limit: Some(10),
                accepted,
                ended_within_minute,
                ended,
                ..Period::default()
            });
        let periods = periods.collect();
        self.with(|case| case.history = Known::Is(periods))
    }
}
