// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is seldom meant: to deny or ban the host itself, everybody, or oneself.

use std::net::IpAddr;

use ipnet::IpNet;
use limiter_common::{Action, Addr, Key, rule::Network};

use super::rules::covering;
use crate::{config, kernel::sets::RuleEntry};

/// Whom a change would shut out that is seldom meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caution {
    /// Much of the Internet: this network.
    Wide(IpNet),
    /// Programs on this host: this is one of its local addresses.
    Local(IpNet),
    /// Whoever makes the change, and is logged in from here.
    Login(IpAddr),
}

/// Shorter prefixes than these are for so much of the Internet that it is everybody: all of IPv6 that is in use is within
/// `2000::/3`.
const WIDE_IPV4: u8 = 8;
const WIDE_IPV6: u8 = 16;

/// Why the rules `after` are seldom meant, if `networks` are denied by them that were not `before`.
pub fn of_deny(
    networks: &[IpNet],
    before: &[RuleEntry],
    after: &[RuleEntry],
    login: Option<IpAddr>,
) -> Option<Caution> {
    if let Some(wide) = networks.iter().find(|network| is_wide(network)) {
        return Some(Caution::Wide(*wide));
    }
    let is_denied_now = |address: &Addr| {
        let is_denied = |rules| covering(rules, address).is_some_and(|rule| rule.action == Action::Deny);
        is_denied(after) && !is_denied(before)
    };
    // A rule for a network around it leaves a local address alone.
    let is_local =
        |network: &Network| before.iter().any(|rule| rule.is_local && rule.network.covers(network));
    let local = networks.iter().find(|network| {
        let network = config::network(network);
        is_local(&network) && is_denied_now(&network.addr)
    });
    let login = || login.filter(|login| is_denied_now(&Addr::from(*login))).map(Caution::Login);
    local.copied().map(Caution::Local).or_else(login)
}

/// Why a ban of one of `sources` is seldom meant: whatever address was typed, it is of all that a source is.
pub fn of_ban(sources: &[Key], login: Option<IpAddr>) -> Option<Caution> {
    let is_banned = |login: &IpAddr| {
        let host = Network::of(Addr::from(*login).host());
        sources.iter().any(|key| Network { prefix: key.prefix.into(), addr: key.addr }.covers(&host))
    };
    login.filter(is_banned).map(Caution::Login)
}

fn is_wide(network: &IpNet) -> bool {
    network.prefix_len() < if network.addr().is_ipv4() { WIDE_IPV4 } else { WIDE_IPV6 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rules::inherit;

    fn rule(text: &str, action: Action, is_local: bool) -> RuleEntry {
        let network = config::network(&config::parse_network(text).unwrap());
        RuleEntry { built_in: is_local, is_local, ..RuleEntry::new(network, action) }
    }

    /// What is found when `text` is denied, by somebody who is logged in from 198.51.100.7.
    fn found(text: &str) -> Option<Caution> {
        let before = vec![rule("192.0.2.1", Action::Allow, true), rule("127.0.0.0/8", Action::Allow, true)];
        let after = inherit(vec![rule(text, Action::Deny, false)], before.clone());
        of_deny(&[text.parse().unwrap()], &before, &after, "198.51.100.7".parse().ok())
    }

    #[test]
    fn what_would_shut_out_the_host_everybody_or_oneself_is_said_and_nothing_else() {
        for everybody in ["0.0.0.0/0", "128.0.0.0/1", "::/0", "2000::/3"] {
            assert_eq!(found(everybody), Some(Caution::Wide(everybody.parse().unwrap())));
        }
        for local in ["192.0.2.1/32", "127.0.0.1/32"] {
            assert_eq!(found(local), Some(Caution::Local(local.parse().unwrap())));
        }
        for yourself in ["198.51.100.7/32", "198.51.100.0/24"] {
            let login = Some(Caution::Login("198.51.100.7".parse().unwrap()));
            assert_eq!(found(yourself), login, "{yourself}");
        }
        // The local address in it has a longer rule, and is allowed as before.
        for meant in ["192.0.2.0/24", "203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(found(meant), None, "{meant}");
        }
    }

    #[test]
    fn a_ban_of_whoever_counts_as_the_same_source_shuts_oneself_out_as_well() {
        let said = |source: &str, login: &str| {
            let network = config::network(&config::parse_network(source).unwrap());
            let key = Key { prefix: network.prefix as u8, addr: network.addr, ..Key::NONE };
            of_ban(&[key], login.parse().ok()).is_some()
        };
        // What 2001:db8:7::8 counts as is a /64, and it is what is banned.
        assert!(said("2001:db8:7::/64", "2001:db8:7::7") && !said("2001:db8:7::/64", "2001:db8:8::7"));
        assert!(said("198.51.100.7", "198.51.100.7") && !said("198.51.100.8", "198.51.100.7"));
        // Through a translator one is the same source as without.
        assert!(said("198.51.100.7", "64:ff9b::198.51.100.7"));
    }
}
