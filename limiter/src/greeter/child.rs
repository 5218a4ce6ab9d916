// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the greeter's process does, from its first order to its end.

use std::{
    io::ErrorKind,
    net::TcpListener,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use rustix::net::RecvFlags;

use super::{
    channel::{self, Reader},
    event_loop::{Daemon, EventLoop},
    messages::{Notice, Order},
    setup::Setup,
    tls::Asker,
    totals::Totals,
};
use crate::sandbox::Confined;

/// What the process has of its parent.
#[derive(Debug)]
pub struct Ends {
    /// Refused clients come here.
    pub listener: TcpListener,
    /// The daemon gives orders here, and is told what happens.
    pub orders: OwnedFd,
    /// The daemon answers questions here.
    pub questions: OwnedFd,
}

/// Serves until the daemon says otherwise, or has ended. If that cannot be, the daemon is told why.
///
/// # Errors
/// The same.
pub fn serve(ends: Ends, confine: impl FnOnce() -> Result<Confined>) -> Result<()> {
    let orders = ends.orders.as_fd().try_clone_to_owned().context("there are too many files")?;
    let served = try_to_serve(ends, confine);
    if let Err(problem) = &served {
        let _unheard = channel::send(&orders, &Notice::Failed(format!("{problem:#}")), &[]);
    }
    served
}

fn try_to_serve(ends: Ends, confine: impl FnOnce() -> Result<Confined>) -> Result<()> {
    let Ends { listener, orders, questions } = ends;
    let Confined { landlock } = confine()?;
    let mut reader = Reader::new();
    let first = loop {
        match reader.receive::<Order>(&orders, RecvFlags::empty()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => break received.context("the daemon gives no orders")?,
        }
    };
    let Some((order, files)) = first else { return Ok(()) };
    ensure!(order == Order::Say, "the daemon's first order is another one");
    let [setup, totals] = <[OwnedFd; 2]>::try_from(files).ok().context("files are missing")?;
    let totals = Totals::open(totals).context("cannot count")?;
    let setup = Setup::read(setup).context("cannot read what to say")?;
    let told = orders.as_fd().try_clone_to_owned().context("there are too many files")?;
    let daemon = Daemon { orders, reader, asker: Asker::new(questions) };
    let mut event_loop = EventLoop::new(listener, daemon, &setup, totals)?;
    channel::send(&told, &Notice::Ready { landlock }, &[]).context("the daemon has ended")?;
    drop(told);
    Ok(event_loop.run()?)
}
