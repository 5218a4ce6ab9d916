// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a program draws on a terminal, as lines.

/// The text of it: every piece that is drawn at a place of its own is a line.
pub fn lines(drawn: &str) -> String {
    let mut text = String::new();
    let mut chars = drawn.chars();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => {
                // ECMA-48, 5.4: CSI, parameters, and one final character; or one or two characters.
                match chars.next() {
                    Some('[') => {
                        let end = chars.find(|char| ('@'..='~').contains(char));
                        if end != Some('m') {
                            text.push('\n');
                        }
                    }
                    Some('(' | ')') => drop(chars.next()),
                    _ => text.push('\n'),
                }
            }
            '\r' | '\n' => text.push('\n'),
            char if char.is_control() => {}
            char => text.push(char),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn what_is_drawn_at_one_place_is_one_line_without_colours() {
        assert_eq!(
            lines("\u{1b}[1;1H\u{1b}[31mred\u{1b}[0m one\u{1b}[2;1Htwo\r\u{1b}(Bthree"),
            "\nred one\ntwo\nthree"
        );
    }
}
