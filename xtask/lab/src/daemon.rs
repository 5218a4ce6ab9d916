// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A daemon of the limiter, an instance of its own: started, waited for, unloaded in the end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::Outcome;
use crate::process::Process;
use crate::{command, interrupt, poll};

/// How long it may take to load, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Where a limiter has its locks.
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
        let said = || fs::read_to_string(&*log).unwrap_or_default();
        let serving = poll::until(PATIENCE, INTERVAL, || {
            interrupt::check()?;
            if let Some(status) = process.ended()? {
                bail!("the limiter ended ({status}):\n{}", said());
            }
            Ok(serves(program, instance, process.pid()).ok())
        });
        serving?.with_context(|| format!("the limiter is not ready after {PATIENCE:?}:\n{}", said()))
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

/// Passes if an instance says that its daemon serves, and is this process.
///
/// # Errors
///
/// What it says instead. As long as nothing is loaded, it fails and says that, which is no news.
pub fn serves(program: &Path, instance: &str, pid: u32) -> Result<(), String> {
    let status = cli(program, instance).args(["status", "--json"]).output();
    let status =
        Outcome::from(status.map_err(|error| format!("cannot start {}: {error}", program.display()))?);
    let json: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
    let serves = json["daemon"]["running"] == true && json["daemon"]["pid"] == pid;
    if serves { Ok(()) } else { Err(format!("{status:?}")) }
}
