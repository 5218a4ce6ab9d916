//! The host's own addresses: allowed from the start (law 4), and kept current.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use limiter_common::{
    Action, Addr,
    rule::{Limit, Network},
};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};

use crate::kernel::sets::RuleEntry;

/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` (include/uapi/linux/rtnetlink.h).
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

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

/// Tells when addresses come or go.
pub struct Watch(OwnedFd);

impl Watch {
    /// Of the network namespace this process is in.
    pub fn new() -> Result<Self> {
        let netlink =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
                .context("cannot open a netlink socket")?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, ADDRESS_GROUPS))
            .context("cannot watch the host's addresses")?;
        Ok(Self(netlink))
    }

    /// Whether any has come or gone since the last call.
    pub fn has_changed(&self) -> bool {
        let mut buffer = [0_u8; 8192];
        let mut changed = false;
        // An overflow (ENOBUFS) means that there was more than fits.
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(nix::errno::Errno::ENOBUFS) => changed = true,
                Err(_) => return changed,
            }
        }
    }
}
