// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The contestants, each in a network namespace and a cgroup of its own.
//!
//! Each limits the same ports: one where a source may hold plenty, which nobody reaches, and those where it
//! may hold 20 ([`port`]). So nothing has to be configured again between the workloads.

mod empty;
mod exim;
mod firewall;
mod haproxy;
pub mod limiter;
mod postfix;

use std::{env, net::TcpStream, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use limiter_lab::{Namespace, cgroup::Cgroup, interrupt, poll};
use tempfile::TempDir;

use super::{
    lab::{Lab, Place, port},
    plan::Contestant,
    server::{Mode, Serving},
};
use crate::paths;

/// Within this a mail server listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// A contestant that is up. In the order in which it ends: what runs, before where it runs.
pub struct Host {
    /// Who it is.
    pub contestant: Contestant,
    /// Where it is.
    pub place: Place,
    /// Its limiter, if that is who it is.
    pub limiter: Option<limiter::Limiter>,
    /// The kernel programs of [`Contestant::Empty`], or of [`Contestant::EmptyShield`].
    empty: Option<aya::Ebpf>,
    server: Option<Serving>,
    /// Everything that runs for it.
    pub cgroup: Cgroup,
    netns: Namespace,
    /// Its configuration and its log.
    files: TempDir,
}

impl Host {
    /// Starts it; `other` is the program of [`Contestant::LimiterOther`].
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(lab: &Lab, contestant: Contestant, other: Option<&Path>) -> Result<Self> {
        Self::try_start(lab, contestant, other).with_context(|| format!("cannot start {contestant}"))
    }

    fn try_start(lab: &Lab, contestant: Contestant, other: Option<&Path>) -> Result<Self> {
        let number = Contestant::ALL.iter().position(|&one| one == contestant).unwrap_or_default();
        let place = Place(number as u8);
        let netns = lab.host(contestant.name(), place)?;
        let cgroup = Cgroup::new(&format!("{}-{contestant}", lab.name()))?;
        let files = tempfile::tempdir().context("cannot make a directory for a contestant's files")?;
        let mut host =
            Self { contestant, place, limiter: None, empty: None, server: None, cgroup, netns, files };
        match contestant {
            Contestant::Nothing => {
                // Nobody listens where the others refuse by a reset, and everyone is told 421 where they
                // refuse with a reply.
                host.serve(&[(port::ADMITS, 220), (port::REPLIES, 421), (port::OTHER, 220)])?;
            }
            Contestant::Limiter
            | Contestant::LimiterShield
            | Contestant::LimiterFull
            | Contestant::LimiterChanged => {
                host.serve_all()?;
                host.limiter = Some(limiter::Limiter::start(&host, paths::limiter("release")?)?);
            }
            Contestant::LimiterOther => {
                host.serve_all()?;
                let program = other.context("give the other limiter with --against")?;
                host.limiter = Some(limiter::Limiter::start(&host, program.to_owned())?);
            }
            Contestant::Empty => {
                host.serve_all()?;
                host.empty = Some(empty::attach(&host)?);
            }
            Contestant::EmptyShield => {
                host.serve_all()?;
                host.empty = Some(empty::attach_shield(&host)?);
            }
            Contestant::Nftables => {
                host.serve_all()?;
                firewall::nftables(&host)?;
            }
            Contestant::Iptables => {
                host.serve_all()?;
                firewall::iptables(&host)?;
            }
            Contestant::Haproxy => {
                host.serve(&[(haproxy::BEHIND, 220), (port::OTHER, 220)])?;
                haproxy::start(&host)?;
            }
            Contestant::Postfix => postfix::start(&host)?,
            Contestant::Exim => exim::start(&host)?,
        }
        Ok(host)
    }

    /// Tells its server what to do with connections; a mail server of its own does what it does.
    ///
    /// # Errors
    ///
    /// When the server is dead.
    pub fn set(&mut self, mode: Mode) -> Result<()> {
        self.server.as_mut().map_or(Ok(()), |server| server.set(mode))
    }

    /// Whether it is a mail server, which wants to hear QUIT.
    pub const fn is_mail_server(&self) -> bool {
        matches!(self.contestant, Contestant::Postfix | Contestant::Exim)
    }

    fn serve_all(&mut self) -> Result<()> {
        self.serve(&[(port::ADMITS, 220), (port::RESETS, 220), (port::REPLIES, 220), (port::OTHER, 220)])
    }

    fn serve(&mut self, ports: &[(u16, u16)]) -> Result<()> {
        let xtask = env::current_exe().context("cannot tell where xtask itself is")?;
        self.server = Some(Serving::start(self.cgroup.command(&self.netns, xtask), ports)?);
        Ok(())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.files.path().join(name)
    }

    /// Waits until something listens on a port.
    fn wait_for(&self, port: u16, log: &Path) -> Result<()> {
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
