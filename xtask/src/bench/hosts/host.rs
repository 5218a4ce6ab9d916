// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A contestant that is up, whoever it is.

use std::{env, net::TcpStream, ops::Deref, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use limiter_lab::{interrupt, poll};

use super::{limiter::Limiter, site::Site};
use crate::bench::{
    lab::port,
    plan::Contestant,
    server::{Mode, Serving},
};

/// Within this a mail server listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// A contestant that is up. In the order in which it ends: what runs, before where it runs.
pub struct Host {
    /// Its limiter, if that is who it is.
    pub limiter: Option<Limiter>,
    /// The kernel programs of [`Contestant::Empty`], or of [`Contestant::EmptyShield`].
    pub(super) empty: Option<aya::Ebpf>,
    /// Its server, if it is ours.
    pub(super) server: Option<Serving>,
    /// Where it is.
    pub(super) site: Site,
}

impl Deref for Host {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Host {
    /// Tells its server what to do with connections; a mail server of its own does what it does.
    ///
    /// # Errors
    ///
    /// When the server is dead.
    pub fn set(&mut self, mode: Mode) -> Result<()> {
        self.server.as_mut().map_or(Ok(()), |server| server.set(mode))
    }

    /// Whether it is a mail server, which wants to hear QUIT.
    pub fn is_mail_server(&self) -> bool {
        matches!(self.contestant, Contestant::Postfix | Contestant::Exim)
    }

    pub(super) fn serve_all(&mut self) -> Result<()> {
        self.serve(&[(port::ADMITS, 220), (port::RESETS, 220), (port::REPLIES, 220), (port::OTHER, 220)])
    }

    pub(super) fn serve(&mut self, ports: &[(u16, u16)]) -> Result<()> {
        let xtask = env::current_exe().context("cannot tell where xtask itself is")?;
        self.server = Some(Serving::start(self.cgroup.command(&self.netns, xtask), ports)?);
        Ok(())
    }

    /// Waits until something listens on a port.
    pub(super) fn wait_for(&self, port: u16, log: &Path) -> Result<()> {
        let to = self.place.address(true, port);
        let listening = poll::until(PATIENCE, Duration::from_millis(50), || {
            interrupt::check()?;
            Ok(self.netns.run(|| TcpStream::connect(to)).ok())
        });
        if listening?.is_none() {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            bail!("it does not listen on port {port} after {PATIENCE:?}:\n{log}");
        }
        Ok(())
    }
}
