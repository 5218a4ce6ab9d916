//! `limiter explain ADDR`

use std::{net::IpAddr, process::ExitCode};

use anyhow::Result;
use limiter_common::{Addr, Key, Places, Verdict, verdict};
use serde::Serialize;

use super::{loaded, output};
use crate::{instance::Instance, ledger};

#[derive(clap::Args)]
pub struct Args {
    /// IPv4 or IPv6 address of a client
    #[arg(value_name = "ADDR")]
    address: IpAddr,

    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Explanation {
    address: String,
    /// Whether it is the host itself, which is never refused.
    own: bool,
    services: Vec<Standing>,
}

/// Where the address stands with one service.
#[derive(Serialize)]
struct Standing {
    service: String,
    /// The network it is counted as.
    source: String,
    connections: u32,
    limit: Option<u32>,
    refused: u64,
    /// What its next connection would get.
    verdict: &'static str,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let tables = loaded(instance)?;
    let address = Addr::from(args.address);
    let own = address.is_loopback();
    let mut services = Vec::new();
    for (id, policy) in tables.services()? {
        let key = Key::narrow(id, &policy, &address);
        let entry = tables.source(&key)?.unwrap_or_default();
        let places = if entry.places == Places::COLLECTED { Places(0) } else { entry.places };
        services.push(Standing {
            service: policy.name().to_owned(),
            source: ledger::network(&key),
            connections: places.connections(),
            limit: (!own).then_some(policy.max_connections),
            refused: entry.refused,
            verdict: match verdict::judge(&policy, own, places) {
                Verdict::Admit => "admit",
                Verdict::Refuse(..) => "refuse",
            },
        });
    }
    services.sort_by(|a, b| a.service.cmp(&b.service));
    let explanation = Explanation { address: address.to_ip().to_string(), own, services };
    if args.json {
        output::json(&explanation)?;
    } else {
        print(instance, &explanation)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(instance: &Instance, explanation: &Explanation) -> Result<()> {
    let Explanation { address, own, services } = explanation;
    if *own {
        output::line(&format!("{address} is this host itself: it is counted, and never refused.\n"))?;
    }
    let header = ["SERVICE", "COUNTED AS", "CONNECTIONS", "LIMIT", "REFUSED", "NEXT CONNECTION"];
    let rows = services.iter().map(|standing| {
        vec![
            standing.service.clone(),
            standing.source.clone(),
            standing.connections.to_string(),
            standing.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
            standing.refused.to_string(),
            match standing.verdict {
                "admit" => "admitted".to_owned(),
                _ => "refused: holds its limit".to_owned(),
            },
        ]
    });
    output::table(&header, 2..5, rows.collect())?;
    for Standing { service, connections, .. } in services.iter().filter(|s| s.verdict == "refuse") {
        let more = connections + 1;
        output::line(&format!(
            "\n{service}: {address} gets in again when one of its connections ends, or after `limiter --instance {instance} \
             set {service} max_connections={more}`."
        ))?;
    }
    Ok(())
}
