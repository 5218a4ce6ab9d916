// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Gathers all that is known of one address at the services that are asked about: a [`Case`] each.
//!
//! The limiter's own maps and the kernel's table of sockets are read here, each once, however many services are asked
//! about; whoever may keep us waiting is asked by other threads meanwhile.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use ipnet::IpNet;
use limiter_common::{Penalty, Protocol, Reason, ServiceId};

use super::{
    Connection,
    case::{AddressKind, Case, Known, Server, Session, Whole},
    each_connection, find_processes, server,
    users::{self, Login},
    whole::{self, Tally},
};
use crate::{
    config,
    kernel::Tables,
    ledger,
    policy::{Lookup, Selection},
    standing::{AtService, Standing},
};

/// How long mail daemons have to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the socket table says of one service.
#[derive(Default)]
struct Seen {
    tally: Tally,
    not_greeted: u32,
    longest_not_greeted: Duration,
    /// Connections of the source that is asked about.
    of_source: Vec<Connection>,
}

/// All that is known of the address of `standing` at these services, in the order in which it has them.
///
/// # Errors
/// When a map cannot be read, or the kernel does not show its sockets, as in another network namespace than the one that is
/// protected. A mail daemon that says nothing is no error.
pub fn gather(tables: &Tables, standing: &Standing, services: &Selection) -> Result<Vec<Case>> {
    let deadline = Instant::now() + PATIENCE;
    let ports = ports(tables, services)?;
    let network = widest(standing, services);
    let asked = thread::spawn(move || server::ask(&ports, network, deadline));
    let seen = look(tables, standing, services);
    // Whatever became of the rest, no thread is left behind.
    let mut serving = asked.join().unwrap_or_default();
    let mut seen = seen?;
    let (rules, penalties) = (tables.policy.rules()?, tables.penalties()?);
    let rules = Lookup::new(&rules);
    let now_ns = ledger::now_ns()?;
    let mut cases = Vec::new();
    for at in standing.services.iter().filter(|at| services.includes(at.facts.count_keys.service())) {
        let id = at.facts.count_keys.service();
        let seen = seen.remove(&id).unwrap_or_default();
        let Seen { tally, not_greeted, longest_not_greeted, of_source } = seen;
        let serving = serving.remove(&id);
        let server = serving.as_ref().map(|serving| serving.server.clone()).unwrap_or_default();
        let server = Server { not_greeted, longest_not_greeted, ..server };
        let refused_lately = whole::refused_lately(&penalties, &at.facts.count_keys.source, now_ns);
        let limit = |key: &_| ledger::limit_of(key, &at.facts.policy, &rules);
        let whole = tally.whole(limit, refused_lately, &of_all(at));
        let logins = serving.map_or_else(|| Err("nobody was asked".to_owned()), |serving| serving.logins);
        cases.push(Case { whole, server, ..case(standing, at, of_source, &logins, now_ns) });
    }
    Ok(cases)
}

/// The ports of each of these services.
///
/// # Errors
/// When the map cannot be read.
pub fn ports(tables: &Tables, services: &Selection) -> Result<HashMap<ServiceId, Vec<u16>>> {
    let mut ports: HashMap<ServiceId, Vec<u16>> = HashMap::new();
    for (port, id) in (0_u16..=u16::MAX).zip(tables.policy.ports()?) {
        if id != 0 && services.includes(ServiceId(id)) {
            ports.entry(ServiceId(id)).or_default().push(port);
        }
    }
    Ok(ports)
}

/// One look at all connections.
fn look(tables: &Tables, standing: &Standing, services: &Selection) -> Result<HashMap<ServiceId, Seen>> {
    let address = standing.address.to_ip();
    let keys: HashMap<ServiceId, _> = standing
        .services
        .iter()
        .map(|at| (at.facts.count_keys.service(), at.facts.count_keys.source))
        .collect();
    let mut seen: HashMap<ServiceId, Seen> = HashMap::new();
    each_connection(
        tables,
        None,
        |id| services.includes(id),
        |connection| {
            let of = seen.entry(connection.service).or_default();
            of.tally.count(connection.source);
            if let Some(waited) = server::not_greeted(&connection) {
                of.not_greeted += 1;
                of.longest_not_greeted = of.longest_not_greeted.max(waited);
            }
            // One from before a change of what makes a source is counted as what it was then.
            if keys.get(&connection.service) == Some(&connection.source) || connection.remote == address {
                of.of_source.push(connection);
            }
        },
    )?;
    let mut all: Vec<Connection> =
        seen.values_mut().flat_map(|of| std::mem::take(&mut of.of_source)).collect();
    find_processes(&mut all);
    for connection in all {
        seen.entry(connection.service).or_default().of_source.push(connection);
    }
    Ok(seen)
}

/// What the counts say of a service as a whole.
fn of_all(at: &AtService) -> Whole {
    let (usage, keys) = (&at.facts.usage, &at.facts.count_keys);
    let network = || {
        let network = config::ip_net(&keys.network.addresses());
        (network, usage.network.connections(), number(at.network_limit))
    };
    Whole {
        connections: usage.total.connections(),
        max_total: number(at.limits.total),
        network: keys.has_network().then(network),
        ..Whole::default()
    }
}

fn case(
    standing: &Standing,
    at: &AtService,
    connections: Vec<Connection>,
    logins: &Result<Vec<Login>, String>,
    now_ns: u64,
) -> Case {
    let (policy, keys, penalty) = (&at.facts.policy, &at.facts.count_keys, &at.facts.penalty);
    let protocol = Protocol::from_u8(policy.protocol).unwrap_or(Protocol::Smtp);
    let source = config::ip_net(&keys.source.addresses());
    Case {
        now_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        address: standing.address.to_ip(),
        kind: kind(standing.address.host().to_ip(), standing.is_local()),
        service: at.name().to_owned(),
        protocol,
        source,
        connections: at.facts.usage.source.connections(),
        limit: number(if at.limits.denied { 0 } else { at.limits.source }),
        reason: at.reason,
        waiting: at.facts.waiting.count,
        refused: refused(penalty),
        last_refused: (penalty.refused_ns != 0)
            .then(|| Duration::from_nanos(now_ns.saturating_sub(penalty.refused_ns))),
        sessions: sessions(connections, logins),
        users: match logins {
            Ok(logins) => Known::Is(users::counted(logins, protocol, &source)),
            Err(reason) => Known::Not(reason.clone()),
        },
        history: Known::Not("no history is kept".to_owned()),
        watched: None,
        whole: Whole::default(),
        server: Server::default(),
    }
}

/// The connections with their users, the oldest first. One whose age is not known is older than the limiter.
fn sessions(connections: Vec<Connection>, logins: &Result<Vec<Login>, String>) -> Vec<Session> {
    let users = logins.as_ref().map(|logins| users::by_process(logins)).unwrap_or_default();
    let session = |connection: Connection| {
        let user = connection.process.as_ref().and_then(|process| users.get(&process.pid)).cloned();
        Session { connection, user }
    };
    let mut sessions: Vec<Session> = connections.into_iter().map(session).collect();
    sessions.sort_by_key(|Session { connection, .. }| {
        (connection.age.is_some(), Reverse(connection.age), connection.cookie)
    });
    sessions
}

/// The largest network that the address is counted as at any of the services.
fn widest(standing: &Standing, services: &Selection) -> IpNet {
    let keys = standing.services.iter().map(|at| &at.facts.count_keys);
    let asked = keys.filter(|keys| services.includes(keys.service()) && !keys.source.is_shared());
    let sources = asked.map(|keys| config::ip_net(&keys.source.addresses()));
    sources.min_by_key(IpNet::prefix_len).unwrap_or_else(|| standing.address.to_ip().into())
}

fn refused(penalty: &Penalty) -> BTreeMap<Reason, u64> {
    let times = Reason::ALL.into_iter().zip(penalty.refused).filter(|(_, times)| *times > 0);
    times.map(|(reason, times)| (reason, times.into())).collect()
}

/// A limit, if it is one.
fn number(limit: u32) -> Option<u32> {
    (limit != u32::MAX).then_some(limit)
}

fn kind(address: IpAddr, is_local: bool) -> AddressKind {
    let is_private = match address {
        // RFC 6598: 100.64.0.0/10.
        IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 => {
            return if is_local { AddressKind::Local } else { AddressKind::CarrierNat };
        }
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    if is_local || address.is_loopback() {
        AddressKind::Local
    } else if is_private {
        AddressKind::Private
    } else {
        AddressKind::Public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_a_kind() {
        for (address, expected) in [
            ("203.0.113.7", AddressKind::Public),
            ("10.1.2.3", AddressKind::Private),
            ("172.17.0.1", AddressKind::Private),
            ("172.32.0.1", AddressKind::Public),
            ("169.254.1.1", AddressKind::Private),
            ("100.64.0.1", AddressKind::CarrierNat),
            ("100.127.255.255", AddressKind::CarrierNat),
            ("100.128.0.1", AddressKind::Public),
            ("127.0.0.1", AddressKind::Local),
            ("::1", AddressKind::Local),
            ("fd00::1", AddressKind::Private),
            ("fe80::1", AddressKind::Private),
            ("2001:db8::1", AddressKind::Public),
        ] {
            assert_eq!(kind(address.parse().unwrap(), false), expected, "{address}");
        }
        assert_eq!(kind("192.0.2.1".parse().unwrap(), true), AddressKind::Local);
    }
}
