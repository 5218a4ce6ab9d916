// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Network namespaces: hosts without a host.

use std::{
    fs::File, net::Ipv4Addr, os::unix::process::CommandExt as _, path::PathBuf, process::Command, thread,
};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::{command, packages};

/// The interface on either side of the wire.
pub const WIRE: &str = "wire";

/// A network namespace with a name, as long as this lives.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// When `ip` cannot.
    pub fn new(name: String) -> Result<Self> {
        let netns = Self { name };
        ip(&["netns", "add", &netns.name])?;
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// One that is there already, left by who made it; it goes when this ends.
    pub fn left(name: String) -> Self {
        Self { name }
    }

    /// Its name.
    #[cfg(feature = "bench")]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the kernel shows it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Lays a wire to another one. It goes with either of them.
    ///
    /// # Errors
    ///
    /// When `ip` cannot.
    pub fn wire_to(&self, other: &Self) -> Result<()> {
        self.ip(&["link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", &other.name])
    }

    /// Gives its side of the wire an address, and tells it that the other one is there.
    ///
    /// # Errors
    ///
    /// When `ip` cannot.
    pub fn give(&self, address: Ipv4Addr, other: Ipv4Addr) -> Result<()> {
        self.ip(&["address", "add", &format!("{address}/32"), "dev", WIRE])?;
        self.ip(&["link", "set", WIRE, "up"])?;
        self.ip(&["route", "add", &format!("{other}/32"), "dev", WIRE, "src", &address.to_string()])
    }

    /// Runs this in it, in a thread of its own: a thread has a network namespace, and its sockets keep it.
    ///
    /// # Errors
    ///
    /// When it cannot be entered, and what this returns.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let netns = File::open(self.path()).with_context(|| format!("{} is not there", self.name))?;
        let inside = || {
            setns(&netns, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", self.name))?;
            inside()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .map_err(|_| anyhow!("a thread in {} died", self.name))?
    }

    /// `ip` in it.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Missing when it could not be made: that was said then.
        if self.path().exists()
            && let Err(error) = ip(&["netns", "delete", &self.name])
        {
            eprintln!("{error:#}");
        }
    }
}

/// `ip`, out of reach of Ctrl-C, so that what is begun is finished and can be undone.
fn ip(arguments: &[&str]) -> Result<()> {
    command::run(Command::new("ip").args(arguments).env("PATH", packages::path()).process_group(0))
}
