// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! SMTP and submission: reply 421, "closing transmission channel" (RFC 5321, 4.2.3), with the enhanced
//! status of a security or policy matter that may pass (RFC 3463, 3.8). Clients that get it try again
//! later.

use std::net::IpAddr;

use super::text::Text;

/// The reply. IPv6 addresses have the form of SMTP's address literals (RFC 5321, 4.1.3).
pub fn line(text: &Text<'_>) -> String {
    let tag = match text.remote {
        IpAddr::V4(_) => "",
        IpAddr::V6(_) => "IPv6:",
    };
    let code = if text.is_final() { "554 5.7.1" } else { "421 4.7.0" };
    format!("{code} {} {}\r\n", text.hostname, text.words(tag))
}

#[cfg(test)]
mod tests {
    use super::{super::text, line};

    #[test]
    fn the_reply_is_a_421_with_the_name_and_the_address() {
        assert_eq!(
            line(&text::V4),
            "421 4.7.0 mail.example.org Too many connections (8 of 8) from this IP [203.0.113.7], close one or wait\r\n"
        );
        assert_eq!(
            line(&text::V6),
            "421 4.7.0 mail.example.org Too many connections (8 of 8) from this IP [IPv6:2001:db8::7], close one or wait\r\n"
        );
    }
}
