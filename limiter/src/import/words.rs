// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Words on their way into comments.

/// Longest piece of somebody's setting that is repeated, in characters.
const MAX_SHOWN: usize = 200;

/// `text` on one line, without what no comment may hold, and cut when it is endless.
pub fn one_line(text: &str) -> String {
    let mut shown = String::new();
    let words = text.split(|char: char| char.is_control() || char.is_whitespace());
    for (index, word) in words.filter(|word| !word.is_empty()).enumerate() {
        if index != 0 {
            shown.push(' ');
        }
        shown.push_str(word);
    }
    match shown.char_indices().nth(MAX_SHOWN) {
        Some((cut, _)) => format!("{}…", &shown[..cut]),
        None => shown,
    }
}

/// A parameter as its daemon writes it.
pub fn setting(name: &str, value: &str) -> String {
    let value = one_line(value);
    if value.is_empty() { format!("{name} is empty") } else { format!("{name} = {value}") }
}

/// The port of a number or a service's name.
pub fn port(name: &str) -> Option<u16> {
    match name {
        "smtp" => Some(25),
        "submission" => Some(587),
        "submissions" | "smtps" | "ssmtp" | "urd" => Some(465),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            number.parse().ok().filter(|&port| port != 0)
        }
        _ => None,
    }
}

/// What a service that speaks SMTP on this port is called.
pub fn smtp_name(port: u16) -> String {
    match port {
        25 => "smtp".to_owned(),
        587 => "submission".to_owned(),
        465 => "submissions".to_owned(),
        port => format!("smtp-{port}"),
    }
}

/// An item of a setting that is a list.
pub fn list_item(setting: &str, item: &str) -> String {
    format!("{setting}: {}", one_line(item))
}
