// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Processes that end with who started them, however that ends.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::poll;

/// How long a process has to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process, leader of a group of its own. Ctrl-C does not reach it: it ends with this.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// `Some` if it has ended.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot tell whether {} has ended", self.name))
    }

    /// Kills it, as `kill -9` does, and only it, not its children.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell that it has ended.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // It may have ended by itself; the wait tells.
        let _gone_already = kill(self.group(), Signal::SIGKILL);
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Asks it to end, and waits until it has; kills its whole group if it does not.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell that it has ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.stop_within(PATIENCE)
    }

    /// The same of one that may take `patience` for it.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell that it has ended.
    pub fn stop_within(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let _gone_already = kill(self.group(), Signal::SIGTERM);
        if let Some(status) = poll::until(patience, Duration::from_millis(5), || self.ended())? {
            return Ok(status);
        }
        eprintln!("{} did not end within {patience:?} of SIGTERM, and is killed", self.name);
        let _gone_already = killpg(self.group(), Signal::SIGKILL);
        self.kill()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
        // Whatever it left behind in its group.
        let _gone_already = killpg(self.group(), Signal::SIGKILL);
    }
}

/// A command that the kernel terminates when the thread that started it is gone.
///
/// By `setpriv`, which replaces itself: the process has the pid of the child.
pub fn tethered(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", program]).stdin(Stdio::null());
    command
}
