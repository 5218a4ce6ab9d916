//! What is said, whatever the protocol; each protocol's module puts it in its own form.

use std::{fmt, net::IpAddr};

use limiter_common::{Protocol, Reason};

use super::{imap, pop3, sieve, smtp};
use crate::config::is_hostname;

/// The longest line a protocol allows, CRLF included: SMTP's (RFC 5321, 4.5.3.1.5) and POP3's
/// (RFC 1939, 3); the others allow more.
#[cfg(test)]
pub const MAX_LINE: usize = 512;

/// What a refusal tells.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// The greeter's name, one that [`is_hostname`] accepts.
    pub hostname: &'a str,
    /// Why it is refused.
    pub reason: Reason,
    /// The connections there are of what is over its limit.
    pub connections: u32,
    /// The client; IPv4 where it is, never the mapped form.
    pub remote: IpAddr,
}

impl Words<'_> {
    /// The line, CRLF included, at most 512 bytes.
    pub fn line(&self, protocol: Protocol) -> String {
        match protocol {
            Protocol::Smtp => smtp::line(self),
            Protocol::Imap => imap::line(self),
            Protocol::Pop3 => pop3::line(self),
            Protocol::Sieve => sieve::line(self),
        }
    }
}

impl<'a> Words<'a> {
    /// Whether there is no use in trying again. A ban ends by itself.
    pub const fn is_final(&self) -> bool {
        matches!(self.reason, Reason::Denied)
    }

    /// The reason, the same in every protocol but for SMTP's own form of addresses, whose `tag`
    /// ("IPv6:") goes before the address.
    pub const fn because(&'a self, tag: &'static str) -> Because<'a> {
        Because { words: self, tag }
    }
}

/// The reason, for people.
pub struct Because<'a> {
    words: &'a Words<'a>,
    tag: &'static str,
}

impl fmt::Display for Because<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { words: Words { reason, connections, remote, .. }, tag } = self;
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
pub const V4: Words<'_> = Words {
    hostname: "mail.example.org",
    reason: Reason::Concurrency,
    connections: 8,
    remote: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)),
};

#[cfg(test)]
pub const V6: Words<'_> =
    Words { remote: IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)), ..V4 };

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    const PROTOCOLS: [Protocol; 4] = [Protocol::Smtp, Protocol::Imap, Protocol::Pop3, Protocol::Sieve];

    #[test]
    fn a_name_that_could_say_something_else_is_not_given() {
        let long = "a".repeat(254);
        for bad in ["", "a b", "a\r\n250 ok", "ä.example", "a\"b", "(none)", long.as_str()] {
            assert_eq!(hostname(bad.to_owned()), "localhost", "{bad:?}");
        }
        assert_eq!(hostname("mx-1.example.org".to_owned()), "mx-1.example.org");
    }

    /// Exim bounces at once on a 554, and a ban ends by itself.
    #[test]
    fn who_is_banned_may_try_again_and_who_is_denied_need_not() {
        let said = |reason, protocol| Words { reason, ..V4 }.line(protocol);
        for (protocol, later, never) in [
            (Protocol::Smtp, "421 4.7.0 ", "554 5.7.1 "),
            (Protocol::Imap, "* BYE [UNAVAILABLE] ", "* BYE [NOPERM] "),
            (Protocol::Pop3, "-ERR [SYS/TEMP] ", "-ERR [SYS/PERM] "),
            (Protocol::Sieve, "BYE (TRYLATER) ", "BYE \""),
        ] {
            for reason in Reason::ALL {
                let expected = if reason == Reason::Denied { never } else { later };
                let line = said(reason, protocol);
                assert!(line.starts_with(expected), "{reason:?}: {line}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_line_is_one_line_and_fits_the_protocol(
            name in ".{0,260}", connections: u32, v6: u128, reason in prop::sample::select(&Reason::ALL),
        ) {
            let longest = "a".repeat(253);
            for name in [&hostname(name), &longest] {
                let remote = IpAddr::V6(Ipv6Addr::from(v6)).to_canonical();
                let words = Words { hostname: name, reason, connections, remote };
                for protocol in PROTOCOLS {
                    let line = words.line(protocol);
                    prop_assert!(line.len() <= MAX_LINE && line.is_ascii(), "{}", line);
                    let text = line.strip_suffix("\r\n").unwrap();
                    prop_assert!(!text.contains(|c: char| c.is_ascii_control()), "{}", line);
                }
            }
        }
    }
}
