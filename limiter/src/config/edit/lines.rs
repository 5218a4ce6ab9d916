// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Line ends and the byte order mark: the editor knows neither, and they stay as they are.

const MARK: char = '\u{feff}';

/// The text as the editor takes it: every line ends in a line feed, and no mark stands before them.
pub fn plain(text: &str) -> String {
    text.strip_prefix(MARK).unwrap_or(text).replace("\r\n", "\n")
}

/// What came of [`plain`], with the line ends of `original`: each its own where the line was there before,
/// the first one's where it is new.
pub fn restore(original: &str, edited: &str) -> String {
    let mark = if original.starts_with(MARK) { MARK.to_string() } else { String::new() };
    let original = original.strip_prefix(MARK).unwrap_or(original);
    let before: Vec<&str> = original.split_inclusive('\n').collect();
    let after: Vec<&str> = edited.split_inclusive('\n').collect();
    let content = |line: &str| line.trim_end_matches(['\r', '\n']).to_owned();
    let is_same = |pair: &(&&str, &&str)| content(pair.0) == content(pair.1);
    let head = before.iter().zip(&after).take_while(is_same).count();
    let (old, new) = (&before[head..], &after[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(is_same).count();
    let end = if before.first().is_some_and(|line| line.ends_with("\r\n")) { "\r\n" } else { "\n" };
    let with_end = |line: &&str| format!("{}{end}", content(line));
    let mut text = mark;
    text.extend(before[..head].iter().copied());
    if head == before.len() && !new.is_empty() && !text.is_empty() && !text.ends_with('\n') {
        text.push_str(end);
    }
    text.extend(new[..new.len() - tail].iter().map(with_end));
    text.extend(old[old.len() - tail..].iter().copied());
    text
}
