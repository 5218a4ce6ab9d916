// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! No test sleeps to wait for something: it polls for the condition, with a deadline. Where time itself is the subject,
//! it says so with `limiter_lab::let_time_pass`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use crate::paths;

/// Where tests are. The laboratory itself is elsewhere.
const CRATES: [&str; 3] = ["limiter-common", "limiter", "xtask/src"];

/// Passes if no test sleeps.
///
/// # Errors
///
/// When one does: with all places; or a file cannot be read.
pub fn check() -> Result<()> {
    let mut places = Vec::new();
    for file in CRATES.iter().flat_map(|folder| sources(&paths::root().join(folder))) {
        let source = fs::read_to_string(&file)?;
        let file = file.strip_prefix(paths::root()).unwrap_or(&file);
        places.extend(sleeps(file, &source).into_iter().map(|line| format!("{}:{line}", file.display())));
    }
    if !places.is_empty() {
        bail!(
            "tests sleep: poll for the condition with `limiter_lab::eventually`, or, where time itself is the subject, use \
             `limiter_lab::let_time_pass`:\n{}",
            places.join("\n")
        );
    }
    Ok(())
}

/// The lines of a source on which a test sleeps: in a file of tests, or behind `#[cfg(test)]`, which comes last.
fn sleeps(file: &Path, source: &str) -> Vec<usize> {
    let is_of_tests = |part: &Path| part.file_stem().is_some_and(|stem| stem == "tests" || stem == "benches");
    let mut in_tests = file.ancestors().any(is_of_tests);
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(source.lines()) {
        in_tests |= line.trim() == "#[cfg(test)]";
        let code = line.split("//").next().unwrap_or_default();
        if in_tests && ["thread::sleep", "time::sleep"].iter().any(|sleep| code.contains(sleep)) {
            lines.push(number);
        }
    }
    lines
}

/// The Rust sources below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_sleeps_is_found_and_a_program_that_does_is_not() {
        let sleep = ["std::thread", "::sleep(pause);"].concat();
        let tokio = ["tokio::time", "::sleep(pause).await;"].concat();
        let program = format!("fn wait() {{\n    {sleep}\n}}\n");
        assert_eq!(sleeps(Path::new("limiter/src/a.rs"), &program), [0; 0]);
        let with_tests = format!("{program}#[cfg(test)]\nmod tests {{\n    // {sleep}\n    {tokio}\n}}\n");
        assert_eq!(sleeps(Path::new("limiter/src/a.rs"), &with_tests), [7]);
        for tests in ["limiter/tests/system/a.rs", "limiter/src/greeter/tests.rs"] {
            assert_eq!(sleeps(Path::new(tests), &program), [2], "{tests}");
        }
    }

    #[test]
    fn the_tests_are_found() {
        let of_limiter = sources(&paths::root().join("limiter"));
        assert!(of_limiter.iter().any(|file| file.ends_with("tests/system/main.rs")), "{of_limiter:?}");
    }
}
