// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A host with a mail server: a network namespace, a cgroup, and a folder for its files.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use limiter_lab::{Namespace, cgroup::Cgroup, interrupt, poll, proc_net, sweep};
use nix::unistd::{User, chown};
use tempfile::TempDir;

use super::setting::{DOMAIN, RECIPIENT};

/// Within this a mail server is up, however many others are starting.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether it is.
const INTERVAL: Duration = Duration::from_millis(50);

/// A host. In the order in which it ends: what runs, before where it runs.
pub struct Host {
    cgroup: Cgroup,
    /// Its network.
    pub netns: Namespace,
    processes: Processes,
    files: TempDir,
}

impl Host {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// When a part of it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let netns = Namespace::new(name.to_owned())?;
        let cgroup = Cgroup::new(name)?;
        // Open to mail servers that have given up root.
        let open = Permissions::from_mode(0o755);
        let prefix = format!("{}-", sweep::SENDERS.ours());
        let files = tempfile::Builder::new().prefix(&prefix).permissions(open).tempdir();
        let files = files.context("cannot make a directory for a mail server's files")?;
        Ok(Self { cgroup, netns, processes: Processes::default(), files })
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        self.files.path()
    }

    /// A file of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Writes a file in which `{dir}` stands for the folder.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, name: &str, template: &str) -> Result<()> {
        let text = template.replace("{dir}", &self.folder().display().to_string());
        fs::write(self.path(name), text).with_context(|| format!("cannot write {name}"))
    }

    /// Makes a directory, which belongs to an account with this number if one is given.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn directory(&self, name: &str, owner: Option<u32>) -> Result<()> {
        fs::create_dir(self.path(name)).with_context(|| format!("cannot make {name}"))?;
        Ok(chown(&self.path(name), owner.map(Into::into), owner.map(Into::into))?)
    }

    /// A command on this host, which ends with it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.cgroup.command(&self.netns, program);
        command.stdin(Stdio::null());
        command
    }

    /// A command on this host that sees the files its mail server sees.
    ///
    /// # Errors
    ///
    /// When there is no mail server.
    pub fn beside(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let server = self.processes.server.as_ref().context("there is no mail server on this host")?;
        let mut command = self.command("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", server.id())).arg(program);
        Ok(command)
    }

    /// Starts the mail server, whose output goes to `output`, and waits until `is_up` says so.
    ///
    /// # Errors
    ///
    /// When it cannot be started, ends, or is not up in time.
    pub fn serve(&mut self, mut command: Command, is_up: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let output = File::create(self.path("output"))?;
        let server = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        self.processes.server = Some(server);
        let up = poll::until(PATIENCE, INTERVAL, || {
            if is_up(self)? {
                return Ok(Some(()));
            }
            interrupt::check()?;
            let ended = self.processes.server.as_mut().map(Child::try_wait).transpose()?.flatten();
            match ended {
                Some(status) => bail!("the mail server ended ({status}):\n{}", self.log("output")),
                None => Ok(None),
            }
        });
        up?.with_context(|| format!("the mail server is not up after {PATIENCE:?}:\n{}", self.log("output")))
    }

    /// Starts a command of this host that ends by itself, or with the host.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(&mut self, mut command: Command) -> Result<()> {
        self.processes.others.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    /// Whether something listens on a port, as the kernel tells; to connect would be counted.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn listens(&self, port: u16) -> Result<bool> {
        proc_net::listens(&self.netns, port)
    }

    /// A log, as far as it is written.
    pub fn log(&self, name: &str) -> String {
        fs::read(self.path(name)).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// How many messages it has, by what it logs.
    pub fn messages(&self, log: &str, is_arrival: impl Fn(&str) -> bool) -> usize {
        let log = self.log(log);
        let arrivals = log.lines().filter(|line| is_arrival(line));
        arrivals.filter_map(message).collect::<BTreeSet<_>>().len()
    }
}

/// What was started. It is waited for when its cgroup has ended it.
#[derive(Default)]
struct Processes {
    server: Option<Child>,
    others: Vec<Child>,
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in self.server.iter_mut().chain(&mut self.others) {
            let _gone_already = process.kill();
            let _status = process.wait();
        }
    }
}

/// Which message a line of a log is about: each has a recipient of its own.
fn message(line: &str) -> Option<u32> {
    let (before, _) = line.split_once(DOMAIN)?;
    let name = before.strip_suffix('@')?;
    let digits = name.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    name.strip_suffix(digits)?.strip_suffix(RECIPIENT)?;
    digits.parse().ok()
}

/// The number of an account that a package has made.
///
/// # Errors
///
/// When there is none.
pub fn account(name: &str) -> Result<u32> {
    let user = User::from_name(name)?.with_context(|| format!("the user {name} does not exist"))?;
    Ok(user.uid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn a_message_is_known_by_its_recipient() {
        assert_eq!(message("1A2B: to=<to-17@mx.example.net>, status=sent"), Some(17));
        assert_eq!(message("<= a@example.org S=300 for to-3@mx.example.net"), Some(3));
        assert_eq!(message("from=<a@mx.example.net>"), None);
        assert_eq!(message("connect from unknown[198.51.100.7]"), None);
    }
}
