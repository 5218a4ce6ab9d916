// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon of an instance, as others see it.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _},
    os::fd::OwnedFd,
    os::unix::fs::MetadataExt as _,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{Instance, PID};

/// The daemon of an instance as others see it.
#[derive(Debug, serde::Serialize)]
pub struct Daemon {
    /// Whether it serves: it has loaded or taken over everything, and greets.
    pub running: bool,
    /// Whether it also answers. One that was stopped runs, and does not.
    pub answers: bool,
    /// Its process.
    pub pid: Option<i32>,
}

/// The process of a daemon, whatever becomes of its number.
pub struct Process {
    /// Its number.
    pub pid: i32,
    process: OwnedFd,
}

impl Process {
    /// Sends it a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(&self.process, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent.with_context(|| format!("cannot signal the daemon (pid {})", self.pid)),
        }
    }
}

impl Instance {
    /// Who serves this instance, if anyone does.
    pub fn daemon(&self) -> Result<Daemon> {
        let path = self.run_path(PID);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Daemon { running: false, answers: false, pid: None });
            }
            Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
        };
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            // Nobody holds it.
            Ok(()) => Ok(Daemon { running: false, answers: false, pid: None }),
            Err(Errno::WOULDBLOCK) => {
                let text = String::from_utf8_lossy(&text);
                let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
                // There is no number in it before the daemon serves.
                if pid.is_none() && !text.is_empty() {
                    bail!(
                        "a daemon serves instance {self}, but {} does not contain its process ID: stop it, and \
                         start `{limiter} run`",
                        path.display(),
                        limiter = self.program()
                    );
                }
                // What a look at its lock cannot tell.
                Ok(Daemon { running: pid.is_some(), answers: pid.is_some(), pid })
            }
            Err(errno) => Err(errno).context("cannot tell whether a daemon runs"),
        }
    }

    /// The process of the daemon, if there is one.
    ///
    /// # Errors
    /// When the process with its number is not the daemon.
    pub fn daemon_process(&self) -> Result<Option<Process>> {
        let Some(pid) = self.daemon()?.pid else { return Ok(None) };
        let number = Pid::from_raw(pid).context("a process ID is above 0")?;
        // From here on the number means this process, whoever gets it afterwards.
        let process = match pidfd_open(number, PidfdFlags::empty()) {
            // It has ended just now.
            Err(Errno::SRCH) if self.daemon()?.pid != Some(pid) => return Ok(None),
            opened => opened.with_context(|| format!("cannot find the daemon (pid {pid})"))?,
        };
        if !self.is_daemon(pid)? {
            bail!(
                "process {pid} is not the daemon of instance {self}, so it was not signalled: run the command \
                 in the daemon's PID namespace"
            );
        }
        Ok(Some(Process { pid, process }))
    }

    /// Whether a process has the file open that bears the daemon's number: only daemons keep it open.
    fn is_daemon(&self, pid: i32) -> Result<bool> {
        let path = self.run_path(PID);
        let file = fs::metadata(&path).with_context(|| format!("cannot inspect {}", path.display()))?;
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        let open = open.with_context(|| format!("cannot list the open files of process {pid}"))?;
        let is_the_file = |open: fs::Metadata| (open.dev(), open.ino()) == (file.dev(), file.ino());
        Ok(open.flatten().any(|open| fs::metadata(open.path()).is_ok_and(is_the_file)))
    }
}
