// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask clients`: what the users of real mail programs see when they are over a limit.
//!
//! Two network namespaces on one wire, a client that holds all connections that it may, and each mail program in turn,
//! from the same address. What it prints, or shows on its screen, goes into [docs/clients.md](../../docs/clients.md), word
//! by word.

mod case;
mod cases;
mod host;
mod screen;
mod senders;
mod table;

use std::{fs, path::PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use limiter_lab::{Namespace, interrupt, sweep};

use crate::{bpffs, build, packages, paths, privilege, unpacked::EXIM};
use case::Seen;
use host::Full;

/// Arguments of the verb.
#[derive(Args)]
pub struct Clients {
    /// Try this limiter [default: the one built here]
    #[arg(long, value_name = "FILE")]
    limiter: Option<PathBuf>,
    /// Try only this client; may be repeated
    #[arg(long)]
    client: Vec<String>,
    /// Add this to limiter's configuration, as in `[defaults]` and a message
    #[arg(long, value_name = "TOML", default_value = "")]
    config: String,
    /// Write the tables into docs/clients.md
    #[arg(long, conflicts_with_all = ["client", "config"])]
    write: bool,
    /// Skip the build; set when xtask restarts itself as root
    #[arg(long, hide = true)]
    built: bool,
}

impl Clients {
    /// Builds, tries each client and prints the tables.
    ///
    /// # Errors
    ///
    /// When it does not build, cannot become root, is interrupted, or a client cannot be tried.
    pub fn run(&self) -> Result<()> {
        if !self.built {
            if self.limiter.is_none() {
                build::object()?;
                build::limiter(true)?;
            }
            packages::ensure(packages::CLIENTS)?;
            EXIM.ensure("sends")?;
            bpffs::ensure()?;
        }
        if !privilege::is_root() {
            return privilege::again();
        }
        // Before there is anything to leave behind.
        interrupt::hold()?;
        let limiter = match &self.limiter {
            Some(limiter) => std::path::absolute(limiter)?,
            None => paths::limiter("release")?,
        };
        let is_meant = |client: &str| self.client.is_empty() || self.client.iter().any(|name| name == client);
        sweep::CLIENTS.sweep()?;
        let name = sweep::CLIENTS.ours();
        let mut seen: Vec<Seen> = Vec::new();
        for certificate in [true, false] {
            let cases = cases::all().into_iter().filter(|case| case.way.has_certificate() == certificate);
            let client = Namespace::new(format!("{name}-client"))?;
            let full = Full::new(&client, &name, &limiter, certificate, &self.config)?;
            for case in cases.filter(|case| is_meant(case.client)) {
                interrupt::check()?;
                eprintln!("{} on {}: {}", case.client, case.port, case.way);
                seen.push(full.see(&client, &case)?);
            }
        }
        for sender in senders::ALL.iter().filter(|sender| is_meant(sender.client)) {
            interrupt::check()?;
            eprintln!("{} on {}: {}", sender.client, sender.port(), sender.way);
            seen.push(senders::see(&name, &limiter, &self.config, sender)?);
        }
        let (tables, installed) = (table::tables(&seen), packages::versions(packages::CLIENTS)?);
        let tables = format!("{tables}\nVersions: {installed}, {}.\n", EXIM.version());
        println!("{tables}");
        if self.write { write(&tables) } else { Ok(()) }
    }
}

/// The marks around the tables.
const BEGIN: &str = "<!-- made by `cargo xtask clients --write` -->\n";
const END: &str = "<!-- end -->\n";

fn write(tables: &str) -> Result<()> {
    let page = paths::root().join("docs/clients.md");
    let text = fs::read_to_string(&page)?;
    let marks = text.find(BEGIN).and_then(|begin| Some((begin + BEGIN.len(), text.find(END)?)));
    let Some((begin, end)) = marks else { bail!("{} has no place for the tables", page.display()) };
    let (before, after) = (text.get(..begin).unwrap_or_default(), text.get(end..).unwrap_or_default());
    fs::write(&page, format!("{before}\n{tables}\n{after}"))?;
    Ok(())
}
