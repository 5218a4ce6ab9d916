// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `docs/testing.md` names the tests that show each claim: all of them exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::paths;

/// A name of a test has at least this many words: shorter words in the page's code spans are commands and keys.
const WORDS: usize = 4;

/// What stands between backquotes on each line of a text.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Whether it may be the name of a test: lower case with underscores.
fn is_name(span: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    span.bytes().all(is_plain) && span.split('_').count() >= WORDS
}

/// Where the links of a text go.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// Every source below a folder, but what is built.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions, which is more than tests; but the names in the page are sentences, and nothing else is
/// called by one.
fn names() -> BTreeSet<String> {
    let mut files = Vec::new();
    for part in ["limiter", "limiter-common", "xtask"] {
        sources(&paths::root().join(part), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        for line in text.lines() {
            let line = line.trim_start();
            // What a comment says is no test.
            if line.starts_with("//") {
                continue;
            }
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let line = line.strip_prefix("async ").unwrap_or(line);
            let Some(rest) = line.strip_prefix("fn ") else { continue };
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            names.insert(rest[..end].to_owned());
        }
    }
    names
}

#[test]
fn every_test_named_in_the_page_about_testing_exists() {
    let page = fs::read_to_string(paths::root().join("docs/testing.md")).unwrap();
    let names = names();
    let wanted: Vec<&str> = code_spans(&page).filter(|span| is_name(span)).collect();
    assert!(
        wanted.len() > 50,
        "only {} tests are named, which is too few to be the page: {wanted:?}",
        wanted.len()
    );
    let missing: Vec<&&str> = wanted.iter().filter(|name| !names.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/testing.md names tests that are not there: {missing:?}");
}

#[test]
fn every_file_named_in_the_page_about_testing_exists() {
    let docs = paths::root().join("docs");
    let page = fs::read_to_string(docs.join("testing.md")).unwrap();
    let missing: Vec<&str> = links(&page)
        .filter(|target| !target.contains("://"))
        .filter(|target| !docs.join(target.split('#').next().unwrap_or_default()).exists())
        .collect();
    assert!(missing.is_empty(), "docs/testing.md links to what is not there: {missing:?}");
}
