// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a refused client is told, whatever the protocol.

use std::{fmt, net::IpAddr};

use limiter_common::Reason;

use crate::config::is_hostname;

/// What a refusal tells.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The greeter's name, one that [`is_hostname`] accepts.
    pub hostname: &'a str,
    /// Why it is refused.
    pub reason: Reason,
    /// The connections there are of what is over its limit.
    pub connections: u32,
    /// The client; IPv4 where it is, never the mapped form.
    pub remote: IpAddr,
}

impl<'a> Text<'a> {
    /// Whether there is no use in trying again. A ban ends by itself.
    pub const fn is_final(&self) -> bool {
        matches!(self.reason, Reason::Denied)
    }

    /// The reason, the same in every protocol but for SMTP's own form of addresses, whose `tag`
    /// ("IPv6:") goes before the address.
    pub const fn because(&'a self, tag: &'static str) -> Because<'a> {
        Because { text: self, tag }
    }
}

/// The reason, for people.
pub struct Because<'a> {
    text: &'a Text<'a>,
    tag: &'static str,
}

impl fmt::Display for Because<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text: Text { reason, connections, remote, .. }, tag } = self;
        match reason {
            Reason::Denied => write!(out, "Access denied to this IP [{tag}{remote}]"),
            Reason::Banned => {
                write!(out, "Access denied to this IP [{tag}{remote}] for some time, try again later")
            }
            Reason::Concurrency => {
                write!(out, "Too many connections ({connections}) from this IP [{tag}{remote}]")
            }
            Reason::Network => {
                write!(
                    out,
                    "Too many connections ({connections}) from the network of this IP [{tag}{remote}]"
                )
            }
            Reason::Rate => write!(out, "Too many new connections from this IP [{tag}{remote}], slow down"),
            Reason::Total => {
                write!(
                    out,
                    "Too many connections ({connections}) to this service at present, try again later"
                )
            }
        }
    }
}

/// `name` if it can be told to a client, else one that is true of every host. No other character
/// reaches a line, so none can end it.
pub fn hostname(name: String) -> String {
    if is_hostname(&name) { name } else { "localhost".to_owned() }
}

#[cfg(test)]
pub const V4: Text<'_> = Text {
    hostname: "mail.example.org",
    reason: Reason::Concurrency,
    connections: 8,
    remote: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)),
};

#[cfg(test)]
pub const V6: Text<'_> =
    Text { remote: IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)), ..V4 };
