// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is seldom meant: to deny or ban the host itself, everybody, or oneself. It takes `--force`.

use std::{env, fs, net::IpAddr, os::unix::ffi::OsStrExt as _};

use anyhow::Result;
use ipnet::IpNet;
use limiter_common::{Action, Addr, Key, rule::Network};

use super::exit::WrongUsage;
use crate::{kernel::sets::RuleEntry, policy};

/// Shorter prefixes than these are for so much of the Internet that it is everybody: all of IPv6 that is in use is within
/// `2000::/3`.
const WIDE_IPV4: u8 = 8;
const WIDE_IPV6: u8 = 16;

#[derive(clap::Args)]
pub struct Force {
    /// Do it even for this host, for most of the Internet, or for the address you are logged in from
    #[arg(long)]
    force: bool,
}

impl Force {
    /// Refuses `networks` that are seldom meant, unless they are.
    ///
    /// # Errors
    /// With what one of them would do, and how to do it all the same.
    pub fn allows(&self, complaint: Option<String>) -> Result<()> {
        match complaint {
            Some(complaint) if !self.force => {
                Err(WrongUsage(format!("{complaint}; use --force to do it anyway")).into())
            }
            _ => Ok(()),
        }
    }
}

/// Why the rules `after` are seldom meant, if `networks` are denied by them that were not `before`.
pub fn of_deny(
    networks: &[IpNet],
    before: &[RuleEntry],
    after: &[RuleEntry],
    login: Option<IpAddr>,
) -> Option<String> {
    if let Some(wide) = networks.iter().find(|network| is_wide(network)) {
        return Some(format!(
            "{wide} covers much of the Internet: no client in it could connect to a mail port"
        ));
    }
    let is_denied = |rules: &[RuleEntry], address: &Addr| {
        policy::covering(rules, address).is_some_and(|rule| rule.action == Action::Deny)
    };
    // A rule for a network around it leaves a local address alone.
    let is_local =
        |network: &Network| before.iter().any(|rule| rule.is_local && rule.network.covers(network));
    for network in networks.iter().map(crate::config::network).filter(is_local) {
        if is_denied(after, &network.addr) && !is_denied(before, &network.addr) {
            return Some(format!(
                "{network} is a local address of this host: programs on it, such as webmail, could no longer connect to a mail port"
            ));
        }
    }
    let login = login.filter(|login| {
        let address = Addr::from(*login);
        is_denied(after, &address) && !is_denied(before, &address)
    });
    login.map(yourself)
}

/// Why a ban of one of `sources` is seldom meant: whatever address was typed, it is of all that a source is.
pub fn of_ban(sources: &[Key], login: Option<IpAddr>) -> Option<String> {
    let is_banned = |login: &IpAddr| {
        let host = Network::of(Addr::from(*login).host());
        sources.iter().any(|key| Network { prefix: key.prefix.into(), addr: key.addr }.covers(&host))
    };
    login.filter(is_banned).map(yourself)
}

fn yourself(login: IpAddr) -> String {
    format!("you are logged in from {login}, which could no longer connect to a mail port")
}

fn is_wide(network: &IpNet) -> bool {
    network.prefix_len() < if network.addr().is_ipv4() { WIDE_IPV4 } else { WIDE_IPV6 }
}

/// The address that whoever types this is logged in from by SSH. sudo and su take the variable away, so it is looked for
/// in what the processes above this one were started with.
pub fn login() -> Option<IpAddr> {
    let mine = ["SSH_CONNECTION", "SSH_CLIENT"].iter().find_map(|name| client(env::var_os(name)?.as_bytes()));
    mine.or_else(|| {
        let mut pid = std::process::id();
        // Deeper than any shell is nested; a ring cannot be, but a process may have ended meanwhile.
        for _ in 0..64 {
            pid = parent(pid).filter(|&pid| pid > 1)?;
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = environment.split(|&byte| byte == 0);
            let found = variables.find_map(|variable| {
                let value = variable.strip_prefix(b"SSH_CONNECTION=");
                client(value.or_else(|| variable.strip_prefix(b"SSH_CLIENT="))?)
            });
            if found.is_some() {
                return found;
            }
        }
        None
    })
}

/// The first word of `SSH_CONNECTION` and `SSH_CLIENT` (ssh(1)), without the link of a link-local address.
fn client(value: &[u8]) -> Option<IpAddr> {
    let word = std::str::from_utf8(value).ok()?.split_ascii_whitespace().next()?;
    let address: IpAddr = word.split('%').next()?.parse().ok()?;
    Some(address.to_canonical())
}

/// The process above (`/proc/PID/stat`, proc(5)); the name in brackets may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn rule(text: &str, action: Action, is_local: bool) -> RuleEntry {
        let network = config::network(&config::parse_network(text).unwrap());
        RuleEntry { built_in: is_local, is_local, ..RuleEntry::new(network, action) }
    }

    /// What is said when `text` is denied, by somebody who is logged in from 198.51.100.7.
    fn said(text: &str) -> Option<String> {
        let before = vec![rule("192.0.2.1", Action::Allow, true), rule("127.0.0.0/8", Action::Allow, true)];
        let after = policy::inherit(vec![rule(text, Action::Deny, false)], before.clone());
        of_deny(&[text.parse().unwrap()], &before, &after, "198.51.100.7".parse().ok())
    }

    #[test]
    fn what_would_shut_out_the_host_everybody_or_oneself_is_said_and_nothing_else() {
        for everybody in ["0.0.0.0/0", "128.0.0.0/1", "::/0", "2000::/3"] {
            assert!(said(everybody).unwrap().contains("covers much of the Internet"), "{everybody}");
        }
        assert!(said("192.0.2.1/32").unwrap().contains("a local address of this host"));
        assert!(said("127.0.0.1/32").unwrap().contains("a local address of this host"));
        for yourself in ["198.51.100.7/32", "198.51.100.0/24"] {
            assert!(said(yourself).unwrap().contains("logged in from 198.51.100.7"), "{yourself}");
        }
        // The local address in it has a longer rule, and is allowed as before.
        for meant in ["192.0.2.0/24", "203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(said(meant), None, "{meant}");
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

    #[test]
    fn the_address_of_a_login_is_the_first_word() {
        assert_eq!(client(b"198.51.100.7 50022 192.0.2.1 22"), "198.51.100.7".parse().ok());
        assert_eq!(client(b"fe80::7%eth0 50022 22"), "fe80::7".parse().ok());
        assert_eq!(client(b"::ffff:198.51.100.7 50022 22"), "198.51.100.7".parse().ok());
        for wrong in [&b""[..], b"UNKNOWN 65535 22", b"\xff"] {
            assert_eq!(client(wrong), None);
        }
    }

    #[test]
    fn every_process_has_one_above_it() {
        let above = parent(std::process::id());
        assert_eq!(above, u32::try_from(nix::unistd::getppid().as_raw()).ok());
    }
}
