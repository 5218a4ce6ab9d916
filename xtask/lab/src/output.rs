// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What whoever runs the tests is to read also when they pass, and how numbers are shown.

use std::io::Write as _;

/// Says it, in a line.
pub fn say(text: &str) {
    // Not `eprintln!`: the test harness would keep it to itself. In one piece, or other tests come in between.
    let _ = std::io::stderr().write_all(format!("{}\n", text.trim_end()).as_bytes());
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
