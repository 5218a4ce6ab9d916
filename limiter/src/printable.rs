// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Names that others have chosen, fit to be printed: a process or a network interface may be called anything, also what a
//! terminal takes for a command, or what looks like a line of our own.

/// What stands for what cannot be printed.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// A name in bytes, without its last line end; what is no text, and what would control a terminal, is replaced.
pub fn name(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.strip_suffix('\n').unwrap_or(&text).replace(char::is_control, &REPLACEMENT.to_string())
}

/// A text of lines; what would control a terminal is replaced.
pub fn lines(text: &str) -> String {
    let is_control = |c: char| c.is_control() && c != '\n';
    text.replace(is_control, &REPLACEMENT.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_and_controls_no_terminal() {
        assert_eq!(name(b"imap-login\n"), "imap-login");
        assert_eq!(name(b"a\nlimiter: all is well\n"), "a\u{fffd}limiter: all is well");
        assert_eq!(name(b"\x1b[2Jx\x9b"), "\u{fffd}[2Jx\u{fffd}");
        assert_eq!(name("\u{9b}31m\u{e4}".as_bytes()), "\u{fffd}31m\u{e4}");
        assert_eq!(name(b""), "");
    }

    #[test]
    fn of_a_text_the_lines_stay() {
        assert_eq!(lines("one\n\x1b[31mtwo\r\n"), "one\n\u{fffd}[31mtwo\u{fffd}\n");
    }
}
