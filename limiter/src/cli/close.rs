// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter close`

use std::{
    collections::{BTreeMap, HashSet},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use limiter_common::Key;
use serde::Serialize;

use super::{
    input,
    loaded::{enter_protected, loaded},
    output::{self, Format},
};
use crate::{
    evidence::{self, Connection},
    instance::Instance,
    kernel::Tables,
    policy::{self, Services},
    sock_diag::Diag,
};

/// For so long the mail daemon has time to let go of what was closed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub struct Args {
    /// Clients with this IPv4 or IPv6 address, or in this network
    #[arg(value_name = "ADDR|NETWORK", value_parser = input::network)]
    network: IpNet,

    /// Only connections to these services, separated by commas [default: every service]
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    /// Only connections without data either way for this time, such as 1h
    #[arg(long, value_name = "TIME", value_parser = input::duration)]
    idle: Option<Duration>,

    /// Only connections from whose client nothing at all came for this time, not even an answer to a keepalive probe
    #[arg(long, value_name = "TIME", value_parser = input::duration)]
    silent: Option<Duration>,

    /// Only print what would be closed
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub format: Format,
}

/// What was closed.
#[derive(Serialize)]
struct Closed {
    changed: bool,
    dry_run: bool,
    /// By service and source.
    sources: Vec<OfSource>,
}

/// What was closed of a source.
#[derive(Serialize)]
struct OfSource {
    service: String,
    source: String,
    /// Connections that were closed, or would be.
    closed: usize,
    /// Of these, those of which the mail daemon has not let go yet: each still takes a place.
    not_let_go: usize,
    /// Connections that the source holds now.
    left: u32,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let tables = loaded(instance)?;
    enter_protected(instance, &tables)?;
    let services = tables.policy.services()?;
    let selected = policy::select(&services, args.service.as_deref())?;
    let is_asked_for = |id| selected.includes(id);
    let mut connections = evidence::connections(&tables, Some(args.network), is_asked_for, false)?;
    // Of a dead one nothing is left to close: the mail daemon has to let go.
    connections.retain(|one| one.socket.is_some() && args.means(one));
    if !args.dry_run && !connections.is_empty() {
        close(&mut connections)?;
    }
    let not_let_go = if args.dry_run { HashSet::new() } else { not_let_go(&tables, &connections)? };
    let sources = by_source(&tables, &services, &connections, &not_let_go)?;
    let closed = Closed { changed: !args.dry_run && !sources.is_empty(), dry_run: args.dry_run, sources };
    let lines = closed.lines();
    if closed.changed {
        output::remember(&lines);
    }
    if args.format.json {
        output::done_json(&closed, &lines);
    } else {
        output::done(&lines);
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Whether a connection is meant. What is not known does not make it so.
    fn means(&self, one: &Connection) -> bool {
        let is_at_least = |least: Option<Duration>, is: Option<Duration>| {
            least.is_none_or(|least| is.is_some_and(|is| is >= least))
        };
        is_at_least(self.idle, one.idle()) && is_at_least(self.silent, one.silent())
    }
}

/// Closes them; keeps those that had not ended before.
fn close(connections: &mut Vec<Connection>) -> Result<()> {
    let diag = Diag::open().context("cannot ask the kernel for single sockets (module tcp_diag)")?;
    let (mut closed, mut problem) = (0, None);
    connections.retain(|one| {
        let (Some(socket), None) = (one.socket, &problem) else { return false };
        match diag.close(&socket.tuple, one.cookie) {
            Ok(is_closed) => {
                closed += usize::from(is_closed);
                is_closed
            }
            Err(error) => {
                problem = Some(error);
                false
            }
        }
    });
    match problem {
        None => Ok(()),
        Some(error) if closed == 0 => {
            Err(error).context("the kernel cannot close connections (CONFIG_INET_DIAG_DESTROY)")
        }
        Some(error) => {
            bail!("closed {closed} connections, then the kernel closed no more: {error}; repeat the command")
        }
    }
}

/// The cookies of those that the mail daemon still has, after it has had time to let go.
fn not_let_go(tables: &Tables, closed: &[Connection]) -> Result<HashSet<u64>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut recorded = tables.recorded()?;
        recorded.extend(tables.kept()?.iter().map(|(cookie, _)| *cookie));
        let left: HashSet<u64> =
            closed.iter().map(|one| one.cookie).filter(|cookie| recorded.contains(cookie)).collect();
        if left.is_empty() || Instant::now() >= until {
            return Ok(left);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn by_source(
    tables: &Tables,
    services: &Services,
    connections: &[Connection],
    not_let_go: &HashSet<u64>,
) -> Result<Vec<OfSource>> {
    let mut sources: BTreeMap<(String, String), (Key, usize, usize)> = BTreeMap::new();
    for one in connections {
        let name = policy::service_name(services, one.service);
        let of_source = (name, one.source.addresses().to_string());
        let (_, closed, kept) = sources.entry(of_source).or_insert((one.source, 0, 0));
        *closed += 1;
        *kept += usize::from(not_let_go.contains(&one.cookie));
    }
    let of_source = |((service, source), (key, closed, not_let_go))| {
        let left = tables.source(&key)?.map_or(0, |entry| entry.count.connections());
        Ok(OfSource { service, source, closed, not_let_go, left })
    };
    sources.into_iter().map(of_source).collect()
}

impl Closed {
    /// What people are told.
    fn lines(&self) -> Vec<String> {
        if self.sources.is_empty() {
            return vec!["no matching connection".to_owned()];
        }
        let line = |of: &OfSource| {
            let OfSource { service, source, closed, not_let_go, left } = of;
            let connections = if *closed == 1 { "connection" } else { "connections" };
            if self.dry_run {
                return format!("{service}: {source}: would close {closed} {connections} of {left}");
            }
            let waits = match not_let_go {
                0 => String::new(),
                some => format!("; the mail daemon has not let go of {some} yet"),
            };
            format!("{service}: {source}: closed {closed} {connections}, {left} left{waits}")
        };
        self.sources.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_closed_is_said_by_service_and_source() {
        let of = |dry_run: bool, closed, not_let_go, left| {
            let source = OfSource {
                service: "imap".to_owned(),
                source: "203.0.113.7".to_owned(),
                closed,
                not_let_go,
                left,
            };
            Closed { changed: !dry_run, dry_run, sources: vec![source] }.lines().remove(0)
        };
        assert_eq!(of(false, 3, 0, 7), "imap: 203.0.113.7: closed 3 connections, 7 left");
        assert_eq!(of(true, 1, 0, 10), "imap: 203.0.113.7: would close 1 connection of 10");
        assert_eq!(
            of(false, 2, 1, 1),
            "imap: 203.0.113.7: closed 2 connections, 1 left; the mail daemon has not let go of 1 yet"
        );
        let none = Closed { changed: false, dry_run: false, sources: Vec::new() };
        assert_eq!(none.lines(), ["no matching connection"]);
    }
}
