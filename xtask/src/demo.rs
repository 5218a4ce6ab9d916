// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask demo`: what a client sees that opens more connections than it may.
//!
//! Two network namespaces on one wire, a client and a mail host with a limiter of its own; nothing of it is
//! left afterwards, also when it is interrupted.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use limiter_lab::{Answer, Namespace, Sink, answer, daemon::Daemon, interrupt, lab::WIRE};

use crate::{bpffs, build, packages, paths, privilege};

/// The client, at an address of the documentation (RFC 5737).
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// The mail host, likewise.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 25);

/// SMTP.
const PORT: u16 = 25;

/// What the client may hold.
const LIMIT: usize = 8;

/// What the client opens.
const CONNECTIONS: usize = 12;

/// Within this the other side of the wire answers.
const PATIENCE: Duration = Duration::from_secs(3);

/// Arguments of the verb.
#[derive(Args)]
pub struct Demo {
    /// Skip the build; set when xtask restarts itself as root
    #[arg(long, hide = true)]
    built: bool,
}

impl Demo {
    /// Builds, and shows it.
    ///
    /// # Errors
    ///
    /// When it does not build, cannot become root, is interrupted, or something does not go as it should.
    pub fn run(&self) -> Result<()> {
        if !self.built {
            build::object()?;
            build::limiter(true)?;
            packages::ensure(packages::DEMO)?;
            bpffs::ensure()?;
        }
        if privilege::is_root() {
            // Before there is anything to leave behind.
            interrupt::hold()?;
            return show();
        }
        privilege::again()
    }
}

/// The demo itself. What it makes is undone in reverse, by its guards.
fn show() -> Result<()> {
    let name = format!("limiter-demo-{}", process::id());
    let client = Namespace::new(format!("{name}-client"))?;
    let host = Namespace::new(format!("{name}-host"))?;
    client.veth_to(&host, WIRE)?;
    client.connect(WIRE, CLIENT.into(), HOST.into())?;
    host.connect(WIRE, HOST.into(), CLIENT.into())?;
    let to = SocketAddr::new(HOST.into(), PORT);
    let listener = host.run(|| TcpListener::bind(to)).with_context(|| format!("cannot listen on {to}"))?;
    let _sink = Sink::serve(listener);
    let files = tempfile::tempdir().context("cannot make a directory for the limiter's files")?;
    let (config, netns) = (files.path().join("limiter.toml"), host.path());
    fs::write(&config, format!("[service.smtp]\nmax_connections = {LIMIT}\n"))?;
    let limiter = paths::limiter("release")?;
    let arguments = ["--netns".as_ref(), netns.as_os_str(), "--config".as_ref(), config.as_os_str()];
    let launch = process::Command::new(&limiter);
    let daemon = Daemon::start(&limiter, launch, &name, &arguments, files.path().join("log"))?;

    println!("{CLIENT} opens {CONNECTIONS} connections to {HOST}:{PORT}, and its limit is {LIMIT}:\n");
    // Kept open, or they would not count.
    let mut held = Vec::new();
    for number in 1..=CONNECTIONS {
        interrupt::check()?;
        let (connection, answer) = client.run(|| answer(CLIENT.into(), to, PATIENCE));
        let Answer::Line(line) = answer else { bail!("{to} says nothing") };
        let outcome = if line.starts_with("220") { "served " } else { "refused" };
        println!("{number:4}  {outcome}  {line}");
        held.push(connection);
    }
    println!("\n$ limiter list");
    print!("{}", daemon.ask(&["list"])?);
    interrupt::check()
}
