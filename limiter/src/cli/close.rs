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
    evidence::{
        self, Connection,
        kick::{self, Kicked},
    },
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Closed {
    /// Whether anything was closed.
    changed: bool,
    /// Whether it was only asked what would be.
    dry_run: bool,
    /// By service and source.
    sources: Vec<OfSource>,
}

/// What became of connections that were closed, by their cookies.
#[derive(Default)]
struct Fate {
    /// The mail daemon has ended them.
    by_mail_daemon: HashSet<u64>,
    /// It still has them.
    not_let_go: HashSet<u64>,
}

/// What was closed of a source.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OfSource {
    /// The service's name.
    service: String,
    /// What they are counted as.
    source: String,
    /// Connections that were closed, or would be.
    closed: usize,
    /// Of these, those that the mail daemon has ended in its own way, with a word to the client; the kernel has reset the
    /// others.
    by_mail_daemon: usize,
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
    let all = evidence::connections(&tables, Some(args.network), |_| true, true)?;
    // Of a dead one nothing is left to close: the mail daemon has to let go.
    let is_meant =
        |one: &&Connection| selected.includes(one.service) && one.socket.is_some() && args.means(one);
    let mut connections: Vec<Connection> = all.iter().filter(is_meant).cloned().collect();
    let mut fate = Fate::default();
    if !args.dry_run && !connections.is_empty() {
        let meant = connections.iter().map(|one| one.cookie).collect();
        let ports = evidence::ports(&tables, &selected)?;
        let Kicked { ended, problem } = kick::kick(&tables, args.network, &all, &meant, &ports)?;
        if let Some(problem) = problem {
            eprintln!("limiter: the kernel closes what the mail daemon cannot be asked to: {problem}");
        }
        fate.by_mail_daemon = ended;
        close(&mut connections, &fate.by_mail_daemon)?;
        fate.not_let_go = not_let_go(&tables, &connections)?;
    }
    let sources = by_source(&tables, &services, &connections, &fate)?;
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

/// Closes them, but for those that have `ended` already; of others keeps those that had not ended before.
fn close(connections: &mut Vec<Connection>, ended: &HashSet<u64>) -> Result<()> {
    if connections.iter().all(|one| ended.contains(&one.cookie)) {
        return Ok(());
    }
    let diag = Diag::open().context("cannot ask the kernel for single sockets (module tcp_diag)")?;
    let (mut closed, mut problem) = (ended.len(), None);
    connections.retain(|one| {
        if ended.contains(&one.cookie) {
            return true;
        }
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
    fate: &Fate,
) -> Result<Vec<OfSource>> {
    let mut sources: BTreeMap<(String, String), (Key, Vec<u64>)> = BTreeMap::new();
    for one in connections {
        let name = policy::service_name(services, one.service);
        let of_source = (name, one.source.addresses().to_string());
        sources.entry(of_source).or_insert((one.source, Vec::new())).1.push(one.cookie);
    }
    let of_source = |((service, source), (key, cookies)): (_, (Key, Vec<u64>))| {
        let left = tables.source(&key)?.map_or(0, |entry| entry.count.connections());
        let among = |fate: &HashSet<u64>| cookies.iter().filter(|cookie| fate.contains(cookie)).count();
        let (by_mail_daemon, not_let_go) = (among(&fate.by_mail_daemon), among(&fate.not_let_go));
        Ok(OfSource { service, source, closed: cookies.len(), by_mail_daemon, not_let_go, left })
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
            let OfSource { service, source, closed, by_mail_daemon, not_let_go, left } = of;
            let connections = if *closed == 1 { "connection" } else { "connections" };
            if self.dry_run {
                return format!("{service}: {source}: would close {closed} {connections} of {left}");
            }
            let waits = match not_let_go {
                0 => String::new(),
                some => format!("; the mail daemon has not let go of {some} yet"),
            };
            let how = match *by_mail_daemon {
                0 => String::new(),
                all if all == *closed => " by the mail daemon".to_owned(),
                some => format!(" ({some} by the mail daemon, {} by the kernel)", closed - some),
            };
            format!("{service}: {source}: closed {closed} {connections}{how}, {left} left{waits}")
        };
        self.sources.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_closed_is_said_by_service_and_source() {
        let of = |dry_run: bool, closed, (by_mail_daemon, not_let_go), left| {
            let source = OfSource {
                service: "imap".to_owned(),
                source: "203.0.113.7".to_owned(),
                closed,
                by_mail_daemon,
                not_let_go,
                left,
            };
            Closed { changed: !dry_run, dry_run, sources: vec![source] }.lines().remove(0)
        };
        assert_eq!(of(false, 3, (0, 0), 7), "imap: 203.0.113.7: closed 3 connections, 7 left");
        assert_eq!(of(true, 1, (0, 0), 10), "imap: 203.0.113.7: would close 1 connection of 10");
        assert_eq!(
            of(false, 2, (0, 1), 1),
            "imap: 203.0.113.7: closed 2 connections, 1 left; the mail daemon has not let go of 1 yet"
        );
        assert_eq!(
            of(false, 3, (3, 0), 0),
            "imap: 203.0.113.7: closed 3 connections by the mail daemon, 0 left"
        );
        assert_eq!(
            of(false, 3, (2, 0), 0),
            "imap: 203.0.113.7: closed 3 connections (2 by the mail daemon, 1 by the kernel), 0 left"
        );
        let none = Closed { changed: false, dry_run: false, sources: Vec::new() };
        assert_eq!(none.lines(), ["no matching connection"]);
    }
}
