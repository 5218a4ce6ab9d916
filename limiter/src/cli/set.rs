// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter set SERVICE KEY=VALUE…`

use std::process::ExitCode;

use anyhow::Result;

use super::{
    answer::{Answer, Done, Save},
    keepalive,
    loaded::locked,
    output::Format,
};
use crate::{
    config::{self, Change, Setting},
    instance::Instance,
    policy,
};

#[derive(clap::Args)]
pub struct Args {
    /// Service, as in `limiter status`; several separated by commas, or `all`
    #[arg(value_name = "SERVICE")]
    service: String,

    /// Settings to change, as in the file: `max_connections=N` (per source), `rate=60/min` and `burst=N`
    /// (default: the number in the rate), `network_max_connections=N` (per network, `max_connections` of
    /// `network` in the file), `max_total=N` and `reserve=N`, `keepalive=10m`, `wait=10s` (how long a client
    /// waits for a place before it is refused; `0s` refuses it at once), `response=reply`, `reset` or
    /// `drop`, `mode=observe` or `enforce`; `none` removes a rate, network limit, total or keepalive
    #[arg(value_name = "KEY=VALUE", required = true)]
    settings: Vec<String>,

    #[command(flatten)]
    save: Save,

    #[command(flatten)]
    pub format: Format,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    // All of them before anything is touched: one mistake and nothing changes.
    let settings =
        args.settings.iter().map(|text| config::parse_setting(text)).collect::<Result<Vec<Setting>, _>>()?;
    let (mut tables, _policy) = locked(instance, Instance::lock_policy)?;

    let before = tables.policy.policy()?;
    let selected = policy::select(&before.services, Some(&args.service))?;
    let edits: Vec<Change<'_>> = selected
        .names()
        .into_iter()
        .map(|service| Change::Settings { service, settings: &settings })
        .collect();
    let planned = policy::plan(before, &edits)?;
    let pairs = planned.before.services.iter().zip(&planned.after.services);
    let mut done = Vec::new();
    for ((_, before), (_, after)) in pairs.filter(|((id, _), _)| selected.contains(*id)) {
        for (was, is) in config::changes(&settings, before, after) {
            let change = Done::new(after.name(), Some(was.to_string()), is.to_string());
            done.push(Done { key: Some(is.key()), ..change });
        }
    }
    let file = planned.carry_out(instance, &mut tables, args.save.is_asked())?;
    keepalive::reach(instance, &tables, &done);
    let answer = Answer::saved(done, file);
    answer.show(&args.format);
    Ok(ExitCode::SUCCESS)
}
