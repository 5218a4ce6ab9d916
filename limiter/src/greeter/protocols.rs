// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The protocols: each puts what a client is told into its own form.

use limiter_common::Protocol;

use super::{imap, pop3, sieve, smtp, text::Text};

/// The longest line a protocol allows, CRLF included: SMTP's (RFC 5321, 4.5.3.1.5) and POP3's
/// (RFC 1939, 3); the others allow more.
#[cfg(test)]
pub const MAX_LINE: usize = 512;

/// The line, CRLF included, at most 512 bytes.
pub fn line(text: &Text<'_>, protocol: Protocol) -> String {
    match protocol {
        Protocol::Smtp => smtp::line(text),
        Protocol::Imap => imap::line(text),
        Protocol::Pop3 => pop3::line(text),
        Protocol::Sieve => sieve::line(text),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use limiter_common::Reason;
    use proptest::prelude::*;

    use super::{
        super::text::{V4, hostname},
        *,
    };

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
        let said = |reason, protocol| line(&Text { reason, ..V4 }, protocol);
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
                let text = Text { hostname: name, reason, connections, remote };
                for protocol in Protocol::ALL {
                    let line = line(&text, protocol);
                    prop_assert!(line.len() <= MAX_LINE && line.is_ascii(), "{}", line);
                    let text = line.strip_suffix("\r\n").unwrap();
                    prop_assert!(!text.contains(|c: char| c.is_ascii_control()), "{}", line);
                }
            }
        }
    }
}
