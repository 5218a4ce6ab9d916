// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The protocols: each puts what a client is told into its own form.

use std::net::{IpAddr, Ipv6Addr};

use limiter_common::{Protocol, Reason};

use super::{imap, pop3, retry::Retry, sieve, smtp, text::Text, words::Wording};

/// The longest line that is sent, CRLF included: SMTP's (RFC 5321, 4.5.3.1.5) and POP3's (RFC 1939, 3); the others
/// allow more.
pub const MAX_LINE: usize = 512;

/// The longest name of a host that Linux has, without its end.
const MAX_SYSTEM_HOSTNAME: usize = 64;

/// Whether the protocol's text has ASCII alone: SMTP's (RFC 5321, 4.2), POP3's (RFC 1939, 3) and IMAP's before the client
/// has enabled anything else (RFC 9051, 5.1). `ManageSieve` is UTF-8 (RFC 5804, 1.2).
#[must_use]
pub const fn is_ascii(protocol: Protocol) -> bool {
    !matches!(protocol, Protocol::Sieve)
}

/// The name of a protocol, in prose.
#[must_use]
pub const fn title(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Smtp => "SMTP",
        Protocol::Imap => "IMAP",
        Protocol::Pop3 => "POP3",
        Protocol::Sieve => "ManageSieve",
    }
}

/// The line, CRLF included, at most [`MAX_LINE`] bytes. The configuration makes sure that the administrator's words fit.
/// Where they do not all the same, because the host has got a longer name than Linux has, the limiter's stand in for them.
#[must_use]
pub fn line(text: &Text<'_>, protocol: Protocol) -> String {
    let line = composed(text, protocol);
    if line.len() <= MAX_LINE { line } else { composed(&Text { wording: &Wording::NONE, ..*text }, protocol) }
}

/// How long the line may get at a service, by its values; `hostname` if that is known.
#[must_use]
pub fn longest(
    wording: &Wording,
    protocol: Protocol,
    service: &str,
    reason: Reason,
    hostname: Option<&str>,
) -> usize {
    let system = "h".repeat(MAX_SYSTEM_HOSTNAME);
    let text = Text {
        hostname: hostname.unwrap_or(&system),
        service,
        reason,
        count: u32::MAX,
        limit: u32::MAX,
        remote: IpAddr::V6(Ipv6Addr::from(u128::MAX)),
        retry: Retry::LONGEST,
        wording,
    };
    composed(&text, protocol).len()
}

fn composed(text: &Text<'_>, protocol: Protocol) -> String {
    match protocol {
        Protocol::Smtp => smtp::line(text),
        Protocol::Imap => imap::line(text),
        Protocol::Pop3 => pop3::line(text),
        Protocol::Sieve => sieve::line(text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{
        super::{template::Template, text::V4},
        *,
    };

    /// Exim bounces at once on a 554, and a ban ends by itself.
    #[test]
    fn who_is_banned_may_try_again_and_who_is_denied_need_not() {
        let told = |reason, protocol| line(&Text { reason, ..V4 }, protocol);
        for (protocol, later, never) in [
            (Protocol::Smtp, "421 4.7.0 ", "554 5.7.1 "),
            (Protocol::Imap, "* BYE [UNAVAILABLE] ", "* BYE [NOPERM] "),
            (Protocol::Pop3, "-ERR [SYS/TEMP] ", "-ERR [SYS/PERM] "),
            (Protocol::Sieve, "BYE (TRYLATER) ", "BYE \""),
        ] {
            for reason in Reason::ALL {
                let expected = if reason == Reason::Denied { never } else { later };
                let line = told(reason, protocol);
                assert!(line.starts_with(expected), "{reason:?}: {line}");
            }
        }
    }

    #[test]
    fn whatever_will_pass_has_the_word_that_fetchmail_looks_for() {
        for reason in Reason::ALL {
            let line = line(&Text { reason, ..V4 }, Protocol::Pop3);
            assert_eq!(line.contains("wait"), reason != Reason::Denied, "{line}");
        }
    }

    fn wording(reason: Reason, message: &str, url: Option<&str>) -> Wording {
        let mut wording = Wording::default();
        wording.set(reason, Some(Template::parse(message).unwrap()));
        wording.url = url.map(|url| Template::parse(url).unwrap());
        wording
    }

    #[test]
    fn the_administrators_words_stand_behind_the_protocols_code() {
        let told = |message: &str, url, protocol| {
            let wording = wording(Reason::Concurrency, message, url);
            line(&Text { wording: &wording, count: 9, ..V4 }, protocol)
        };
        let message = "{count} of {limit} from {address} at {service} of {hostname}: {reason}, come {retry}";
        let values = "9 of 8 from 203.0.113.7 at smtp of mail.example.org: concurrency, come later";
        assert_eq!(told(message, None, Protocol::Smtp), format!("421 4.7.0 mail.example.org {values}\r\n"));
        let url = Some("https://example.org/{address}");
        assert_eq!(
            told("too many", url, Protocol::Pop3),
            "-ERR [SYS/TEMP] too many https://example.org/203.0.113.7\r\n"
        );
        assert_eq!(
            told("see {url} why", url, Protocol::Imap),
            "* BYE [UNAVAILABLE] see https://example.org/203.0.113.7 why\r\n"
        );
        assert_eq!(
            told("\u{fc}ber \"8\" \\", None, Protocol::Sieve),
            "BYE (TRYLATER) \"\u{fc}ber \\\"8\\\" \\\\\"\r\n"
        );
        assert_eq!(told("{{8}}", None, Protocol::Imap), "* BYE [UNAVAILABLE] {8}\r\n");
    }

    #[test]
    fn words_for_one_reason_leave_the_others_as_they_are() {
        let wording = wording(Reason::Concurrency, "too many", Some("https://example.org"));
        let told = |reason| line(&Text { wording: &wording, reason, hostname: "h", ..V4 }, Protocol::Smtp);
        assert_eq!(told(Reason::Concurrency), "421 4.7.0 h too many https://example.org\r\n");
        assert_eq!(
            told(Reason::Denied),
            "554 5.7.1 h Access denied to this IP [203.0.113.7] https://example.org\r\n"
        );
    }

    proptest! {
        #[test]
        fn every_line_is_one_line_and_no_longer_than_the_longest(
            hostname in "[a-z0-9.-]{1,253}",
            message in proptest::option::of(
                "(\\PC|\\{count\\}|\\{limit\\}|\\{address\\}|\\{service\\}|\\{hostname\\}|\\{reason\\}|\\{retry\\}|\\{url\\}){1,60}",
            ),
            url in proptest::option::of("https://[a-z./]{1,60}"),
            (count, limit) in any::<(u32, u32)>(),
            v6 in any::<u128>(),
            retry in proptest::option::of(0u64..40 * 86_400),
            reason in prop::sample::select(&Reason::ALL),
        ) {
            let mut wording = Wording::default();
            wording.set(reason, message.and_then(|message| Template::parse(&message).ok()));
            wording.url = url.map(|url| Template::parse(&url).unwrap());
            let retry = retry.map_or(Retry::Later, |seconds| Retry::In(Duration::from_secs(seconds)));
            let remote = IpAddr::V6(Ipv6Addr::from(v6)).to_canonical();
            let text =
                Text { hostname: &hostname, service: "smtp", reason, count, limit, remote, retry, wording: &wording };
            for protocol in Protocol::ALL {
                let longest = longest(&wording, protocol, "smtp", reason, Some(&hostname));
                let composed = composed(&text, protocol);
                prop_assert!(composed.len() <= longest, "{} > {longest}: {composed}", composed.len());
                let sent = line(&text, protocol);
                prop_assert!(sent.len() <= MAX_LINE, "{sent}");
                let words = sent.strip_suffix("\r\n").unwrap();
                prop_assert!(!words.contains(|c: char| c.is_control()), "{words:?}");
                if longest <= MAX_LINE {
                    prop_assert_eq!(sent, composed);
                }
            }
        }
    }
}
