// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A limiter of a lab, an instance of its own.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{command, interrupt, netns::Netns};

/// How long it may take to load, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Where a limiter has its locks.
const LOCKS: &str = "/run/limiter";

/// A running limiter; unloaded when this ends.
pub struct Daemon {
    limiter: PathBuf,
    instance: String,
    child: Child,
    /// Its configuration and its log.
    files: TempDir,
}

impl Daemon {
    /// Starts it for this network namespace with a configuration, and waits until it serves. `launch` is the
    /// command that starts the program, wherever it is to run.
    ///
    /// # Errors
    ///
    /// When it cannot be started, does not serve in time, or we are interrupted.
    pub fn start(
        limiter: &Path,
        mut launch: Command,
        instance: String,
        host: &Netns,
        config: &str,
    ) -> Result<Self> {
        let files = tempfile::tempdir().context("cannot make a directory for the limiter's files")?;
        let file = files.path().join("limiter.toml");
        fs::write(&file, config)?;
        let log = File::create(files.path().join("log"))?;
        launch.args(["--instance", &instance, "run", "--netns"]).arg(host.path()).arg("--config").arg(&file);
        // A group of its own: Ctrl-C is ours, which end it in order.
        launch.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = launch.spawn().with_context(|| format!("cannot start {}", limiter.display()))?;
        let mut daemon = Self { limiter: limiter.to_owned(), instance, child, files };
        daemon.wait_until_it_serves()?;
        Ok(daemon)
    }

    /// What `limiter` prints for these arguments.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        command::output(self.command().args(arguments).process_group(0))
    }

    fn wait_until_it_serves(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.serves()? {
            interrupt::check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("the limiter ended ({status}):\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!("the limiter does not serve after {PATIENCE:?}:\n{}", self.log());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether it says so. As long as nothing is loaded, it fails and says that, which is no news.
    fn serves(&self) -> Result<bool> {
        let mut status = self.command();
        let status = status.args(["status", "--json"]).process_group(0).output()?;
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        Ok(status["daemon"]["running"] == true)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.limiter);
        command.args(["--instance", &self.instance]);
        command
    }

    /// What it logged, for when something went wrong.
    fn log(&self) -> String {
        fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }

    /// Ends it, whether it serves yet or not: only then is it certain that it loads nothing any more.
    fn end(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                bail!("the limiter did not end within {PATIENCE:?} of SIGTERM, and was killed");
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for done in [self.end(), self.ask(&["unload"]).map(drop)] {
            if let Err(error) = done {
                eprintln!("{error:#}\n{}", self.log());
            }
        }
        // It leaves its locks, since another limiter might be waiting for them. For this one nobody waits.
        let ours = format!("{}.", self.instance);
        for lock in fs::read_dir(LOCKS).into_iter().flatten().flatten() {
            if lock.file_name().to_string_lossy().starts_with(&ours) {
                let _ = fs::remove_file(lock.path());
            }
        }
    }
}
