// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What Postfix and Dovecot have in common: files of their own, and an end with the test.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;

use limiter_lab::process::Process;
use limiter_lab::{Lab, SOON, eventually, sockets};

/// A directory that a daemon can enter after it has given up root.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        let open = Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().prefix("limiter-test-").permissions(open).tempdir();
        Self(dir.expect("a temporary directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a directory in it.
    pub fn dir(&self, name: &str) {
        fs::create_dir(self.path(name)).expect("a directory of ours");
    }

    /// Makes `user` the owner of what is at `name`.
    pub fn give(&self, name: &str, user: &str) {
        let found = User::from_name(user).expect("the user database");
        let Some(found) = found else {
            panic!("the user {user} does not exist: is the mail software installed?")
        };
        chown(self.path(name), Some(found.uid.as_raw()), Some(found.gid.as_raw())).expect("root may");
    }

    /// Writes a file in which `{dir}` stands for this directory.
    pub fn write(&self, name: &str, template: &str) {
        let dir = self.0.path().to_str().expect("a plain path");
        fs::write(self.path(name), template.replace("{dir}", dir)).expect("a directory of ours");
    }
}

/// A mail daemon that runs.
pub struct MailDaemon {
    name: &'static str,
    // Ends before its files do.
    master: Process,
    files: Files,
}

impl MailDaemon {
    /// Runs `command`, whose daemon logs to `{dir}/log`.
    pub fn start_alone(name: &'static str, files: Files, mut command: Command) -> Self {
        let output = File::create(files.path("output")).expect("a directory of ours");
        command.stdout(output.try_clone().expect("a file")).stderr(output);
        Self { name, master: Process::start(name, command).unwrap(), files }
    }

    /// The same, and waits until it listens on `ports` in both families.
    pub fn start(lab: &Lab, name: &'static str, files: Files, command: Command, ports: &[u16]) -> Self {
        let daemon = Self::start_alone(name, files, command);
        let expected = 2 * ports.len();
        eventually(&format!("{name} listens"), SOON, || match sockets::listeners(&lab.host, ports) {
            found if found == expected => Ok(()),
            found => Err(format!("{found} listeners on {ports:?}\n{}", daemon.log())),
        });
        daemon
    }

    /// Stops its process of this name, as SIGSTOP does, until the guard is dropped.
    #[track_caller]
    pub fn stop_process(&self, name: &str) -> Stopped {
        let children = format!("/proc/{0}/task/{0}/children", self.master.pid());
        let children = fs::read_to_string(children).expect("the master runs");
        let mut pids = children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
        let is_it = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let pid = Pid::from_raw(pids.find(is_it).expect("it has such a process"));
        kill(pid, Signal::SIGSTOP).expect("root may");
        Stopped(pid)
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.files.path(name)).unwrap_or_default();
        read("log") + &read("output")
    }

    /// The lines of its log that contain all of `words`.
    pub fn lines(&self, words: &[&str]) -> Vec<String> {
        let log = self.log();
        let matching = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        matching.map(str::to_owned).collect()
    }
}

/// A process that is stopped as long as this lives.
pub struct Stopped(Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _gone_already = kill(self.0, Signal::SIGCONT);
    }
}

impl Drop for MailDaemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}'s log:\n{}", self.name, self.log());
        }
    }
}
