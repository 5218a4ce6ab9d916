// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter history`

mod csv;
mod forget;
#[cfg(test)]
mod samples;
mod screen;
mod summary;

use std::{io, process::ExitCode, time::Duration};

use anyhow::{Result, anyhow, bail};
use clap::Subcommand;
use ipnet::IpNet;
use serde::Serialize;

use super::{
    exit::WrongUsage,
    input,
    output::{self, Format},
};
use crate::{
    history::{self, Asked, Gap, Report},
    instance::Instance,
};

#[cfg(test)]
pub use samples::STATES;

#[derive(clap::Args)]
pub struct Args {
    /// Only sources with this IPv4 or IPv6 address, or in this network: all that is kept of them
    #[arg(value_name = "ADDR|NETWORK", value_parser = input::network)]
    network: Option<IpNet>,

    /// How far back, such as 90m, 24h or 7days
    #[arg(long, value_name = "TIME", value_parser = input::since, default_value = "24h")]
    since: Duration,

    /// Only these services, separated by commas
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    /// Only sources that were refused
    #[arg(long)]
    refused: bool,

    /// Print comma-separated values: one line per row
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    #[command(flatten)]
    pub format: Format,

    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Remove all that is kept of an address or a network
    Forget(forget::Args),
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct History {
    /// From when on, in seconds since 1970.
    since: i64,
    /// Until when that is asked for.
    until: i64,
    /// Until when all refusals are written; what came later is not in it yet. None where nobody knows.
    written_until: Option<i64>,
    /// When nobody wrote it meanwhile, as no daemon ran: what was refused then is not in it.
    gaps: Vec<Gap>,
    /// Who was refused most first, then who came nearest to the limit.
    sources: Vec<summary::Summary>,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    if let Some(Verb::Forget(args)) = &args.verb {
        return forget::run(instance, args);
    }
    if let Err(problem) = std::fs::File::open(instance.history_path())
        && problem.kind() == io::ErrorKind::PermissionDenied
    {
        bail!("only root may read the history of instance {instance}: run it with sudo");
    }
    let until = history::now_s();
    let since = until.saturating_sub(i64::try_from(args.since.as_secs()).unwrap_or(i64::MAX));
    // Before the rows are read: what it says is in them.
    let Report { until: written_until, mut gaps, .. } = Report::read(&instance.history_report_path())?;
    gaps.retain(|gap| gap.until > since);
    let services = select(instance, args.service.as_deref())?;
    let services: Option<Vec<&str>> =
        services.as_ref().map(|names| names.iter().map(String::as_str).collect());
    let asked = Asked {
        since_s: since,
        services: services.as_deref(),
        network: args.network.as_ref(),
        notable: args.network.is_none() || args.refused,
    };
    let mut rows = history::rows(instance, &asked)?.ok_or_else(|| anyhow!(history::nothing(instance)))?;
    if args.refused {
        rows.retain(|row| row.refused > 0);
    }
    if args.csv {
        csv::print(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let sources = summary::of(rows, (since, until));
    if args.format.json {
        output::json(&History { since, until, written_until, gaps, sources })?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = screen::Shown {
        sources: &sources,
        since: args.since,
        refused: args.refused,
        is_of_one: args.network.is_some(),
        until: written_until,
        gaps: &gaps,
    };
    screen::screen(&shown, history::local, output::width())?.show()?;
    Ok(ExitCode::SUCCESS)
}

/// The services that are asked for.
fn select(instance: &Instance, text: Option<&str>) -> Result<Option<Vec<String>>> {
    let Some(text) = text else { return Ok(None) };
    let known = history::services(instance)?.ok_or_else(|| anyhow!(history::nothing(instance)))?;
    let name = |name: &str| {
        let name = name.trim();
        known.iter().find(|known| known.eq_ignore_ascii_case(name)).cloned().ok_or_else(|| {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            WrongUsage(format!("there is no service {name} in the history; it has: {known}")).into()
        })
    };
    text.split(',').map(name).collect::<Result<_>>().map(Some)
}
