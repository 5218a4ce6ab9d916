// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Processes that end with the test, however the test ends.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::deadline;

/// A process, leader of a group of its own, whose output goes to a file.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command`. The kernel terminates it if the thread that started it dies without saying so.
    pub fn start(name: &str, mut command: Command) -> Self {
        command.process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { child, name: name.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"))
    }

    /// `Some` if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waiting for a child of ours")
    }

    /// Kills it, as `kill -9` does, and only it, not its children.
    pub fn kill(&mut self) {
        // It may have ended by itself; the wait tells.
        let _ = kill(self.group(), Signal::SIGKILL);
        self.child.wait().expect("waiting for a child of ours");
    }

    /// Asks it to end, and waits until it has; kills its whole group if it does not.
    pub fn stop(&mut self) -> ExitStatus {
        if let Some(status) = self.ended() {
            return status;
        }
        let _ = kill(self.group(), Signal::SIGTERM);
        let deadline = deadline(Duration::from_secs(10));
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("{} did not end on SIGTERM in time", self.name);
        let _ = killpg(self.group(), Signal::SIGKILL);
        self.child.wait().expect("waiting for a child of ours")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
        // Whatever it left behind in its group.
        let _ = killpg(self.group(), Signal::SIGKILL);
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

/// Runs a command to its end; its output if it succeeded.
pub fn run(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}
