// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Runs a program that may hang, or print without end.

use std::{
    io::{self, Read},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// The most that is read of what a program prints.
pub const MAX_BYTES: u64 = 4 << 20;

/// Why there is no output.
#[derive(Debug)]
pub enum Failed {
    /// It cannot be started, or not be waited for.
    System(io::Error),
    /// It was still running when its time was up, and was ended.
    Hangs,
    /// It printed more than [`MAX_BYTES`].
    Endless,
    /// It ended like this, with these last words.
    Status(ExitStatus, String),
}

/// Runs it to its end, without input, for so long at most; what it printed.
///
/// # Errors
/// Why it did not end well.
pub fn output(command: &mut Command, patience: Duration) -> Result<String, Failed> {
    let deadline = Instant::now() + patience;
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Failed::System)?;
    // Both at once, so that neither pipe fills; a thread that hangs ends with the process.
    let (out, err) = (reading(child.stdout.take()), reading(child.stderr.take()));
    let left = || deadline.saturating_duration_since(Instant::now());
    let (Ok(out), Ok(err)) = (out.recv_timeout(left()), err.recv_timeout(left())) else {
        let _it_has_just_ended = child.kill();
        let _no_zombie = child.wait();
        return Err(Failed::Hangs);
    };
    let status = child.wait().map_err(Failed::System)?;
    if !status.success() {
        let last = err.lines().next_back().unwrap_or_default();
        return Err(Failed::Status(status, last.to_owned()));
    }
    if out.len() as u64 > MAX_BYTES { Err(Failed::Endless) } else { Ok(out) }
}

/// All that comes out of a pipe, as text.
fn reading(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _what_came = pipe.by_ref().take(MAX_BYTES + 1).read_to_end(&mut bytes);
            // The rest, so that the program ends.
            let _rest = io::copy(&mut pipe, &mut io::sink());
        }
        let _nobody_waits = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, patience_ms: u64) -> Result<String, Failed> {
        output(Command::new("/bin/sh").args(["-c", script]), Duration::from_millis(patience_ms))
    }

    #[test]
    fn what_a_program_prints_is_returned() {
        assert_eq!(sh("echo this; echo not this >&2", 10_000).unwrap(), "this\n");
    }

    #[test]
    fn the_last_words_of_a_program_that_fails_are_known() {
        let said = sh("echo one; echo two >&2; echo fatal: no config >&2; exit 3", 10_000);
        assert!(matches!(said, Err(Failed::Status(status, words))
            if status.code() == Some(3) && words == "fatal: no config"));
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let begun = Instant::now();
        assert!(matches!(sh("exec sleep 60", 50), Err(Failed::Hangs)));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn output_without_end_is_refused_and_does_not_block() {
        assert!(matches!(sh("head -c 9000000 /dev/zero", 60_000), Err(Failed::Endless)));
    }
}
