// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `ManageSieve`: BYE instead of the greeting, with the code that asks to try again later
//! (RFC 5804, 1.2 and 1.3).

use super::text::Text;

/// The reply. The text is a quoted string, in UTF-8 (RFC 5804, 4).
pub fn line(text: &Text<'_>) -> String {
    let code = if text.is_final() { "" } else { "(TRYLATER) " };
    let words = text.words("").replace('\\', "\\\\").replace('"', "\\\"");
    format!("BYE {code}\"{words}\"\r\n")
}

#[cfg(test)]
mod tests {
    use super::{super::text, line};

    #[test]
    fn the_reply_is_a_bye_that_asks_to_try_later() {
        assert_eq!(
            line(&text::V4),
            "BYE (TRYLATER) \"Too many connections (8 of 8) from this IP [203.0.113.7], close one or wait\"\r\n"
        );
        assert_eq!(
            line(&text::V6),
            "BYE (TRYLATER) \"Too many connections (8 of 8) from this IP [2001:db8::7], close one or wait\"\r\n"
        );
    }
}
