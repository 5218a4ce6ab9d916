// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Connections that a source holds while others are measured: in a process of their own for each contestant,
//! since a process may not open as many files as all of them take.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _},
    ops::Range,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use socket2::Socket;

use super::{
    lab::{Lab, Place},
    load,
};

/// Ports of the clients, apart from those of the [load].
const PORTS: Range<u16> = 42048..65500;

/// Within this a banner comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Handshakes under way at a time.
const BATCH: usize = 64;

/// Connections held by the first source of a contestant's clients; they end with this.
pub struct Held(Child);

impl Held {
    /// Connects so often to a port of a contestant; each has been greeted.
    ///
    /// # Errors
    ///
    /// When one is refused.
    pub fn new(lab: &Lab, place: Place, port: u16, connections: usize) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;

        let xtask = env::current_exe().context("cannot tell where xtask itself is")?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", lab.clients().path().display())).arg(xtask).arg("bench-hold");
        command.args([place.0.to_string(), port.to_string(), connections.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut held = Self(command.spawn().context("cannot start nsenter")?);
        let mut line = String::new();
        let answer = held.0.stdout.take().context("the process that holds connections has no output")?;
        BufReader::new(answer).read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("{connections} connections cannot be held");
        }
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It ends with its input, and ends the connections.
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

/// Arguments of the process.
#[derive(Args)]
pub struct Hold {
    place: u8,
    port: u16,
    connections: usize,
}

impl Hold {
    /// Connects, says so, and holds until its standard input ends.
    ///
    /// # Errors
    ///
    /// When a connection is refused.
    pub fn run(&self) -> Result<()> {
        limiter_lab::limits::allow_many_files()?;
        let mut held = Vec::with_capacity(self.connections);
        while held.len() < self.connections {
            let (first, count) = (held.len(), BATCH.min(self.connections - held.len()));
            let begun: Result<Vec<_>> = (first..first + count).map(|number| self.begin(number)).collect();
            for socket in begun? {
                held.push(greeted(socket)?);
            }
        }
        println!("ready");
        std::io::stdin().lock().read_to_end(&mut Vec::new())?;
        for socket in held {
            limiter_lab::client::reset(socket);
        }
        Ok(())
    }

    fn begin(&self, number: usize) -> Result<Socket> {
        let place = Place(self.place);
        let port = PORTS.start + number as u16;
        Ok(load::connect(place.source(0), port, place.address(true, self.port))?)
    }
}

fn greeted(socket: Socket) -> Result<Socket> {
    let mut banner = [0; 3];
    if !load::wait_readable(&socket, PATIENCE)? {
        bail!("a connection to hold gets no banner within {PATIENCE:?}");
    }
    (&socket).read_exact(&mut banner)?;
    if banner != *b"220" {
        bail!("a connection to hold is refused: {}", String::from_utf8_lossy(&banner));
    }
    Ok(socket)
}
