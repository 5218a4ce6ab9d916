//! The daemon of an instance, as others see it.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Instance, locks::PID};

/// The daemon of an instance as others see it.
#[derive(Debug, serde::Serialize)]
pub struct Daemon {
    /// Whether it serves: it has loaded or taken over everything, and greets.
    pub running: bool,
    /// Its process.
    pub pid: Option<i32>,
}

impl Instance {
    /// Who serves this instance, if anyone does.
    pub fn daemon(&self) -> Result<Daemon> {
        let Ok(mut file) = File::open(self.run_path(PID)) else {
            return Ok(Daemon { running: false, pid: None });
        };
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_nobody) => Ok(Daemon { running: false, pid: None }),
            Err(_) => {
                let pid = text.trim().parse().ok();
                Ok(Daemon { running: pid.is_some(), pid })
            }
        }
    }

    /// Sends a signal to the daemon with this number.
    ///
    /// # Errors
    /// When the process is not the daemon, or not any more: then nobody gets the signal.
    pub fn signal(&self, pid: i32, signal: Signal) -> Result<()> {
        let number = Pid::from_raw(pid).context("a process has a number above 0")?;
        // From here on the number means this process, whoever gets it afterwards.
        let process = pidfd_open(number, PidfdFlags::empty())
            .with_context(|| format!("cannot find the daemon (pid {pid})"))?;
        if !self.is_daemon(pid)? {
            bail!(
                "the process {pid} is not the daemon of the instance {self}, so it is left alone: start the command in \
                 the daemon's own PID namespace"
            );
        }
        pidfd_send_signal(process, signal).with_context(|| format!("cannot signal the daemon (pid {pid})"))
    }

    /// Whether a process has the file open that bears the daemon's number: only daemons keep it open.
    fn is_daemon(&self, pid: i32) -> Result<bool> {
        let path = self.run_path(PID);
        let file = fs::metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?;
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        let open = open.with_context(|| format!("cannot see what the process {pid} has open"))?;
        let is_the_file = |open: fs::Metadata| (open.dev(), open.ino()) == (file.dev(), file.ino());
        Ok(open.flatten().any(|open| fs::metadata(open.path()).is_ok_and(is_the_file)))
    }
}
