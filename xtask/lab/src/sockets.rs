// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the kernel's own socket table says, read with `ss`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the test fails, and says where")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::command::run;
use crate::pinned::Records;
use crate::{Limiter, Namespace, SOON, eventually, same};

/// A connection of the mail host.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client's end.
    pub remote: SocketAddr,
    /// Its state, as `ss` writes it.
    pub state: String,
    /// `users:(("smtpd",pid=12,fd=6))`, or nothing while no one has accepted it.
    pub owners: String,
}

/// The connections to `port` that count by the design, the greeter's among them: established, or with one direction
/// closed, by the client (`CLOSE_WAIT`) or by the mail daemon that still holds them. Dead ones are in no table.
pub fn established(host: &Namespace, port: u16) -> Vec<Connection> {
    let mut established = table(host, port, &["ESTAB", "CLOSE-WAIT", "FIN-WAIT-1", "FIN-WAIT-2"]);
    // What nobody holds any more the kernel brings to its end alone.
    established.retain(|connection| !connection.state.starts_with("FIN") || !connection.owners.is_empty());
    established
}

/// Handshakes to `port` that are not completed.
pub fn half_open(host: &Namespace, port: u16) -> Vec<Connection> {
    table(host, port, &["SYN-RECV"])
}

/// How many sockets listen on any of `ports`.
pub fn listeners(host: &Namespace, ports: &[u16]) -> usize {
    let mut command = host.command("ss");
    command.arg("-Htln");
    let ports: Vec<String> = ports.iter().map(|port| format!(":{port}")).collect();
    let on_port = |line: &&str| {
        let local = line.split_whitespace().nth(3).unwrap_or("");
        ports.iter().any(|port| local.ends_with(port))
    };
    run(command).unwrap().lines().filter(on_port).count()
}

fn table(host: &Namespace, port: u16, states: &[&str]) -> Vec<Connection> {
    let mut command = host.command("ss");
    command.args(["-Htanp", &format!("sport = :{port}")]);
    let text = run(command).unwrap();
    let all = text
        .lines()
        .filter(|line| !line.starts_with("LISTEN"))
        .map(|line| parse(line).unwrap_or_else(|| panic!("a line of ss not understood: {line:?}")));
    all.filter(|connection| states.contains(&connection.state.as_str())).collect()
}

fn parse(line: &str) -> Option<Connection> {
    let mut fields = line.split_whitespace();
    let state = fields.next()?.to_owned();
    let remote: SocketAddr = fields.nth(3)?.parse().ok()?;
    // A dual-stack listener has its IPv4 peers as mapped addresses.
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    Some(Connection { remote, state, owners: fields.collect() })
}

/// The connections to `port` that the limiter has to count, by remote address: all but the greeter's.
pub fn held(host: &Namespace, port: u16, limiter: &Limiter) -> BTreeMap<IpAddr, u64> {
    let greeter = format!("pid={},", limiter.pid().unwrap_or(0));
    let mut held = BTreeMap::new();
    for connection in established(host, port) {
        if !connection.owners.contains(&greeter) {
            *held.entry(connection.remote.ip()).or_default() += 1;
        }
    }
    held
}

/// Waits until both the kernel and the limiter say that `source` holds `expected` connections to
/// `service` on `port`.
#[track_caller]
pub fn agree(
    host: &Namespace,
    limiter: &Limiter,
    (service, port): (&str, u16),
    source: IpAddr,
    expected: u64,
) {
    eventually(&format!("{source} holds {expected} of {service}, by ss and by limiter list"), SOON, || {
        let kernel = held(host, port, limiter).get(&source).copied().unwrap_or(0);
        let ours = limiter.source(service, source).connections;
        if kernel == expected && ours == expected {
            return Ok(());
        }
        Err(format!("ss: {kernel}, limiter list: {ours}\n{:#?}", established(host, port)))
    });
}

/// Waits until the kernel says that `source` holds so many connections that are alive, and the limiter counts so
/// many dead ones beside them, and requires that `--verify` agrees.
#[track_caller]
pub fn with_dead(
    host: &Namespace,
    limiter: &Limiter,
    (service, port): (&str, u16),
    source: IpAddr,
    (alive, dead): (u64, u64),
) {
    eventually(&format!("{source} holds {alive} of {service}, and {dead} that are dead"), SOON, || {
        let kernel = held(host, port, limiter).get(&source).copied().unwrap_or(0);
        let ours = limiter.source(service, source).connections;
        let verified = limiter.json(&["status", "--verify"])["verified"].clone();
        let agrees = verified["differences"].as_array().is_some_and(Vec::is_empty);
        if kernel == alive && ours == alive + dead && verified["dead"] == dead && agrees {
            return Ok(());
        }
        Err(format!("ss: {kernel}, limiter list: {ours}, {verified:#}\n{:#?}", established(host, port)))
    });
}

/// Waits until the kernel has no connection to `port`, then requires that the limiter is even: every
/// count 0, nothing reserved, no drift, nothing let through uncounted.
#[track_caller]
pub fn settled(host: &Namespace, limiter: &Limiter, port: u16) {
    eventually(&format!("no connection to port {port} is left"), SOON, || {
        let left: Vec<_> = established(host, port).into_iter().chain(half_open(host, port)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    eventually("every count is 0", SOON, || {
        let list = limiter.json(&["list"]);
        let sources = list["sources"].as_array().ok_or_else(|| format!("no sources in {list}"))?;
        let even = sources.iter().all(|source| source["connections"] == 0 && source["reserved"] == 0);
        if even { Ok(()) } else { Err(format!("{list:#}")) }
    });
    eventually("no connection has a record", SOON, || {
        same("records", &Records::open(limiter).len(), &(0, 0))
    });
    for service in limiter.services() {
        for counter in ["drift", "uncounted"] {
            assert_eq!(
                limiter.counter(&service, counter),
                0,
                "{counter} of {service}: {:#}",
                limiter.json(&["status"])
            );
        }
    }
}
