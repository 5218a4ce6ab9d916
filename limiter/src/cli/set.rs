//! `limiter set SERVICE KEY=VALUE…`

use std::process::ExitCode;

use anyhow::Result;

use super::{
    list, locked,
    save::{self, Save},
};
use crate::{
    config::{self, Change, Setting},
    instance::Instance,
};

#[derive(clap::Args)]
pub struct Args {
    /// The service, as `limiter status` names it
    #[arg(value_name = "SERVICE")]
    service: String,

    /// What to change, as the file writes it: `max_connections=N` (per source), `rate=60/min` and
    /// `burst=N` (without it, as many as the rate's number), `network_max_connections=N` (per network,
    /// as `max_connections` of `network`), `max_total=N` and `reserve=N`, `keepalive=10m`, `wait=10s` (for
    /// a place, before a client is told why; `0s` to tell it at once), `response=reply`, `reset` or `drop`, `mode=observe` or `enforce`; `none` takes a rate, network, total or
    /// keepalive away
    #[arg(value_name = "KEY=VALUE", required = true)]
    settings: Vec<String>,

    #[command(flatten)]
    save: Save,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    // All of them before anything is touched: one mistake and nothing changes.
    let settings =
        args.settings.iter().map(|text| config::parse_setting(text)).collect::<Result<Vec<Setting>, _>>()?;
    let (mut tables, _policy) = locked(instance, Instance::lock_policy)?;
    list::known(&tables, &args.service)?;

    let before = tables.policy.policy()?;
    let mut policy = before.clone();
    let mut lines = Vec::new();
    for (_, service) in policy.services.iter_mut().filter(|(_, policy)| policy.name() == args.service) {
        let before = *service;
        *service = config::apply(&settings, &before)?;
        for (was, is) in config::changes(&settings, &before, service) {
            lines.push(format!("{}: {} {was} -> {is}", args.service, is.key()));
        }
    }
    let change = Change::Settings { service: &args.service, settings: &settings };
    let pending = args.save.prepare(instance, &tables, &change)?;
    save::carry_out(instance, &mut tables, &before, &policy, pending, &lines)?;
    Ok(ExitCode::SUCCESS)
}
