// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The tables of `docs/clients.md`.

use std::fmt::Write as _;

use super::case::{Seen, Way};

/// One for each way.
pub fn tables(seen: &[Seen]) -> String {
    let mut text = String::new();
    for way in Way::ALL {
        let of_way: Vec<&Seen> = seen.iter().filter(|seen| seen.way == way).collect();
        if of_way.is_empty() {
            continue;
        }
        let _in_memory =
            write!(text, "## {way}\n\n| client | port | its user sees | exit code |\n|---|---|---|---|\n");
        for Seen { client, port, lines, code, .. } in of_way {
            let lines: Vec<String> = lines.iter().map(|line| cell(line)).collect();
            let lines = if lines.is_empty() { "nothing".to_owned() } else { lines.join("<br>") };
            let code = code.map_or_else(|| "–".to_owned(), |code| code.to_string());
            let _in_memory = writeln!(text, "| {client} | {port} | {lines} | {code} |");
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

/// One line, as code in a cell.
fn cell(line: &str) -> String {
    format!("`{}`", line.replace('`', "'").replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_a_row_and_nothing_is_said_to_be_nothing() {
        let seen = |way, lines: &[&str], code| Seen {
            client: "c",
            port: 25,
            way,
            lines: lines.iter().map(|&line| line.to_owned()).collect(),
            code,
        };
        assert_eq!(
            tables(&[
                seen(Way::TlsAlert, &["d"], Some(0)),
                seen(Way::Plain, &["a | `b`", "c"], Some(1)),
                seen(Way::StartTls, &[], None)
            ]),
            "## Plain\n\n| client | port | its user sees | exit code |\n|---|---|---|---|\n\
             | c | 25 | `a \\| 'b'`<br>`c` | 1 |\n\n\
             ## STARTTLS\n\n| client | port | its user sees | exit code |\n|---|---|---|---|\n\
             | c | 25 | nothing | – |\n\n\
             ## Implicit TLS without a certificate\n\n| client | port | its user sees | exit code |\n|---|---|---|---|\n\
             | c | 25 | `d` | 0 |\n"
        );
    }
}
