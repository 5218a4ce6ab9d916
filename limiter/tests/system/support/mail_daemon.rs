// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What Postfix and Dovecot have in common: files of their own, and an end with the test.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::User;
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
    _master: Process,
    files: Files,
}

impl MailDaemon {
    /// Runs `command`, whose daemon logs to `{dir}/log`, and waits until it listens on `ports` in both
    /// families.
    pub fn start(lab: &Lab, name: &'static str, files: Files, mut command: Command, ports: &[u16]) -> Self {
        let output = File::create(files.path("output")).expect("a directory of ours");
        command.stdout(output.try_clone().expect("a file")).stderr(output);
        let daemon = Self { name, _master: Process::start(name, command).unwrap(), files };
        let expected = 2 * ports.len();
        eventually(&format!("{name} listens"), SOON, || match sockets::listeners(&lab.host, ports) {
            found if found == expected => Ok(()),
            found => Err(format!("{found} listeners on {ports:?}\n{}", daemon.log())),
        });
        daemon
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

impl Drop for MailDaemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}'s log:\n{}", self.name, self.log());
        }
    }
}
