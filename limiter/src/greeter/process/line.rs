// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The way to the process that serves, if there is one, for those who hand it clients.

use std::{
    io::{self, ErrorKind},
    net::TcpStream,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::greeter::{channel, messages::Order};

/// The way. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Mutex<Option<Arc<OwnedFd>>>>);

impl Line {
    /// Whether there is a process that serves.
    pub fn is_up(&self) -> bool {
        self.lock().is_some()
    }

    /// From now on, it is this one, or none.
    pub fn set(&self, orders: Option<Arc<OwnedFd>>) {
        *self.lock() = orders;
    }

    /// Hands over a client.
    ///
    /// # Errors
    /// If there is nobody, or too much to do already.
    pub fn tell(&self, client: &TcpStream) -> io::Result<()> {
        // As what is accepted is; without it, one that reads slowly would be waited for.
        client.set_nonblocking(true)?;
        let orders = self.lock().clone().ok_or(ErrorKind::NotConnected)?;
        channel::send(&*orders, &Order::Tell, &[client.as_fd()])
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
