// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A daemon of the limiter, an instance of its own: started, waited for, unloaded in the end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::Outcome;
use crate::process::Process;
use crate::{command, interrupt, poll};

/// How long it may take to load, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// How often it is asked whether it serves, as long as it has not announced itself.
const ASK: Duration = Duration::from_millis(500);

/// Where a limiter has its locks. That of the daemon bears its number as soon as it serves.
const LOCKS: &str = "/run/limiter";

/// A running limiter; unloaded when this ends.
pub struct Daemon {
    program: PathBuf,
    instance: String,
    process: Process,
    log: PathBuf,
}

impl Daemon {
    /// Starts the program as an instance of this name, and waits until it serves. `launch` is the command that starts
    /// the program, wherever it is to run, and `arguments` are those of `limiter run`; what it says is appended to the
    /// file `log`.
    ///
    /// # Errors
    ///
    /// When it cannot be started, does not serve in time, or we are interrupted.
    pub fn start(
        program: &Path,
        launch: Command,
        instance: &str,
        arguments: &[&OsStr],
        log: PathBuf,
    ) -> Result<Self> {
        let process = spawn(launch, instance, arguments, &log)?;
        let mut daemon = Self { program: program.to_owned(), instance: instance.to_owned(), process, log };
        daemon.wait_until_it_serves()?;
        Ok(daemon)
    }

    /// Ends it, and starts another one on what is pinned.
    ///
    /// # Errors
    ///
    /// As [`Self::end`] and [`Self::start`].
    pub fn replace(&mut self, launch: Command, arguments: &[&OsStr]) -> Result<()> {
        self.end()?;
        self.process = spawn(launch, &self.instance, arguments, &self.log)?;
        self.wait_until_it_serves()
    }

    /// What `limiter` prints for these arguments.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        use std::os::unix::process::CommandExt as _;

        command::run(cli(&self.program, &self.instance).args(arguments).process_group(0))
    }

    fn wait_until_it_serves(&mut self) -> Result<()> {
        let Self { program, instance, process, log } = self;
        wait_until_it_serves(program, instance, process, PATIENCE).with_context(|| {
            format!("the limiter is not ready:\n{}", fs::read_to_string(log).unwrap_or_default())
        })
    }

    /// Ends it, whether it serves yet or not: only then is it certain that it loads nothing any more. What it has
    /// loaded stays.
    ///
    /// # Errors
    ///
    /// When it does not end in time, and was killed.
    pub fn end(&mut self) -> Result<()> {
        let status = self.process.stop_within(PATIENCE)?;
        if !status.success() {
            bail!(
                "the limiter ended on SIGTERM with {status}:\n{}",
                fs::read_to_string(&self.log).unwrap_or_default()
            );
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for done in [self.end(), self.ask(&["unload"]).map(drop)] {
            if let Err(error) = done {
                eprintln!("{error:#}");
            }
        }
        // It leaves its locks, since another limiter might be waiting for them. For this one nobody waits.
        let ours = format!("{}.", self.instance);
        for lock in fs::read_dir(LOCKS).into_iter().flatten().flatten() {
            if lock.file_name().to_string_lossy().starts_with(&ours) {
                let _gone_already = fs::remove_file(lock.path());
            }
        }
    }
}

fn spawn(mut launch: Command, instance: &str, arguments: &[&OsStr], log: &Path) -> Result<Process> {
    let output = File::options().create(true).append(true).open(log)?;
    launch.args(["--instance", instance, "run"]).args(arguments).stdin(Stdio::null());
    launch.stdout(output.try_clone()?).stderr(output);
    Process::start("the limiter", launch)
}

/// The command line of an instance.
pub fn cli(program: &Path, instance: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--instance", instance]);
    command
}

/// Waits until the daemon of an instance serves, and is this process.
///
/// To ask takes a process, and the daemon needs the processor while it loads: it is asked when it has announced itself,
/// and now and then in case its lock is not seen from here.
///
/// # Errors
///
/// When it ends instead, does not serve in time, or we are interrupted.
pub fn wait_until_it_serves(
    program: &Path,
    instance: &str,
    process: &mut Process,
    within: Duration,
) -> Result<()> {
    let pid = process.pid();
    let (mut asked, mut said) = (Instant::now(), String::from("it was not asked"));
    let serving = poll::until(within, INTERVAL, || {
        interrupt::check()?;
        if let Some(status) = process.ended()? {
            bail!("limiter run ended: {status}");
        }
        if !is_announced(instance, pid) && asked.elapsed() < ASK {
            return Ok(None);
        }
        let answer = serves(program, instance, pid);
        asked = Instant::now();
        Ok(answer.map_err(|answer| said = answer).ok())
    })?;
    serving.with_context(|| format!("it does not serve after {within:?}: {said}"))
}

/// Whether the daemon's lock bears this number.
fn is_announced(instance: &str, pid: u32) -> bool {
    let lock = fs::read_to_string(Path::new(LOCKS).join(format!("{instance}.pid")));
    lock.is_ok_and(|lock| lock.trim() == pid.to_string())
}

/// Passes if an instance says that its daemon serves, and is this process.
///
/// As long as nothing is loaded, the command fails and says that, which is no news.
fn serves(program: &Path, instance: &str, pid: u32) -> Result<(), String> {
    let status = cli(program, instance).args(["status", "--json"]).output();
    let status =
        Outcome::from(status.map_err(|error| format!("cannot start {}: {error}", program.display()))?);
    let json: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
    let serves = json["daemon"]["running"] == true && json["daemon"]["pid"] == pid;
    if serves { Ok(()) } else { Err(format!("{status:?}")) }
}
