// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IMAP: an untagged BYE instead of the greeting (RFC 9051, 7.1.5), with the code of what is
//! unavailable for now (RFC 5530, 3).

use super::text::Text;

/// The reply.
pub fn line(text: &Text<'_>) -> String {
    let code = if text.is_final() { "NOPERM" } else { "UNAVAILABLE" };
    format!("* BYE [{code}] {}\r\n", text.words(""))
}

#[cfg(test)]
mod tests {
    use super::{super::text, line};

    #[test]
    fn the_reply_is_a_bye_instead_of_a_greeting() {
        assert_eq!(
            line(&text::V4),
            "* BYE [UNAVAILABLE] Too many connections (8 of 8) from this IP [203.0.113.7], close one or wait\r\n"
        );
        assert_eq!(
            line(&text::V6),
            "* BYE [UNAVAILABLE] Too many connections (8 of 8) from this IP [2001:db8::7], close one or wait\r\n"
        );
    }
}
