// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What serves a service on this host: its listeners and their accept queues, the mail daemon, and what that limits itself.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use limiter_common::ServiceId;

use super::{
    Connection,
    case::Server,
    daemon_limits,
    mail_daemon::{Kind, MailDaemon},
    process::{self, Process},
    users::{self, Login},
    words,
};
use crate::{
    config::IMPLICIT_TLS,
    listeners::{self, Listener},
};

/// This long after it began, a connection should have been greeted.
const GREETED_WITHIN: Duration = Duration::from_secs(5);

/// What serves a service.
#[derive(Debug)]
pub struct Serving {
    /// As a case has it, but for connections that were not greeted.
    pub server: Server,
    /// The mail daemon, or why it cannot be asked.
    pub daemon: Result<MailDaemon, String>,
    /// Who is logged in at it, or why that is not known.
    pub logins: Result<Vec<Login>, String>,
}

/// What serves each service with these ports, and who is logged in there from `network`. What a mail daemon has not said by
/// the `deadline` is left out.
pub fn ask(
    ports: &HashMap<ServiceId, Vec<u16>>,
    network: IpNet,
    deadline: Instant,
) -> HashMap<ServiceId, Serving> {
    let mut services = here(ports);
    // Each is asked once, whatever it serves, and all at the same time.
    let daemons: BTreeSet<MailDaemon> =
        services.values().filter_map(|serving| serving.daemon.as_ref().ok()).cloned().collect();
    thread::scope(|scope| {
        let ask = |daemon: MailDaemon| {
            let (of_limits, of_users) = (daemon.clone(), daemon.clone());
            let limits = scope.spawn(move || daemon_limits::of(&of_limits, deadline));
            let logins = scope.spawn(move || users::ask(&of_users, Some(network), deadline));
            (daemon, limits, logins)
        };
        let asked: Vec<_> = daemons.into_iter().map(ask).collect();
        for (daemon, limits, logins) in asked {
            let limits = limits.join().unwrap_or_default();
            let logins = logins.join().unwrap_or_else(|_| Err("limiter failed to ask".to_owned()));
            for (id, serving) in &mut services {
                if serving.daemon.as_ref() == Ok(&daemon) {
                    let ports = ports.get(id).map_or(&[][..], Vec::as_slice);
                    serving.server.limits = daemon_limits::at(&limits, ports);
                    serving.logins.clone_from(&logins);
                }
            }
        }
    });
    services
}

/// Who listens at these ports, without asking anybody.
pub fn here(ports: &HashMap<ServiceId, Vec<u16>>) -> HashMap<ServiceId, Serving> {
    let listeners = listeners::all().unwrap_or_default();
    let of_services: HashSet<u16> = ports.values().flatten().copied().collect();
    let inodes = listeners.iter().filter(|listener| of_services.contains(&listener.port));
    let owners = process::owners(&inodes.map(|listener| listener.inode).collect());
    ports.iter().map(|(id, ports)| (*id, serving(ports, &listeners, &owners))).collect()
}

fn serving(ports: &[u16], listeners: &[Listener], owners: &HashMap<u32, Process>) -> Serving {
    let here = || listeners.iter().filter(|listener| ports.contains(&listener.port));
    let processes = || here().filter_map(|listener| owners.get(&listener.inode));
    let daemons = processes().filter_map(MailDaemon::of);
    // Rather one that can be asked.
    let daemon = daemons.reduce(|one, other| if one.is_ok() { one } else { other });
    let daemon = daemon.unwrap_or_else(|| {
        Err(match processes().next() {
            Some(process) => format!("{} is no mail daemon that limiter knows", words::shown(&process.name)),
            None => "nobody listens at the ports of the service".to_owned(),
        })
    });
    let server = Server {
        accept_queue: fullest(here()),
        daemon: processes().find_map(Kind::of).map(|kind| kind.name().to_owned()),
        ..Server::default()
    };
    Serving { server, logins: daemon.clone().map(|_| Vec::new()), daemon }
}

/// The accept queue of the listener with the least room: those in it, and how many there may be.
fn fullest<'a>(listeners: impl Iterator<Item = &'a Listener>) -> Option<(u32, u32)> {
    let queues = listeners.map(|listener| (listener.queued, listener.backlog));
    let per_mille = |(queued, backlog): &(u32, u32)| u64::from(*queued) * 1000 / u64::from(*backlog).max(1);
    queues.max_by_key(per_mille)
}

/// For how long a connection has waited for the first word of the server, if it still does; none as long as that is
/// nothing to wonder about. Where TLS starts at once the client speaks first.
pub fn not_greeted(connection: &Connection) -> Option<Duration> {
    let (socket, tcp) = (connection.socket?, connection.tcp()?);
    // An end counts as a byte.
    let is_greeted = tcp.sent > 1 || socket.unacknowledged > 0;
    let has_spoken = tcp.received > 0 || socket.unread > 0;
    let is_ours_to_speak = has_spoken || !IMPLICIT_TLS.contains(&socket.tuple.local.port());
    // Before anything is sent, this is since it began.
    let waited = tcp.sent_ago;
    (!is_greeted && is_ours_to_speak && waited > GREETED_WITHIN).then_some(waited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::{State, tests::connection},
        sock_diag::Tcp,
    };

    #[test]
    fn the_fullest_queue_counts() {
        let listener = |queued, backlog| Listener {
            address: [0, 0, 0, 0].into(),
            port: 25,
            ifindex: 0,
            takes_both: false,
            is_mptcp: false,
            cgroup: None,
            inode: 1,
            queued,
            backlog,
        };
        assert_eq!(fullest([].iter()), None);
        assert_eq!(fullest([listener(5, 100), listener(3, 4), listener(0, 0)].iter()), Some((3, 4)));
    }

    #[test]
    fn whoever_was_told_nothing_for_long_was_not_greeted() {
        let at = |port: u16, sent, received, seconds| {
            let mut one = connection(State::Open, "198.51.100.7:40000", &format!("192.0.2.1:{port}"));
            if let Some(socket) = &mut one.socket {
                let sent_ago = Duration::from_secs(seconds);
                socket.tcp = Some(Tcp { sent_ago, sent, received, ..socket.tcp.unwrap() });
            }
            not_greeted(&one).map(|waited| waited.as_secs())
        };
        assert_eq!(at(25, 0, 0, 60), Some(60));
        assert_eq!(at(25, 0, 0, 4), None, "it may still come");
        assert_eq!(at(25, 80, 0, 60), None);
        assert_eq!(at(993, 0, 0, 60), None, "the client has to begin");
        assert_eq!(at(993, 0, 300, 60), Some(60));
    }
}
