// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemons' own programs print, or printed into a file. The only place of the import that
//! touches the system.

use std::{
    collections::BTreeSet,
    env,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Daemon, Reader, Unread, words::one_line};

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most that is read of anything.
const MAX_BYTES: u64 = 4 << 20;

/// The most runs for what the first ones refer to.
const MAX_MORE: usize = 50;

/// The daemon as it is installed here; `None` if it is not.
///
/// # Errors
/// When its program fails, or prints what is no settings.
pub fn here(reader: &Reader) -> Result<Option<Daemon>> {
    let Some(program) = reader.programs.iter().find_map(|name| find(name)) else { return Ok(None) };
    let mut text = String::new();
    for arguments in reader.runs {
        text.push_str(&run(&program, arguments, PATIENCE)?);
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
            text.push_str(&run(&program, &words, PATIENCE).unwrap_or_default());
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
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let root = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(root).map(|dir| dir.join(name)).find(|program| program.is_file())
}

/// Runs a program of the mail daemon, and returns what it prints.
fn run(program: &Path, arguments: &[&str], patience: Duration) -> Result<String> {
    let shown = one_line(&format!("{} {}", program.display(), arguments.join(" ")));
    let mut child = Command::new(program)
        .args(arguments)
        .envs([("LANG", "C"), ("LC_ALL", "C")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    // Both at once, so that neither pipe fills; a thread that hangs ends with the process.
    let (out, err) = (reading(child.stdout.take()), reading(child.stderr.take()));
    let (Ok(out), Ok(err)) = (out.recv_timeout(patience), err.recv_timeout(patience)) else {
        let _it_has_just_ended = child.kill();
        let _no_zombie = child.wait();
        bail!(
            "{shown} is still running after {} seconds; save its output and give that file",
            patience.as_secs()
        );
    };
    let status = child.wait().with_context(|| format!("cannot wait for {shown}"))?;
    if !status.success() {
        let reason = err.lines().next_back().map_or_else(|| status.to_string(), one_line);
        bail!("{shown} fails: {reason}");
    }
    if out.len() as u64 > MAX_BYTES {
        bail!("{shown} prints more than {} MiB", MAX_BYTES >> 20);
    }
    Ok(out)
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
