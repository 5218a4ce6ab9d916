// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Texts and commands in as many lines as there is room for.

/// Columns there are; `None`: as many as it takes.
type Width = Option<usize>;

/// A text in lines of at most `width` columns, where words allow it. What stands in backticks is a command, to be copied
/// as a whole: it is not broken.
pub fn wrapped(text: &str, width: Width) -> Vec<String> {
    let Some(width) = width.filter(|&width| text.chars().count() > width) else {
        return vec![text.to_owned()];
    };
    let indent = " ".repeat(text.len() - text.trim_start_matches(' ').len());
    let (mut lines, mut line, mut is_empty) = (Vec::new(), indent.clone(), true);
    for word in words(text) {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, indent.clone()));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(line);
    lines
}

/// A command in parts of at most `width` columns, where its words allow it. A word in quotes is one, and an option stays
/// with its value where both have room.
pub fn split(command: &str, width: Width) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for char in command.chars() {
        match (char, quote) {
            (' ', None) => words.push(std::mem::take(&mut word)),
            ('"' | '\'', None) => {
                quote = Some(char);
                word.push(char);
            }
            _ => {
                if quote == Some(char) {
                    quote = None;
                }
                word.push(char);
            }
        }
    }
    words.push(word);
    let mut units: Vec<String> = Vec::new();
    for word in words {
        match units.last_mut() {
            Some(option) if option.starts_with("--") && !option.contains(' ') && !word.starts_with('-') => {
                option.push(' ');
                option.push_str(&word);
            }
            _ => units.push(word),
        }
    }
    let mut parts: Vec<String> = Vec::new();
    for unit in units {
        match parts.last_mut() {
            Some(part)
                if width.is_none_or(|width| part.chars().count() + 1 + unit.chars().count() <= width) =>
            {
                part.push(' ');
                part.push_str(&unit);
            }
            _ => parts.push(unit),
        }
    }
    parts
}

/// The words of a text; a command in backticks is one.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut start, mut is_command) = (Vec::new(), None, false);
    for (at, char) in text.char_indices() {
        is_command ^= char == '`';
        match (char == ' ' && !is_command, start) {
            (true, Some(from)) => {
                words.push(&text[from..at]);
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    words.extend(start.map(|from| &text[from..]));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_commands_stay_whole() {
        let text = "end it with `limiter --instance mail unload now`, then start it again";
        assert_eq!(
            wrapped(text, Some(30)),
            ["end it with", "`limiter --instance mail unload now`,", "then start it again"]
        );
        assert_eq!(wrapped(text, None), [text]);
        assert_eq!(wrapped("  two words here", Some(11)), ["  two words", "  here"]);
    }
}
