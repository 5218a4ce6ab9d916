// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The network: a namespace of the clients, and one for each contestant on a wire of its own.
//!
//! Addresses are those reserved for benchmarks (RFC 2544, RFC 5180). The sources are on no interface: the
//! kernel of the clients is told that whole networks are local (`AnyIP`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use limiter_lab::{Namespace, sweep};

/// The networks of the sources.
const SOURCES_V4: &str = "198.19.0.0/16";
const SOURCES_V6: &str = "2001:2:0:8000::/49";

/// Sources of one contestant.
pub const MAX_SOURCES: usize = 1024;

/// What every contestant listens on.
pub mod port {
    /// Limited, but never at its limit.
    pub const ADMITS: u16 = 25;
    /// Limited to [`super::LIMIT`], refuses by reset.
    pub const RESETS: u16 = 26;
    /// Limited to [`super::LIMIT`], refuses with a reply.
    pub const REPLIES: u16 = 27;
    /// Nobody's.
    pub const OTHER: u16 = 8080;
}

/// What a source may hold where it is refused.
pub const LIMIT: usize = 20;

/// What a source may hold where it is admitted: nobody gets there.
pub const PLENTY: usize = 50_000;

/// The clients.
pub struct Lab {
    name: String,
    clients: Namespace,
}

impl Lab {
    /// Makes the namespace of the clients.
    ///
    /// # Errors
    ///
    /// When `ip` cannot.
    pub fn new() -> Result<Self> {
        let name = sweep::BENCH.ours();
        let clients = Namespace::new(format!("{name}-clients"))?;
        clients.ip(&["route", "add", "local", SOURCES_V4, "dev", "lo"])?;
        clients.ip(&["-6", "route", "add", "local", SOURCES_V6, "dev", "lo"])?;
        // IPv6 looks for the address on an interface, whatever the routes say.
        clients.sysctl("ipv6/ip_nonlocal_bind", "1")?;
        Ok(Self { name, clients })
    }

    /// What the names of everything here start with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace of the clients.
    pub fn clients(&self) -> &Namespace {
        &self.clients
    }

    /// Makes a host on a wire of its own.
    ///
    /// # Errors
    ///
    /// When `ip` cannot.
    pub fn host(&self, name: &str, place: Place) -> Result<Namespace> {
        let host = Namespace::new(format!("{}-{name}", self.name))?;
        let wire = place.wire();
        self.clients.veth_to(&host, &wire)?;
        let hardware = place.hardware().map(|byte| format!("{byte:02x}")).join(":");
        host.ip(&["link", "set", &wire, "address", &hardware])?;
        for (netns, side) in [(&host, 1), (&self.clients, 2)] {
            for address in [place.v4(side).to_string() + "/24", place.v6(side).to_string() + "/64"] {
                let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                netns.ip(&[&["address", "add", &address, "dev", &wire], nodad].concat())?;
            }
            netns.ip(&["link", "set", &wire, "up"])?;
        }
        host.ip(&["route", "add", SOURCES_V4, "via", &place.v4(2).to_string()])?;
        host.ip(&["-6", "route", "add", SOURCES_V6, "via", &place.v6(2).to_string()])?;
        Ok(host)
    }
}

/// Where a contestant is in the network: its number.
#[derive(Clone, Copy)]
pub struct Place(pub u8);

impl Place {
    /// The interface on either side of its wire.
    pub fn wire(self) -> String {
        format!("wire{}", self.0)
    }

    /// Hardware address of its side.
    pub const fn hardware(self) -> [u8; 6] {
        [2, 0, 0, 0, 1, self.0]
    }

    /// Its IPv4 address, and that of the clients.
    pub const fn v4(self, side: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0, side)
    }

    const fn v6(self, side: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 2, 0, self.0 as u16, 0, 0, 0, side as u16)
    }

    /// Its address of a family.
    pub const fn address(self, is_v4: bool, port: u16) -> SocketAddr {
        let ip = if is_v4 { IpAddr::V4(self.v4(1)) } else { IpAddr::V6(self.v6(1)) };
        SocketAddr::new(ip, port)
    }

    /// A source of its clients: IPv4 and IPv6 by turns, the latter each in a /64 of its own.
    pub const fn source(self, number: usize) -> IpAddr {
        let number = number % MAX_SOURCES;
        if number.is_multiple_of(2) {
            // Past .0 and short of .255 of each /24.
            let (net, host) = (number / 2 / 250, number / 2 % 250);
            IpAddr::V4(Ipv4Addr::new(198, 19, self.0 * 4 + net as u8, 1 + host as u8))
        } else {
            let network = 0x8000 + self.0 as u16 * MAX_SOURCES as u16 + number as u16;
            IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, network, 0, 0, 0, 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::bench::plan::Contestant;

    #[test]
    fn no_two_clients_have_the_same_source() {
        let all: Vec<_> = (0..Contestant::ALL.len() as u8)
            .flat_map(|place| (0..MAX_SOURCES).map(move |number| Place(place).source(number)))
            .collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }
}
