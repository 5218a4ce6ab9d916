// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter history forget`

use std::process::ExitCode;

use anyhow::Result;
use ipnet::IpNet;
use serde::Serialize;

use crate::{
    cli::{
        answer::word,
        input,
        output::{self, Format},
    },
    history,
    instance::Instance,
};

#[derive(clap::Args)]
pub struct Args {
    /// IPv4 or IPv6 address, or network: each source that has an address in common with it
    #[arg(value_name = "ADDR|NETWORK", value_parser = input::network)]
    network: IpNet,

    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Forgot {
    network: IpNet,
    /// Whether there was anything.
    changed: bool,
    sources: usize,
    rows: usize,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let network = args.network;
    let history::Forgotten { sources, rows } = history::forget(instance, &network)?.unwrap_or_default();
    let changed = sources > 0;
    let whose = if sources == 1 { "source" } else { "sources" };
    let lines = [format!("{network}: forgot {rows} rows of {sources} {whose}: {}", word(changed))];
    if args.format.json {
        output::done_json(&Forgot { network, changed, sources, rows }, &lines);
    } else {
        output::done(&lines);
    }
    Ok(ExitCode::SUCCESS)
}
