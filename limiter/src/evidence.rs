// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Evidence: what this host knows of the connections that a source holds, beside how many they are.
//!
//! Three witnesses are heard, and each says what it is: the limiter's own records (that a connection is counted, and
//! since when), the kernel's table of sockets ([`crate::sock_diag`]: how long it has been idle, what went through it),
//! and /proc (which process has it). They are asked one after the other, so a connection that begins or ends meanwhile may
//! be missed. What a witness does not know is left out, never guessed.

pub mod case;
mod daemon_limits;
mod gather;
pub mod kick;
mod listening;
mod mail_daemon;
mod past;
mod process;
mod running;
mod seen;
mod server;
mod sessions;
pub mod tool;
mod users;
mod watch;
mod whole;
mod words;

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use ipnet::IpNet;
use limiter_common::{ConnectionRecord, DatedRecord, Kept, Key, ServiceId};
use netlink_packet_sock_diag::{TCP_CLOSE_WAIT, TCP_ESTABLISHED};

pub use self::{
    gather::{gather, ports},
    listening::{Listening, listening},
    past::past,
    process::{Process, openers},
    running::{Running, running},
    seen::{Seen, seen},
    sessions::sessions,
    watch::watch,
};
use crate::{
    kernel::{Tables, environment},
    ledger,
    sock_diag::{self, Tcp},
};

/// A connection that is counted.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The service.
    pub service: ServiceId,
    /// What it is counted as.
    pub source: Key,
    /// Its socket's cookie.
    pub cookie: u64,
    /// How long it has been there; none if it is older than its record.
    pub age: Option<Duration>,
    /// Where it stands.
    pub state: State,
    /// The peer. Of a connection that is dead nobody knows the port.
    pub remote: IpAddr,
    /// What the kernel's table has of it; none of a connection that is dead.
    pub socket: Option<sock_diag::Connection>,
    /// Who has it; none if nobody has accepted it, or it is not to be found.
    pub process: Option<Process>,
}

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Both sides talk.
    Open,
    /// The client has closed its side, the mail daemon has not.
    ClientClosed,
    /// The mail daemon has closed its side only, and still serves the client.
    ServerClosed,
    /// The client is gone, and the mail daemon has not let go.
    Dead,
}

impl State {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::ClientClosed => "client closed",
            Self::ServerClosed => "server closed",
            Self::Dead => "dead",
        }
    }

    const fn of_tcp(state: u8) -> Self {
        match state {
            TCP_ESTABLISHED => Self::Open,
            TCP_CLOSE_WAIT => Self::ClientClosed,
            _ => Self::ServerClosed,
        }
    }
}

impl Connection {
    /// Since when no data has gone either way; none if that is not known.
    pub fn idle(&self) -> Option<Duration> {
        self.tcp().map(|tcp| tcp.sent_ago.min(tcp.received_ago))
    }

    /// Since when nothing at all has come from the client, not even an answer to a keepalive probe; none if that is not
    /// known.
    pub fn silent(&self) -> Option<Duration> {
        self.tcp().map(|tcp| tcp.heard_ago.min(tcp.received_ago))
    }

    /// What TCP knows of it.
    pub fn tcp(&self) -> Option<Tcp> {
        self.socket.and_then(|socket| socket.tcp)
    }
}

/// The connections that are counted, of clients in `remote` and to the services that `is_asked_for`; with the processes
/// that have them `with_processes`. In no order.
///
/// # Errors
/// When this thread is in another network namespace than the one that is protected, or the kernel does not show its
/// sockets.
pub fn connections(
    tables: &Tables,
    remote: Option<IpNet>,
    is_asked_for: impl Fn(ServiceId) -> bool,
    with_processes: bool,
) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    each_connection(tables, remote, is_asked_for, |connection| connections.push(connection))?;
    if with_processes {
        find_processes(&mut connections);
    }
    Ok(connections)
}

/// The same, one after the other: there may be many. Who has them is not looked for.
///
/// # Errors
/// As of [`connections`].
pub fn each_connection(
    tables: &Tables,
    remote: Option<IpNet>,
    is_asked_for: impl Fn(ServiceId) -> bool,
    mut see: impl FnMut(Connection),
) -> Result<()> {
    let (netns, _) = tables.protects()?;
    ensure!(
        netns == environment::netns_cookie()?,
        "the instance protects another network namespace: run the command there, with nsenter(1), to see its sockets"
    );
    let now_s = ledger::now_s()?;
    // What ends in between is in neither; what begins in between has no record yet.
    let mut records = tables.records()?;
    let kept = tables.kept()?;
    records.extend(kept.iter().map(|(cookie, kept)| (*cookie, dated(kept))));
    let is_counted = |record: &ConnectionRecord| record.is_counted() && is_asked_for(record.service());
    sock_diag::connections(remote, |seen| {
        let Some(dated) = records.remove(&seen.cookie).filter(|dated| is_counted(&dated.record)) else {
            return;
        };
        let of_record =
            connection(seen.cookie, dated, seen.tuple.remote.ip(), State::of_tcp(seen.state), now_s);
        see(Connection { socket: Some(seen), ..of_record });
    })?;
    for (cookie, kept) in &kept {
        let address = kept.remote.to_ip();
        // One that is still there was found above.
        if records.contains_key(cookie)
            && is_counted(&kept.record)
            && remote.is_none_or(|remote| remote.contains(&address))
        {
            see(connection(*cookie, dated(kept), address, State::Dead, now_s));
        }
    }
    Ok(())
}

/// Finds the processes that have these connections.
pub fn find_processes(connections: &mut [Connection]) {
    let inode = |one: &Connection| one.socket.map(|socket| socket.inode).filter(|&inode| inode != 0);
    let mut owners = process::owners(&connections.iter().filter_map(inode).collect());
    for one in connections {
        one.process = inode(one).and_then(|inode| owners.remove(&inode));
    }
}

fn dated(kept: &Kept) -> DatedRecord {
    DatedRecord { record: kept.record, since_s: kept.since_s }
}

fn connection(cookie: u64, dated: DatedRecord, remote: IpAddr, state: State, now_s: u32) -> Connection {
    let DatedRecord { record, since_s } = dated;
    let since = (since_s != 0).then_some(since_s);
    Connection {
        service: record.service(),
        source: record.count_keys(&remote.into()).source,
        cookie,
        age: since.map(|since| Duration::from_secs(now_s.saturating_sub(since).into())),
        state,
        remote,
        socket: None,
        process: None,
    }
}

#[cfg(test)]
pub mod tests {
    //! What other tests make connections of.

    use super::*;
    use crate::sock_diag::FourTuple;

    /// A connection that has just begun.
    pub fn connection(state: State, remote: &str, local: &str) -> Connection {
        let (remote, local): (std::net::SocketAddr, _) = (remote.parse().unwrap(), local.parse().unwrap());
        let tcp = Tcp {
            sent_ago: Duration::ZERO,
            received_ago: Duration::ZERO,
            heard_ago: Duration::ZERO,
            sent: 0,
            received: 0,
            probes: 0,
            retransmits: 0,
            rtt: Duration::from_millis(20),
        };
        Connection {
            service: ServiceId(1),
            source: Key::NONE,
            cookie: 1,
            age: Some(Duration::ZERO),
            state,
            remote: remote.ip(),
            socket: Some(sock_diag::Connection {
                cookie: 1,
                tuple: FourTuple { remote, local, ifindex: 0 },
                state: TCP_ESTABLISHED,
                inode: 1,
                unread: 0,
                unacknowledged: 0,
                timer: None,
                tcp: Some(tcp),
            }),
            process: None,
        }
    }
}
