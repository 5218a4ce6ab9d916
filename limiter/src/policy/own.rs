//! The host's own addresses: allowed from the start (law 4), and kept current.

use anyhow::{Context as _, Result};
use limiter_common::{
    Action, Addr,
    rule::{Limit, Network},
};
use nix::ifaddrs::getifaddrs;

use crate::kernel::sets::RuleEntry;

/// The loopback networks (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3) and every address of this host, or rather
/// of the network namespace this process is in.
pub fn addresses() -> Result<Vec<RuleEntry>> {
    let mut networks = vec![
        Network { prefix: 96 + 8, addr: Addr::from(std::net::IpAddr::from([127, 0, 0, 0])) },
        Network::of(Addr::from(std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST))),
    ];
    for interface in getifaddrs().context("cannot read the host's addresses")? {
        let Some(address) = interface.address else { continue };
        let ip: Option<std::net::IpAddr> = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => Some(v4.ip().into()),
            (None, Some(v6)) => Some(v6.ip().into()),
            (None, None) => None,
        };
        networks.extend(ip.filter(|ip| !ip.is_loopback()).map(|ip| Network::of(Addr::from(ip))));
    }
    networks.sort();
    networks.dedup();
    let entry = |network| RuleEntry {
        network,
        action: Action::Allow,
        built_in: true,
        max_connections: Limit::default(),
        limits: Vec::new(),
    };
    Ok(networks.into_iter().map(entry).collect())
}
