// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whether a certificate is for the name that a client asks for.

/// Whether one of `names` is `asked`, or a wildcard that covers it (RFC 9525, 6.3): `*` stands for exactly one
/// label, the first.
pub fn cover(names: &[String], asked: &str) -> bool {
    let asked = asked.strip_suffix('.').unwrap_or(asked);
    names.iter().any(|name| covers(name.strip_suffix('.').unwrap_or(name), asked))
}

fn covers(name: &str, asked: &str) -> bool {
    let Some(parent) = name.strip_prefix("*.") else { return name.eq_ignore_ascii_case(asked) };
    asked.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
}

#[cfg(test)]
mod tests {
    use super::cover;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = ["mail.example.org".to_owned(), "*.example.net".to_owned()];
        for asked in ["mail.example.org", "MAIL.example.ORG", "mail.example.org.", "imap.example.net"] {
            assert!(cover(&names, asked), "{asked}");
        }
        for asked in
            ["example.org", "example.net", "a.b.example.net", ".example.net", "", "*", "imap.example.net.x"]
        {
            assert!(!cover(&names, asked), "{asked}");
        }
    }
}
