// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who listens at mail ports, as admission knows it, against the kernel's own table.
//!
//! The programs count who begins and ends. Who began before them, or at a port that was nobody's then, is counted here.

use std::{collections::HashMap as StdHashMap, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use limiter_common::{Addr, listening::Endpoint};
use nix::libc;

use super::{
    map::{found, open},
    sets::Sets,
    walk::walk,
};
use crate::listeners::{self, Listener};

/// How many sockets listen at each endpoint.
type Counts = StdHashMap<Endpoint, u64>;

/// Keeps what admission knows of listeners true.
pub struct Listening {
    map: HashMap<MapData, Endpoint, u64>,
    whole: MapData,
    policy: Sets,
    /// What was wrong in the last look: what the map says, and what the table.
    doubts: StdHashMap<Endpoint, (u64, u64)>,
    /// For how many endpoints there was no room in the last look.
    unknown: usize,
}

impl Listening {
    /// The map pinned in `dir`.
    ///
    /// # Errors
    /// When the pins are not there.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            map: Map::HashMap(open(dir, "LISTENING")?).try_into()?,
            whole: open(dir, "LISTENING")?,
            policy: Sets::open(dir)?,
            doubts: StdHashMap::new(),
            unknown: 0,
        })
    }

    /// Corrects what is wrong, at once.
    ///
    /// # Errors
    /// When the kernel does not tell who listens (module `inet_diag`), in the network namespace this thread is in.
    pub fn adopt(&mut self) -> Result<()> {
        let differences = self.differences()?;
        differences.into_iter().try_for_each(|(endpoint, (_, right))| self.set(&endpoint, right))
    }

    /// Corrects what was wrong in the last look in the same way: who begins or ends in between is counted already. For how
    /// many endpoints there is no room, beyond [`limiter_common::listening::MAX_ENDPOINTS`].
    ///
    /// # Errors
    /// As of [`Self::adopt`].
    pub fn round(&mut self) -> Result<usize> {
        let differences = self.differences()?;
        self.unknown = 0;
        for (endpoint, difference) in &differences {
            if self.doubts.get(endpoint) == Some(difference) {
                self.set(endpoint, difference.1)?;
            }
        }
        self.doubts = differences;
        Ok(self.unknown)
    }

    /// How many listen at each endpoint of a mail port.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        let mut counts = Counts::new();
        walk(&self.whole, |endpoint, count| {
            counts.insert(endpoint, count);
        })
        .context("cannot read the listeners")?;
        Ok(counts)
    }

    fn differences(&self) -> Result<StdHashMap<Endpoint, (u64, u64)>> {
        let known = self.counts()?;
        let set = self.policy.active()?;
        let mut right = Counts::new();
        for (endpoint, second) in listeners()? {
            if self.policy.service_of(set, endpoint.port)?.is_some() {
                for endpoint in [Some(endpoint), second].into_iter().flatten() {
                    *right.entry(endpoint).or_default() += 1;
                }
            }
        }
        let count = |counts: &Counts, endpoint: &Endpoint| counts.get(endpoint).copied().unwrap_or_default();
        let all = known.keys().chain(right.keys());
        let differences = all.map(|endpoint| (*endpoint, (count(&known, endpoint), count(&right, endpoint))));
        Ok(differences.filter(|(_, (known, right))| known != right).collect())
    }

    fn set(&mut self, endpoint: &Endpoint, count: u64) -> Result<()> {
        if count == 0 {
            found(self.map.remove(endpoint)).context("cannot remove a closed listener")?;
        } else {
            match self.map.insert(endpoint, count, 0) {
                // No room: who listens there is not known, and nothing rests on it.
                Err(aya::maps::MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::E2BIG) =>
                {
                    self.unknown += 1;
                }
                noted => noted.context("cannot add a listener")?,
            }
        }
        Ok(())
    }
}

/// Where each listening TCP socket of the network namespace this thread is in listens.
fn listeners() -> Result<Vec<(Endpoint, Option<Endpoint>)>> {
    Ok(listeners::all()?.iter().map(endpoints).collect())
}

fn endpoints(listener: &Listener) -> (Endpoint, Option<Endpoint>) {
    let endpoint = Endpoint::new(Addr::from(listener.address), listener.port, listener.ifindex);
    (endpoint, endpoint.second(listener.takes_both))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_listener_at_any_address_takes_both_families_where_it_says_so() {
        let at = |address: IpAddr| Endpoint::new(Addr::from(address), 143, 7);
        let of = |address: IpAddr, takes_both| {
            endpoints(&Listener {
                address,
                port: 143,
                ifindex: 7,
                takes_both,
                is_mptcp: false,
                cgroup: None,
                inode: 0,
                queued: 0,
                backlog: 0,
            })
        };
        let (all, any) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
        let one = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(of(one, false), (at(one), None));
        assert_eq!(of(all, false), (at(all), None));
        assert_eq!(of(any, true), (at(any), Some(at(all))));
        assert_eq!(of(any, false), (at(any), None));
        let local = Ipv6Addr::LOCALHOST.into();
        assert_eq!(of(local, true), (at(local), None));
    }
}
