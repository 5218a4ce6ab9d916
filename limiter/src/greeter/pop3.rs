//! POP3: an error instead of the greeting, with the code of a problem that is the system's and will
//! pass, so that no client asks its user for another password (RFC 3206, 4).

use super::words::Words;

/// The reply.
pub fn line(words: &Words<'_>) -> String {
    let code = if words.is_final() { "SYS/PERM" } else { "SYS/TEMP" };
    format!("-ERR [{code}] {}\r\n", words.because(""))
}

#[cfg(test)]
mod tests {
    use super::{super::words, line};

    #[test]
    fn the_reply_is_an_error_that_will_pass() {
        assert_eq!(
            line(&words::V4),
            "-ERR [SYS/TEMP] Too many connections (8) from this IP [203.0.113.7]\r\n"
        );
        assert_eq!(
            line(&words::V6),
            "-ERR [SYS/TEMP] Too many connections (8) from this IP [2001:db8::7]\r\n"
        );
    }
}
