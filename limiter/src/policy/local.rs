// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The host's local addresses: allowed from the start (law 4), and kept current.

use anyhow::{Context as _, Result};
use limiter_common::{Action, Addr, rule::Network};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressHeaderFlags, AddressMessage},
};
use nix::sys::socket::SockProtocol;

use crate::{kernel::sets::RuleEntry, netlink};

/// The loopback networks (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3) and every address of this host, or rather
/// of the network namespace this process is in.
pub fn addresses() -> Result<Vec<RuleEntry>> {
    let mut networks = vec![
        Network { prefix: 96 + 8, addr: Addr::from(std::net::IpAddr::from([127, 0, 0, 0])) },
        Network::of(Addr::from(std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST))),
    ];
    let asked = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let told =
        netlink::dump(SockProtocol::NetlinkRoute, asked).context("cannot read the host's addresses")?;
    for message in told {
        let is_ours = message.fixed::<AddressMessage>().is_some_and(|message| is_ours(message.header.flags));
        let ip = netlink::local_address(&message).filter(|ip| is_ours && !ip.is_loopback());
        networks.extend(ip.map(|ip| Network::of(Addr::from(ip))));
    }
    networks.sort();
    networks.dedup();
    Ok(networks.into_iter().map(entry).collect())
}

/// Whether an address with these flags is this host's, and not one that it only asks for: one that a neighbour has
/// already (duplicate address detection, RFC 4862, 5.4) is the neighbour's, who connects from it. An optimistic one is in
/// use while the host asks (RFC 4429).
fn is_ours(flags: AddressHeaderFlags) -> bool {
    let is_asked_for =
        flags.contains(AddressHeaderFlags::Tentative) && !flags.contains(AddressHeaderFlags::Optimistic);
    !is_asked_for && !flags.contains(AddressHeaderFlags::Dadfailed)
}

/// The rules for local addresses that are built in, as the rules in force know them: also where the admin's word counts
/// at present.
pub fn built_in(rules: &[RuleEntry]) -> Vec<RuleEntry> {
    rules.iter().filter(|rule| rule.is_local).map(|rule| entry(rule.network)).collect()
}

/// The rule that is built in for exactly this network, if it is one of the host's local addresses. The rules are those of
/// a policy, sorted by network.
pub fn built_in_rule(rules: &[RuleEntry], network: &Network) -> Option<RuleEntry> {
    let index = rules.binary_search_by_key(network, |rule| rule.network).ok()?;
    rules[index].is_local.then(|| entry(*network))
}

/// What is built in for one local address or network.
///
/// One that is for one link only (RFC 4291, 2.5.6) may be a neighbour's on another link, whose packets the kernel
/// would answer there. So the rule itself allows nothing; [`limiter_common::rule::Rule::allows_itself`] does, where
/// the host connects to the address itself. IPv4 needs no such care: a packet from outside with one of the host's local
/// addresses is no valid one (`fib_validate_source`, `net/ipv4/fib_frontend.c`).
fn entry(network: Network) -> RuleEntry {
    let is_for_one_link =
        matches!(network.addr.to_ip(), std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
    let action = if is_for_one_link { Action::Limit } else { Action::Allow };
    RuleEntry { built_in: true, is_local: true, ..RuleEntry::new(network, action) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_asked_for_is_not_the_hosts() {
        let (tentative, failed, optimistic, permanent) = (
            AddressHeaderFlags::Tentative,
            AddressHeaderFlags::Dadfailed,
            AddressHeaderFlags::Optimistic,
            AddressHeaderFlags::Permanent,
        );
        for (flags, expected) in [
            (AddressHeaderFlags::empty(), true),
            (permanent, true),
            (permanent | tentative, false),
            (permanent | tentative | optimistic, true),
            (permanent | tentative | failed, false),
            (permanent | failed, false),
        ] {
            assert_eq!(is_ours(flags), expected, "{flags:?}");
        }
    }

    #[test]
    fn what_is_for_one_link_is_own_and_allowed_nowhere_else() {
        let of = |text: &str| entry(Network::of(Addr::from(text.parse::<std::net::IpAddr>().unwrap())));
        for (address, action) in [
            ("fe80::1", Action::Limit),
            ("febf:ffff::1", Action::Limit),
            ("fec0::1", Action::Allow),
            ("2001:db8::1", Action::Allow),
            ("192.0.2.1", Action::Allow),
            ("169.254.1.1", Action::Allow),
        ] {
            assert_eq!(of(address).action, action, "{address}");
            assert!(of(address).is_local && of(address).built_in);
        }
    }
}
