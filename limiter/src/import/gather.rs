// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemons' own programs print, or printed into a file. The only place of the import that
//! touches the system.

use std::{
    collections::BTreeSet,
    env,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Daemon, Reader, Unread, words::one_line};
use crate::bounded::{self, Failed, MAX_BYTES};

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most runs for what the first ones refer to.
const MAX_MORE: usize = 50;

/// The daemon as it is installed here; `None` if it is not.
///
/// # Errors
/// When its program fails, or prints what is no settings.
pub fn here(reader: &Reader) -> Result<Option<Daemon>> {
    ask(reader, &[], || PATIENCE)
}

/// The same of the daemon whose program takes these arguments before all others, by a time at which it must have answered.
///
/// # Errors
/// As of [`here`], and when that time has come.
pub fn by(reader: &Reader, arguments: &[&str], deadline: Instant) -> Result<Option<Daemon>> {
    ask(reader, arguments, || deadline.saturating_duration_since(Instant::now()))
}

fn ask(reader: &Reader, before: &[&str], patience: impl Fn() -> Duration) -> Result<Option<Daemon>> {
    let Some(program) = reader.programs.iter().find_map(|name| find(name)) else { return Ok(None) };
    let run = |arguments: &[&str]| run(&program, &[before, arguments].concat(), patience());
    let mut text = String::new();
    for arguments in reader.runs {
        text.push_str(&run(arguments)?);
        text.push('\n');
    }
    let mut asked = BTreeSet::new();
    loop {
        let more: Vec<_> = (reader.more)(&text).into_iter().filter(|run| !asked.contains(run)).collect();
        if more.is_empty() || asked.len() >= MAX_MORE {
            break;
        }
        for arguments in more {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            // What cannot be had is named as missing by whoever looks for it.
            text.push_str(&run(&words).unwrap_or_default());
            text.push('\n');
            asked.insert(arguments);
        }
    }
    let shown = program.display();
    (reader.read)(&text).map(Some).map_err(|unread| match unread {
        Unread::Other => anyhow!("{shown} prints no settings of {}", reader.name),
        Unread::Cut(where_it_shows) => {
            anyhow!("cannot read the output of {shown}: it seems incomplete: {where_it_shows}")
        }
    })
}

/// The daemon whose settings are in a file; `-`: on standard input.
///
/// # Errors
/// When it cannot be read, or holds something else.
pub fn saved(reader: &Reader, path: &Path) -> Result<Daemon> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let cannot = || format!("cannot read {name}");
    if is_stdin {
        io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(cannot)?;
    } else {
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .with_context(cannot)?;
    }
    let runs = reader.runs.iter().map(|arguments| [&[reader.programs[0]], *arguments].concat().join(" "));
    let runs = runs.collect::<Vec<_>>().join("; ");
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{name} is larger than {} MiB; give the output of `{runs}`", MAX_BYTES >> 20);
    }
    (reader.read)(&String::from_utf8_lossy(&bytes)).map_err(|unread| match unread {
        Unread::Other => {
            anyhow!("{name} contains no settings of {}; give the output of `{runs}`", reader.name)
        }
        Unread::Cut(where_it_shows) => {
            anyhow!(
                "{name}: the text seems incomplete: {where_it_shows}; save the complete output of `{runs}`"
            )
        }
    })
}

/// A program on the PATH, or where those of root are.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let root = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(root).map(|dir| dir.join(name)).find(|program| program.is_file())
}

/// Runs a program of the mail daemon, and returns what it prints.
fn run(program: &Path, arguments: &[&str], patience: Duration) -> Result<String> {
    let shown = one_line(&format!("{} {}", program.display(), arguments.join(" ")));
    let mut command = Command::new(program);
    command.args(arguments).envs([("LANG", "C"), ("LC_ALL", "C")]);
    bounded::output(&mut command, patience).map_err(|failed| match failed {
        Failed::System(error) => anyhow!("cannot run {shown}: {error}"),
        Failed::Hangs => anyhow!(
            "{shown} is still running after {} seconds; save its output and give that file",
            patience.as_secs_f32().ceil()
        ),
        Failed::Endless => anyhow!("{shown} prints more than {} MiB", MAX_BYTES >> 20),
        Failed::Status(status, words) if words.is_empty() => anyhow!("{shown} fails: {status}"),
        Failed::Status(_, words) => anyhow!("{shown} fails: {}", one_line(&words)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, patience_ms: u64) -> Result<String, String> {
        let result = run(Path::new("/bin/sh"), &["-c", script], Duration::from_millis(patience_ms));
        result.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_program_is_run_in_the_c_locale_and_its_output_returned() {
        assert_eq!(sh("echo $LANG $LC_ALL; echo not this >&2", 10_000).unwrap(), "C C\n");
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let said = sh("echo one; echo fatal: no config >&2; exit 3", 10_000);
        assert!(said.unwrap_err().ends_with(" fails: fatal: no config"));
        assert!(sh("exit 3", 10_000).unwrap_err().ends_with(" fails: exit status: 3"));
    }

    #[test]
    fn a_program_that_hangs_is_given_up() {
        assert!(sh("exec sleep 60", 50).unwrap_err().contains("is still running after"));
    }

    #[test]
    fn output_without_end_is_refused_and_does_not_block() {
        assert!(sh("head -c 9000000 /dev/zero", 60_000).unwrap_err().ends_with("prints more than 4 MiB"));
    }
}
