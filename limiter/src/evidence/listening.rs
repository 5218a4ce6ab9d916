// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who listens, and which process has opened the socket.

use std::collections::HashSet;

use anyhow::Result;

use super::process::{self, Process};
use crate::listeners::{self, Listener};

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// As the kernel has it.
    pub listener: Listener,
    /// Who has opened it; none if nobody is found.
    pub process: Option<Process>,
}

/// Those at ports that are asked for, in the network namespace this thread is in.
///
/// # Errors
/// What the kernel says.
pub fn listening(is_asked_for: impl Fn(u16) -> bool) -> Result<Vec<Listening>> {
    let listeners: Vec<Listener> =
        listeners::all()?.into_iter().filter(|listener| is_asked_for(listener.port)).collect();
    let inodes: HashSet<u32> = listeners.iter().map(|listener| listener.inode).collect();
    let mut openers = process::openers(&inodes);
    let with_opener = |listener: Listener| Listening { process: openers.remove(&listener.inode), listener };
    Ok(listeners.into_iter().map(with_opener).collect())
}
