// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What whoever runs the tests is to read also when they pass.

use std::io::Write as _;

/// Says it, in a line.
pub fn say(text: &str) {
    // Not `eprintln!`: the test harness would keep it to itself. In one piece, or other tests come in between.
    let _ = std::io::stderr().write_all(format!("{}\n", text.trim_end()).as_bytes());
}
