//! `limiter status`

use std::{collections::HashMap, process::ExitCode};

use anyhow::{Result, anyhow};
use limiter_common::{Counters, Protocol, Response, ServiceId};
use serde::Serialize;

use super::{NOTHING_LOADED, loaded, output};
use crate::{
    instance::{Daemon, Instance},
    kernel::{Found, Tables, environment},
};

#[derive(clap::Args)]
pub struct Args {
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Status {
    instance: String,
    daemon: Daemon,
    services: Vec<Service>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Service {
    name: String,
    ports: Vec<u16>,
    protocol: &'static str,
    max_connections: u32,
    response: &'static str,
    connections: u64,
    counters: CounterValues,
}

#[derive(Serialize)]
struct CounterValues {
    accepted: u64,
    refused_concurrency: u64,
    replied: u64,
    held: u64,
    contended: u64,
    unreserved: u64,
    uncounted: u64,
    drift: u64,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    environment::check()?;
    if matches!(Found::inspect(instance)?, Found::Nothing) {
        let nothing = anyhow!(
            "nothing is loaded as instance {instance}: start it with `limiter --instance {instance} run`"
        );
        eprintln!("limiter: {nothing}");
        return Ok(ExitCode::from(NOTHING_LOADED));
    }
    let tables = loaded(instance)?;
    let services = services(&tables)?;
    let daemon = instance.daemon()?;
    let warnings = warnings(&daemon, &services);
    let status = Status { instance: instance.to_string(), daemon, services, warnings };
    if args.json {
        output::json(&status)?;
    } else {
        print(&status)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn services(tables: &Tables) -> Result<Vec<Service>> {
    let mut ports: HashMap<u8, Vec<u16>> = HashMap::new();
    for (port, id) in (0_u16..=u16::MAX).zip(tables.ports()?).filter(|(_, id)| *id != 0) {
        ports.entry(id).or_default().push(port);
    }
    let mut live: HashMap<u8, u64> = HashMap::new();
    for (key, entry) in tables.sources()? {
        *live.entry(key.service).or_default() += u64::from(entry.places.connections());
    }
    let service = |(id, policy): (ServiceId, limiter_common::ServicePolicy)| -> Result<Service> {
        Ok(Service {
            name: policy.name().to_owned(),
            ports: ports.remove(&id.0).unwrap_or_default(),
            protocol: protocol(policy.protocol),
            max_connections: policy.max_connections,
            response: response(policy.response),
            connections: live.get(&id.0).copied().unwrap_or_default(),
            counters: CounterValues::from(tables.counters(id)?),
        })
    };
    let mut services = tables.services()?.into_iter().map(service).collect::<Result<Vec<_>>>()?;
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(services)
}

impl From<Counters> for CounterValues {
    fn from(sum: Counters) -> Self {
        let Counters {
            accepted,
            refused_concurrency,
            replied,
            held,
            contended,
            unreserved,
            uncounted,
            drift,
        } = sum;
        Self { accepted, refused_concurrency, replied, held, contended, unreserved, uncounted, drift }
    }
}

/// A protocol as the configuration names it.
pub fn protocol(number: u8) -> &'static str {
    match Protocol::from_u8(number) {
        Some(Protocol::Smtp) => "smtp",
        Some(Protocol::Imap) => "imap",
        Some(Protocol::Pop3) => "pop3",
        Some(Protocol::Sieve) => "sieve",
        None => "unknown",
    }
}

/// A response as the configuration names it.
pub fn response(number: u8) -> &'static str {
    match Response::from_u8(number) {
        Response::Reply => "reply",
        Response::Reset => "reset",
    }
}

fn warnings(daemon: &Daemon, services: &[Service]) -> Vec<String> {
    let mut warnings = Vec::new();
    if !daemon.running {
        warnings.push(
            "the daemon is not running: the limits hold, but refused clients get a reset instead of a reason; start \
             `limiter run`"
                .to_owned(),
        );
    }
    for Service { name, counters, .. } in services {
        if counters.uncounted > 0 {
            warnings.push(format!(
                "{name}: {} connections were let through uncounted: the ledger was full or memory short; raise max_sources",
                counters.uncounted
            ));
        }
        if counters.drift > 0 {
            warnings.push(format!(
                "{name}: {} connections were let go that the ledger did not know of: please report this",
                counters.drift
            ));
        }
    }
    warnings
}

fn print(status: &Status) -> Result<()> {
    let daemon = match status.daemon.pid {
        Some(pid) => format!("daemon running, pid {pid}"),
        None => "daemon not running".to_owned(),
    };
    output::line(&format!("instance {}: limits in force, {daemon}\n", status.instance))?;
    let header =
        ["SERVICE", "PORTS", "RESPONSE", "LIMIT", "CONNECTIONS", "ACCEPTED", "REFUSED", "REPLIED", "HELD"];
    let rows = status.services.iter().map(|service| {
        let ports = service.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        vec![
            service.name.clone(),
            if ports.is_empty() { "(none)".to_owned() } else { ports },
            service.response.to_owned(),
            service.max_connections.to_string(),
            service.connections.to_string(),
            service.counters.accepted.to_string(),
            service.counters.refused_concurrency.to_string(),
            service.counters.replied.to_string(),
            service.counters.held.to_string(),
        ]
    });
    output::table(&header, 3..header.len(), rows.collect())?;
    for warning in &status.warnings {
        output::line(&format!("\nwarning: {warning}"))?;
    }
    Ok(())
}
