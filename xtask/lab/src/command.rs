// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Runs programs to their end, and says which one failed.

use std::borrow::BorrowMut;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// PATH, and where Debian keeps the programs of root, which are not on everyone's PATH.
pub fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(paths).unwrap_or(path)
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

/// Runs it to its end; what it printed.
///
/// # Errors
///
/// When it cannot be started, or fails: with what it said on stderr.
pub fn run(mut command: impl BorrowMut<Command>) -> Result<String> {
    let command = command.borrow_mut();
    let output = command.output().with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", line(command), output.status, complaint.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs it to its end with `input` on its standard input.
///
/// # Errors
///
/// When it cannot be started, does not read, or fails.
pub fn feed(mut command: impl BorrowMut<Command>, input: &str) -> Result<()> {
    let command = command.borrow_mut();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", line(command)))?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed ({status}), of:\n{input}", line(command));
    }
    written.with_context(|| format!("{} does not read all of its input", line(command)))
}

/// What a program that may fail gave.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said on stderr.
    pub stderr: String,
}

impl Outcome {
    /// Runs `command` to its end, without input.
    #[expect(clippy::expect_used, reason = "the test fails")]
    pub fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null()).output().expect("the command can be started").into()
    }
}

impl From<std::process::Output> for Outcome {
    fn from(output: std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_named_with_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo no room >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("no room"), "{error}");
        assert!(feed(Command::new("grep").args(["-q", "this"]), "that\n").is_err());
        feed(Command::new("grep").args(["-q", "this"]), "this\n").unwrap();
    }
}
