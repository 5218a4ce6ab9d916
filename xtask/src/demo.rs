// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask demo`: what a client sees that opens more connections than it may.
//!
//! Two network namespaces on one wire, a client and a mail host with a limiter of its own; nothing of it is
//! left afterwards, also when it is interrupted.

mod sink;

use std::{
    env,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    process,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{bpffs, build, command, daemon::Daemon, interrupt, netns::Netns, packages, paths, privilege};
use sink::Sink;

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
    /// Build nothing: set when it starts itself again as root
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
        let xtask = env::current_exe().context("cannot tell where xtask itself is")?;
        let xtask = xtask.to_str().context("the path of the workspace is not UTF-8")?;
        command::run(privilege::command(xtask, &[])?.args(["demo", "--built"]))
    }
}

/// The demo itself. What it makes is undone in reverse, by its guards.
fn show() -> Result<()> {
    let name = format!("limiter-demo-{}", process::id());
    let client = Netns::new(format!("{name}-client"))?;
    let host = Netns::new(format!("{name}-host"))?;
    client.wire_to(&host)?;
    client.give(CLIENT, HOST)?;
    host.give(HOST, CLIENT)?;
    let _sink = host.run(|| Sink::listen(SocketAddrV4::new(HOST, PORT)))?;
    let config = format!("[service.smtp]\nmax_connections = {LIMIT}\n");
    let limiter = paths::limiter("release")?;
    let daemon = Daemon::start(&limiter, process::Command::new(&limiter), name.clone(), &host, &config)?;

    println!("{CLIENT} opens {CONNECTIONS} connections to {HOST}:{PORT}; it may hold {LIMIT}:\n");
    // Kept open, or they would not count.
    let mut held = Vec::new();
    for number in 1..=CONNECTIONS {
        interrupt::check()?;
        let (connection, line) = client.run(connect)?;
        let outcome = if line.starts_with("220") { "served " } else { "refused" };
        println!("{number:4}  {outcome}  {line}");
        held.push(connection);
    }
    println!("\n$ limiter list");
    print!("{}", daemon.ask(&["list"])?);
    interrupt::check()
}

/// Opens a connection, and reads the first line that the other side says.
fn connect() -> Result<(TcpStream, String)> {
    let address = SocketAddrV4::new(HOST, PORT);
    let connection = TcpStream::connect_timeout(&address.into(), PATIENCE)
        .with_context(|| format!("{address} takes no connection"))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(&connection).read_line(&mut line).with_context(|| format!("{address} says nothing"))?;
    Ok((connection, line.trim_end().to_owned()))
}
