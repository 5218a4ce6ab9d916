//! `limiter list`

use std::{cmp::Reverse, process::ExitCode};

use anyhow::Result;
use limiter_common::{ServiceId, ServicePolicy};
use serde::Serialize;

use super::{WrongUsage, loaded, output};
use crate::{
    instance::Instance,
    kernel::Tables,
    ledger::{self, Source},
};

#[derive(clap::Args)]
pub struct Args {
    /// Only this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    /// Only sources with more connections than this
    #[arg(long, value_name = "N")]
    over: Option<u32>,

    /// Which come first
    #[arg(long, value_enum, default_value_t = Sort::Connections)]
    sort: Sort,

    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Sort {
    /// Most connections
    Connections,
    /// Most refused
    Refused,
    /// By name
    Source,
    /// Most lately seen
    Seen,
}

#[derive(Serialize)]
struct List {
    sources: Vec<Source>,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let tables = loaded(instance)?;
    if let Some(service) = &args.service {
        known(&tables, service)?;
    }
    let mut sources = ledger::sources(&tables)?;
    sources.retain(|source| {
        args.service.as_ref().is_none_or(|service| source.service == *service)
            && args.over.is_none_or(|over| source.connections > over)
    });
    sources.sort_by(|a, b| (&a.service, &a.source).cmp(&(&b.service, &b.source)));
    match args.sort {
        Sort::Connections => sources.sort_by_key(|source| Reverse(source.connections)),
        Sort::Refused => sources.sort_by_key(|source| Reverse(source.refused)),
        Sort::Source => {}
        Sort::Seen => sources.sort_by_key(|source| source.idle_seconds),
    }
    if args.json {
        output::json(&List { sources })?;
    } else {
        print(&sources)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// That there is a service of this name.
pub fn known(tables: &Tables, name: &str) -> Result<()> {
    let services = tables.policy.services()?;
    if services.iter().any(|(_, policy)| policy.name() == name) {
        return Ok(());
    }
    Err(unknown_service(&services, name))
}

/// There is no service of this name, but others.
pub fn unknown_service(services: &[(ServiceId, ServicePolicy)], name: &str) -> anyhow::Error {
    let mut names: Vec<_> = services.iter().map(|(_, policy)| policy.name()).collect();
    names.sort_unstable();
    WrongUsage(format!("there is no service {name}: choose one of {}", names.join(", "))).into()
}

fn print(sources: &[Source]) -> Result<()> {
    if sources.is_empty() {
        return output::line("no source holds a connection, or has held one lately");
    }
    let header = [
        "SERVICE",
        "SOURCE",
        "CONNECTIONS",
        "LIMIT",
        "WAITING",
        "PEAK",
        "ACCEPTED",
        "REFUSED",
        "HELD",
        "LAST SEEN",
    ];
    let rows = sources.iter().map(|source| {
        vec![
            source.service.clone(),
            if source.tier == "shared" {
                format!("{} (shared)", source.source)
            } else {
                source.source.clone()
            },
            source.connections.to_string(),
            source.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
            waiting(source.waiting, source.waiting_seconds),
            source.peak.to_string(),
            source.accepted.to_string(),
            source.refused.to_string(),
            source.held.to_string(),
            if source.connections > 0 { "now".to_owned() } else { output::ago(source.idle_seconds) },
        ]
    });
    output::table(&header, 2..9, rows.collect())
}

/// How many wait, and how long the first has.
pub fn waiting(count: u32, seconds: f64) -> String {
    if count == 0 { "0".to_owned() } else { format!("{count} ({seconds} s)") }
}
