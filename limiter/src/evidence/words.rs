// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What others have written, on its way to a screen.

/// Longest text that is shown, in characters.
const MOST: usize = 100;

/// A text as it is shown: what is no letter to see, and what turns the direction of others, is a replacement character; and
/// it has an end.
pub fn shown(text: &str) -> String {
    let mut shown: String =
        text.trim().chars().take(MOST).map(|char| if is_plain(char) { char } else { '\u{fffd}' }).collect();
    if text.trim().chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether a character is there to be seen, and nothing else.
pub fn is_plain(char: char) -> bool {
    let is_format = matches!(char,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !char.is_control() && !is_format
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_write_moves_the_cursor_or_turns_the_text() {
        assert_eq!(shown("anna@example.net"), "anna@example.net");
        assert_eq!(shown("jürgen 李"), "jürgen 李");
        assert_eq!(
            shown("a\u{1b}[2Jb\r\nc\u{202e}d\u{0}"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d\u{fffd}"
        );
        let long = shown(&"x".repeat(10 << 20));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MOST + 1, true));
    }
}
