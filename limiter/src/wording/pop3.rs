// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! POP3: an error instead of the greeting, with the code of a problem that is the system's and will
//! pass, so that no client asks its user for another password (RFC 3206, 4). The code of a mailbox that somebody else has
//! open, `[IN-USE]` (RFC 2449, 8.1.2), would be of no mailbox here.

use super::text::Text;

/// The reply.
pub fn line(text: &Text<'_>) -> String {
    let code = if text.is_final() { "SYS/PERM" } else { "SYS/TEMP" };
    format!("-ERR [{code}] {}\r\n", text.words(""))
}

#[cfg(test)]
mod tests {
    use super::{super::text, line};

    #[test]
    fn the_reply_is_an_error_that_will_pass() {
        assert_eq!(
            line(&text::V4),
            "-ERR [SYS/TEMP] Too many connections (8 of 8) from this IP [203.0.113.7], close one or wait\r\n"
        );
        assert_eq!(
            line(&text::V6),
            "-ERR [SYS/TEMP] Too many connections (8 of 8) from this IP [2001:db8::7], close one or wait\r\n"
        );
    }
}
