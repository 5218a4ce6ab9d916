// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The contestants, each in a network namespace and a cgroup of its own.
//!
//! Each limits the same ports: one where a source may hold plenty, which nobody reaches, and those where it
//! may hold 20 ([`port`]). So nothing has to be configured again between the workloads.

mod empty;
mod exim;
mod firewall;
mod haproxy;
mod host;
pub mod limiter;
mod postfix;
mod site;

use std::path::Path;

use anyhow::{Context as _, Result};
use limiter_lab::cgroup::Cgroup;

pub use self::host::Host;
use self::site::Site;
use super::{
    lab::{Lab, Place, port},
    plan::Contestant,
};
use crate::paths;

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
        let site = Site { contestant, place, cgroup, netns, files };
        let mut host = Host { limiter: None, empty: None, server: None, site };
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
}
