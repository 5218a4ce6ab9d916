// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter explain ADDR`

mod screen;
mod view;

use std::{net::IpAddr, process::ExitCode};

use anyhow::Result;
use limiter_common::Addr;

pub use self::{screen::screen, view::Explanation};
use super::{
    input,
    loaded::{daemon, loaded, steadily},
    output::{self, Format},
};
use crate::{instance::Instance, standing};

#[derive(clap::Args)]
pub struct Args {
    /// IPv4 or IPv6 address of a client
    #[arg(value_name = "ADDR", value_parser = input::address)]
    address: IpAddr,

    #[command(flatten)]
    pub format: Format,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let standing = steadily(instance, || {
        let tables = loaded(instance)?;
        let answers = daemon(instance, &tables)?.answers;
        standing::address(&tables, Addr::from(args.address), answers)
    })?;
    let explanation = Explanation::of(&standing);
    if args.format.json {
        output::json(&explanation)?;
    } else {
        screen(instance, &explanation, output::width()).show()?;
    }
    Ok(ExitCode::SUCCESS)
}
