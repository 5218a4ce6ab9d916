// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The libraries that are inside the program, each with the licence that it came with.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{command, paths};

/// Names and versions of the libraries with the terms of their licences, then the texts, each once.
///
/// # Errors
///
/// When cargo does not tell which they are, or where.
pub fn text() -> Result<String> {
    let root = paths::root();
    let mut metadata = Command::new(paths::cargo());
    metadata.current_dir(root).args(["metadata", "--format-version=1", "--locked"]);
    let metadata: Value = serde_json::from_str(&command::output(&mut metadata)?)?;
    let mut tree = Command::new(paths::cargo());
    tree.current_dir(root).args(["tree", "--package=limiter", "--edges=normal,build", "--prefix=none"]);
    tree.args(["--locked", "--format={p}"]);
    let inside = command::output(&mut tree)?;
    let mut list = BTreeMap::new();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().context("cargo's metadata are not as documented")? {
        let said = |key: &str| package[key].as_str().unwrap_or_default();
        let name = format!("{} {}", said("name"), said("version"));
        let is_inside = inside.lines().any(|line| {
            let mut words = line.split(' ');
            words.next() == Some(said("name")) && words.next() == Some(&format!("v{}", said("version")))
        });
        // Those without a source are our own.
        if !is_inside || package["source"].is_null() {
            continue;
        }
        list.insert(name.clone(), said("license").to_owned());
        let folder = Path::new(said("manifest_path")).parent().context("a library is nowhere")?;
        for text in licences(folder)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    Ok(layout(&list, &texts))
}

/// The texts of the licences in the folder of a library.
fn licences(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
        let is_licence = ["license", "licence", "copying", "copyright", "notice"];
        if is_licence.iter().any(|start| name.starts_with(start)) && entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    let read = |file: &std::path::PathBuf| {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    };
    files.iter().map(read).collect()
}

/// One document of the list and the texts.
fn layout(list: &BTreeMap<String, String>, texts: &BTreeMap<String, Vec<String>>) -> String {
    let mut all = "The libraries that are inside the program, and the licence of each:\n\n".to_owned();
    for (name, terms) in list {
        all.extend([name, ": ", terms, "\n"]);
    }
    for (text, names) in texts {
        all.extend(["\n---- ", &names.join(", "), " ----\n\n", text, "\n"]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_that_many_libraries_share_is_there_once_with_their_names() {
        let list = [("a 1".to_owned(), "MIT".to_owned()), ("b 2".to_owned(), "MIT".to_owned())].into();
        let texts = [("Permission".to_owned(), vec!["a 1".to_owned(), "b 2".to_owned()])].into();
        let text = layout(&list, &texts);
        assert!(text.contains("\na 1: MIT\nb 2: MIT\n\n---- a 1, b 2 ----\n\nPermission\n"), "{text}");
        assert_eq!(text.matches("Permission").count(), 1);
    }
}
