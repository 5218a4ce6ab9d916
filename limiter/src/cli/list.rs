// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter list`

use std::{cmp::Reverse, process::ExitCode};

use anyhow::Result;
use serde::Serialize;

use super::{
    input,
    loaded::{loaded, steadily},
    output::{self, Column, Format, Screen},
};
use crate::{
    instance::Instance,
    ledger::{self, Source},
    policy,
};

#[derive(clap::Args)]
pub struct Args {
    /// Only these services, separated by commas
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    /// Only sources with more connections than N
    #[arg(long, value_name = "N", value_parser = input::over)]
    over: Option<u32>,

    /// Sort order
    #[arg(long, value_enum, default_value_t = Sort::Connections)]
    sort: Sort,

    #[command(flatten)]
    pub format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Sort {
    /// Most connections first
    Connections,
    /// Most refusals first
    Refused,
    /// By address
    Source,
    /// Last seen first
    Seen,
}

#[derive(Serialize)]
struct List {
    sources: Vec<Source>,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let (selected, mut sources) = steadily(instance, || {
        let tables = loaded(instance)?;
        let selected = policy::select(&tables.policy.services()?, args.service.as_deref())?;
        Ok((selected, ledger::sources(&tables)?))
    })?;
    let names = selected.names();
    // Without a choice also what is left of services that are gone.
    let is_asked_for = |source: &Source| args.service.is_none() || names.contains(&source.service.as_str());
    sources.retain(|source| is_asked_for(source) && args.over.is_none_or(|over| source.connections > over));
    // Each sort leaves those that are equal in the order of their services and addresses.
    sources.sort_by(|a, b| a.service.cmp(&b.service));
    match args.sort {
        Sort::Connections => sources.sort_by_key(|source| Reverse(source.connections)),
        Sort::Refused => sources.sort_by_key(|source| Reverse(source.refused)),
        Sort::Source => {}
        Sort::Seen => sources.sort_by_key(|source| source.idle_seconds),
    }
    if args.format.json {
        output::json(&List { sources })?;
    } else {
        let is_part = args.service.is_some() || args.over.is_some();
        screen(&sources, is_part, output::width()).show()?;
    }
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [Column; 11] = [
    Column::words("SERVICE"),
    Column::words("SOURCE"),
    Column::number("CONNECTIONS").or("CONNS"),
    Column::number("LIMIT"),
    Column::number("WAITING").goes(5),
    Column::number("PEAK").goes(2),
    Column::number("ACCEPTED").goes(3),
    Column::number("REFUSED").goes(6),
    Column::number("WOULD REFUSE").or("WOULD").goes(7),
    Column::number("HELD").goes(1),
    Column::words("LAST SEEN").goes(4),
];

/// Which of them is of services that only observe.
const WOULD_REFUSE: usize = 8;

/// What is shown of them; `is_part` where not all were asked for.
pub fn screen(sources: &[Source], is_part: bool, width: output::Width) -> Screen {
    let mut screen = Screen::new(width);
    if sources.is_empty() {
        screen.line(if is_part {
            "no matching source holds a connection, or was connected or refused recently"
        } else {
            "no source holds a connection, or was connected or refused recently"
        });
        return screen;
    }
    let rows: Vec<Vec<String>> = sources
        .iter()
        .map(|source| {
            vec![
                source.service.clone(),
                if source.tier == "shared" {
                    format!("{} (shared)", source.source)
                } else {
                    source.source.clone()
                },
                source.connections.to_string(),
                limit(source),
                waiting(source.waiting, source.waiting_seconds),
                source.peak.to_string(),
                source.accepted.to_string(),
                source.refused.to_string(),
                source.would_refuse.to_string(),
                source.held.to_string(),
                if source.connections > 0 { "now".to_owned() } else { output::ago(source.idle_seconds) },
            ]
        })
        .collect();
    // Where nothing observes there is nothing to say of it.
    let observes = sources.iter().any(|source| source.would_refuse > 0);
    let (columns, rows) = output::without(WOULD_REFUSE, !observes, &COLUMNS, rows);
    screen.table(&columns, &rows);
    let by_rule = sources.iter().any(|source| source.rule.is_some());
    let divided = sources.iter().any(|source| source.divided);
    screen.paragraph(
        [
            by_rule.then_some("*: set by a rule; `limiter rules` lists the rules"),
            divided.then_some("+: a rule gives a part of the source another limit"),
        ]
        .into_iter()
        .flatten(),
    );
    screen
}

/// The limit in force, and where it comes from.
fn limit(source: &Source) -> String {
    let limit = source.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
    let by_rule = if source.rule.is_some() { "*" } else { "" };
    let divided = if source.divided { "+" } else { "" };
    format!("{limit}{by_rule}{divided}")
}

/// How many wait, and how long the first has.
fn waiting(count: u32, seconds: f64) -> String {
    if count == 0 { "0".to_owned() } else { format!("{count} ({seconds} s)") }
}
