// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Each source file says under which licence it is, in the form that machines read (<https://spdx.dev>).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// What it has to say: the licence of all crates.
const TAG: &str = concat!("SPDX-License-Identifier: ", env!("CARGO_PKG_LICENSE"));

/// Checks the source files among these.
///
/// # Errors
///
/// Which do not say it.
pub fn check(files: &[PathBuf], root: &Path) -> Result<()> {
    let silent: Vec<_> = files
        .iter()
        .filter(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            is_source(file, &text) && !says_it(&text)
        })
        .map(|file| file.strip_prefix(root).unwrap_or(file).display().to_string())
        .collect();
    if silent.is_empty() {
        return Ok(());
    }
    bail!("add \"{TAG}\" in a comment at the top (below #!, if any) of:\n{}", silent.join("\n"))
}

/// Rust, Python and shell, by name or by the first line.
fn is_source(file: &Path, text: &str) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("rs" | "py" | "sh")) || text.starts_with("#!/")
}

/// In the first line, or in the second, after `#!`.
fn says_it(text: &str) -> bool {
    let skipped = usize::from(text.starts_with("#!/"));
    let line = text.lines().nth(skipped).unwrap_or_default();
    line.strip_prefix("// ").or_else(|| line.strip_prefix("# ")) == Some(TAG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_file_without_its_licence_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let right = [
            file("a.rs", format!("// {TAG}\n//! A.\n")),
            file("run", format!("#!/bin/sh\n# {TAG}\ntrue\n")),
            file("notes.txt", "whose?\n".to_owned()),
        ];
        check(&right, folder.path()).unwrap();
        let wrong = [
            file("b.rs", format!("//! B.\n// {TAG}\n")),
            file("c.py", String::new()),
            file("d", format!("#!/bin/sh\n# {TAG} WITH exceptions\n")),
        ];
        let error = check(&wrong, folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("if any) of:\nb.rs\nc.py\nd"), "{error}");
    }
}
