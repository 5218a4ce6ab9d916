//! `limiter set SERVICE KEY=VALUE…`

use std::process::ExitCode;

use anyhow::Result;

use super::{list, loaded, output};
use crate::{
    config::{self, Setting},
    instance::Instance,
};

#[derive(clap::Args)]
pub struct Args {
    /// The service, as `limiter status` names it
    #[arg(value_name = "SERVICE")]
    service: String,

    /// What to change, as the file writes it: `max_connections=N` (per source), `rate=60/min` and
    /// `burst=N` (without it, as many as the rate's number), `network_max_connections=N` (per network,
    /// as `max_connections` of `network`), `max_total=N` and `reserve=N`, `keepalive=10m`,
    /// `response=reply` or `reset`; `none` takes a rate, network, total or keepalive away
    #[arg(value_name = "KEY=VALUE", required = true)]
    settings: Vec<String>,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    // All of them before anything is touched: one mistake and nothing changes.
    let settings =
        args.settings.iter().map(|text| config::parse_setting(text)).collect::<Result<Vec<Setting>, _>>()?;
    let mut tables = loaded(instance)?;
    list::known(&tables, &args.service)?;

    let _policy = instance.lock_policy()?;
    for (id, before) in tables.services()? {
        if before.name() != args.service {
            continue;
        }
        let after = config::apply(&settings, &before)?;
        tables.set_service(id, &after)?;
        for (was, is) in config::changes(&settings, &before, &after) {
            output::line(&format!("{}: {} {was} -> {is}", args.service, is.key()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
