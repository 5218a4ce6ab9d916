//! `limiter set SERVICE KEY=VALUE…`

use std::process::ExitCode;

use anyhow::Result;

use super::{list, loaded, output, status};
use crate::{
    config::{self, Setting},
    instance::Instance,
};

#[derive(clap::Args)]
pub struct Args {
    /// The service, as `limiter status` names it
    #[arg(value_name = "SERVICE")]
    service: String,

    /// `max_connections=N` (per source), `response=reply` or `response=reset`
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
        let mut after = before;
        for setting in &settings {
            setting.apply(&mut after);
        }
        tables.set_service(id, &after)?;
        for setting in &settings {
            let (key, from, to) = match setting {
                Setting::MaxConnections(_) => {
                    ("max_connections", before.max_connections.to_string(), after.max_connections.to_string())
                }
                Setting::Response(_) => (
                    "response",
                    status::response(before.response).to_owned(),
                    status::response(after.response).to_owned(),
                ),
            };
            output::line(&format!("{}: {key} {from} -> {to}", args.service))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
