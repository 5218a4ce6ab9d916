// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Data, as much as goes, on connections that are there already.

use std::{
    io::{ErrorKind, Write as _},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use socket2::Socket;

use super::{
    lab::{Lab, Place},
    load,
};

/// Connections, each of a source of its own.
const CONNECTIONS: usize = 4;

/// What is written at once.
const CHUNK: usize = 128 * 1024;

/// First port of the clients.
const PORT: u16 = 1100;

/// Within this a connection is there.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sends to a port of a contestant until `during` is over; it can see how many bytes went.
///
/// # Errors
///
/// When a connection is not to be had, or ends; and what `during` returns.
pub fn run<T>(lab: &Lab, place: Place, port: u16, during: impl FnOnce(&AtomicU64) -> Result<T>) -> Result<T> {
    let connections = lab
        .clients()
        .run(|| (0..CONNECTIONS).map(|number| connect(place, port, number)).collect::<Result<Vec<_>>>())?;
    let (sent, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let threads: Vec<_> = connections
            .into_iter()
            .map(|connection| {
                let (sent, over) = (&sent, &over);
                scope.spawn(move || send(connection, sent, over))
            })
            .collect();
        let outcome = during(&sent);
        over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a sender died"))??;
        }
        outcome
    })
}

fn connect(place: Place, port: u16, number: usize) -> Result<Socket> {
    let source = place.source(number);
    let socket = load::connect(source, PORT + number as u16, place.address(source.is_ipv4(), port))?;
    // Whoever greets has accepted.
    if !load::wait_readable(&socket, PATIENCE)? {
        bail!("no banner of port {port} within {PATIENCE:?}");
    }
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn send(mut socket: Socket, sent: &AtomicU64, over: &AtomicBool) -> Result<()> {
    let chunk = vec![b'x'; CHUNK];
    while !over.load(Ordering::Relaxed) {
        match socket.write(&chunk) {
            Ok(count) => sent.fetch_add(count as u64, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
    }
    limiter_lab::client::reset(socket);
    Ok(())
}
