// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! An instance of the limiter, on the mail host of a lab.
#![expect(clippy::expect_used, clippy::panic, reason = "the test fails, and says where")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::Outcome;
use crate::daemon::{cli, wait_until_it_serves};
use crate::process::{Process, tethered};
use crate::{Lab, SOON, eventually, sweep};

/// The name it greets with.
pub const HOSTNAME: &str = "mx.example.net";

/// What `limiter list` says of one source; zeros if it is not listed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Source {
    /// Connections.
    pub connections: u64,
    /// Reservations of handshakes that are just being completed.
    pub reserved: u64,
    /// The one in force; the largest number where there is none.
    pub limit: u64,
    /// The most connections at one time.
    pub peak: u64,
    /// Connections so far.
    pub accepted: u64,
    /// Handshakes that were refused.
    pub refused: u64,
    /// Those that would have been, where the service only observes.
    pub would_refuse: u64,
    /// ACKs that were held back.
    pub held: u64,
}

impl Source {
    /// Both together: what was counted under the one, and what is counted under the other. The limit is that of whichever
    /// has connections.
    fn and(&self, alone: &Self) -> Self {
        Self {
            connections: self.connections + alone.connections,
            reserved: self.reserved + alone.reserved,
            limit: if alone.connections > 0 { alone.limit } else { self.limit },
            peak: self.peak.max(alone.peak),
            accepted: self.accepted + alone.accepted,
            refused: self.refused + alone.refused,
            would_refuse: self.would_refuse + alone.would_refuse,
            held: self.held + alone.held,
        }
    }
}

/// An instance: its daemon, its command line, and its end.
pub struct Limiter {
    /// The instance's name.
    pub instance: String,
    program: PathBuf,
    netns: PathBuf,
    cgroup: Option<PathBuf>,
    /// What its daemons are started by: it replaces itself by them.
    wrapper: Vec<String>,
    files: TempDir,
    daemon: Option<Process>,
}

impl Limiter {
    /// A limit of `limit` connections to every service, refusals answered with `response`.
    pub fn start(lab: &Lab, limit: u32, response: &str) -> Self {
        Self::start_with(lab, &format!("[defaults]\nmax_connections = {limit}\nresponse = \"{response}\"\n"))
    }

    /// The same, and everyone is told why, however often: without it a source that insists gets resets.
    pub fn start_patient(lab: &Lab, limit: u32, response: &str) -> Self {
        Self::start_with(
            lab,
            &format!(
                "[defaults]\nmax_connections = {limit}\nresponse = \"{response}\"\n[ladder]\nreplies = \"none\"\n"
            ),
        )
    }

    /// With a configuration file, to which the hostname is added.
    pub fn start_with(lab: &Lab, config: &str) -> Self {
        Self::start_at(lab, config, None)
    }

    /// Without a limit that matters, for the sockets of one cgroup.
    pub fn start_in(lab: &Lab, cgroup: &Path) -> Self {
        Self::start_at(lab, "", Some(cgroup.to_owned()))
    }

    /// With a configuration, for the sockets of one cgroup.
    pub fn start_in_with(lab: &Lab, cgroup: &Path, config: &str) -> Self {
        Self::start_at(lab, config, Some(cgroup.to_owned()))
    }

    /// With so many open files allowed to its daemons: soft and hard limit.
    pub fn start_with_files(lab: &Lab, config: &str, (soft, hard): (u32, u32)) -> Self {
        Self::start_by(lab, config, &["prlimit", &format!("--nofile={soft}:{hard}")])
    }

    /// By a command that replaces itself by what follows it.
    pub fn start_by(lab: &Lab, config: &str, wrapper: &[&str]) -> Self {
        Self::start_like(lab, config, None, wrapper)
    }

    fn start_at(lab: &Lab, config: &str, cgroup: Option<PathBuf>) -> Self {
        Self::start_like(lab, config, cgroup, &[])
    }

    fn start_like(lab: &Lab, config: &str, cgroup: Option<PathBuf>, wrapper: &[&str]) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let instance = lab.name.clone();
        let wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        let (program, netns) = (lab.limiter.clone(), lab.host.path());
        let mut limiter = Self { instance, program, netns, cgroup, wrapper, files, daemon: None };
        limiter.configure(config);
        limiter.run();
        limiter
    }

    /// Without a daemon, and nothing loaded.
    pub fn absent(lab: &Lab) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let (instance, program, netns) = (lab.name.clone(), lab.limiter.clone(), lab.host.path());
        let wrapper = Vec::new();
        let limiter = Self { instance, program, netns, cgroup: None, wrapper, files, daemon: None };
        limiter.configure("");
        limiter
    }

    /// The configuration file of the next [`Self::run`], without the hostname.
    pub fn configure(&self, config: &str) {
        std::fs::write(self.config_path(), format!("hostname = \"{HOSTNAME}\"\n{config}"))
            .expect("space for a file");
    }

    /// The same, all of it.
    pub fn configure_all(&self, config: &str) {
        std::fs::write(self.config_path(), config).expect("space for a file");
    }

    /// Starts the daemon, and waits until it serves. There must be none.
    #[track_caller]
    pub fn run(&mut self) {
        self.run_with(|_| ());
    }

    /// The arguments that start a daemon of this instance.
    pub fn run_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            ["--instance", &self.instance, "run", "--netns"].map(Into::into).into();
        arguments.extend([self.netns.clone().into(), "--config".into(), self.config_path().into()]);
        if let Some(cgroup) = &self.cgroup {
            arguments.extend(["--cgroup".into(), cgroup.into()]);
        }
        arguments
    }

    /// The same, with a command that is made ready for it.
    #[track_caller]
    pub fn run_with(&mut self, prepare: impl FnOnce(&mut Command)) {
        let program = self.program.to_str().expect("a path in UTF-8");
        let mut words = self.wrapper.iter().map(String::as_str).chain([program]);
        let mut command = tethered(words.next().unwrap_or(program));
        command.args(words);
        command.args(self.run_arguments());
        self.run_as(command, prepare);
    }

    /// Starts the daemon by a command that is made ready for it, and waits until it serves. Its process is the daemon.
    #[track_caller]
    pub fn run_as(&mut self, mut command: Command, prepare: impl FnOnce(&mut Command)) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        prepare(&mut command);
        command
            .env("RUST_BACKTRACE", "1")
            .env("NO_COLOR", "1")
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log);
        let mut daemon = Process::start("limiter run", command).expect("the limiter can be started");
        let ready = wait_until_it_serves(&self.program, &self.instance, &mut daemon, Duration::from_secs(60));
        ready.unwrap_or_else(|problem| panic!("{problem:#}\n{}", self.log()));
        self.daemon = Some(daemon);
    }

    /// The daemon's, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Process::pid)
    }

    /// Waits until the daemon has ended by itself.
    pub fn forget_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("there was one");
        eventually("the daemon has ended", SOON, || {
            daemon.ended().expect("a child of ours").ok_or_else(|| self.log())
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.daemon.take().expect("the daemon runs").kill().expect("a child of ours");
    }

    /// SIGTERM, and an orderly end.
    #[track_caller]
    pub fn stop(&mut self) {
        let stopped = self.daemon.take().expect("the daemon runs").stop();
        let status = stopped.expect("a child of ours");
        assert!(status.success(), "limiter run ended on SIGTERM with {status}\n{}", self.log());
    }

    /// The command line of this instance.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = cli(&self.program, &self.instance);
        command.args(arguments);
        command
    }

    /// Runs a verb.
    pub fn cli(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.command(arguments))
    }

    /// Runs a verb that must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let outcome = self.cli(arguments);
        assert_eq!(outcome.code, Some(0), "limiter {arguments:?}: {outcome:?}");
        outcome.stdout
    }

    /// Runs a verb that reads, with `--json`.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("limiter {arguments:?} --json: {error} in {text}"))
    }

    /// What `limiter list` says of `source`, a whole address, at `service`: of all that it counts as by default, and of the
    /// address alone, where a rule says so.
    #[track_caller]
    pub fn source(&self, service: &str, source: IpAddr) -> Source {
        let list = self.json(&["list"]);
        let listed = list["sources"].as_array().expect("a list of sources");
        let listed_as = |name: String| {
            let entry = listed.iter().find(|entry| entry["service"] == service && entry["source"] == name)?;
            let number =
                |key: &str| entry[key].as_u64().unwrap_or_else(|| panic!("{key} is no number in {entry}"));
            Some(Source {
                connections: number("connections"),
                reserved: number("reserved"),
                limit: if entry["limit"].is_null() { u64::MAX } else { number("limit") },
                peak: number("peak"),
                accepted: number("accepted"),
                refused: number("refused"),
                would_refuse: number("would_refuse"),
                held: number("held"),
            })
        };
        let alone = if source.is_ipv6() { listed_as(format!("{source}/128")) } else { None };
        match (listed_as(prefix(source)), alone) {
            (Some(shared), Some(alone)) => shared.and(&alone),
            (shared, alone) => shared.or(alone).unwrap_or_default(),
        }
    }

    /// The names of the services.
    pub fn services(&self) -> Vec<String> {
        let status = self.json(&["status"]);
        let services = status["services"].as_array().expect("a list of services");
        services.iter().map(|service| service["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// A counter of a service.
    #[track_caller]
    pub fn counter(&self, service: &str, counter: &str) -> u64 {
        let status = self.json(&["status"]);
        let services = status["services"].as_array().expect("a list of services");
        let found =
            services.iter().find(|entry| entry["name"] == service).map(|entry| &entry["counters"][counter]);
        found
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no counter {counter} of {service} in {status:#}"))
    }

    /// All that a change of state would show in: `status` and `list`, without what time alone changes.
    pub fn state(&self) -> BTreeMap<&'static str, Value> {
        let mut list = self.json(&["list"]);
        for source in list["sources"].as_array_mut().into_iter().flatten() {
            source.as_object_mut().map(|source| source.remove("idle_seconds"));
        }
        let mut status = self.json(&["status"]);
        // The greeter's process serves a moment after the daemon does.
        for key in ["pid", "problem", "landlock"] {
            status["greeter"].as_object_mut().map(|greeter| greeter.remove(key));
        }
        BTreeMap::from([("status", status), ("list", list)])
    }

    /// What it says to a refused client at `source`, after the protocol's own words.
    pub fn words(limit: u32, source: IpAddr) -> String {
        format!("Too many connections ({limit} of {limit}) from this IP [{source}], close one or wait")
    }

    /// The text of the refusal as SMTP has it: addresses are literals of RFC 5321, 4.1.3.
    pub fn smtp_words(limit: u32, source: IpAddr) -> String {
        let words = Self::words(limit, source);
        if source.is_ipv6() { words.replace('[', "[IPv6:") } else { words }
    }

    /// The refusal as SMTP has it.
    pub fn smtp_reply(limit: u32, source: IpAddr) -> String {
        format!("421 4.7.0 {HOSTNAME} {}", Self::smtp_words(limit, source))
    }

    /// Where its kernel objects are pinned.
    pub fn pins(&self) -> PathBuf {
        Path::new(sweep::PINS).join(&self.instance)
    }

    /// Its history.
    pub fn history_path(&self) -> PathBuf {
        Path::new(sweep::STATE).join(format!("{}.history.db", self.instance))
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.files.path().join("limiter.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.files.path().join("log")
    }

    /// What its daemons have said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

/// The prefix that makes a source of an address.
fn prefix(source: IpAddr) -> String {
    match source {
        IpAddr::V4(v4) => format!("{v4}/32"),
        IpAddr::V6(v6) => format!("{}/64", Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for verb in ["status", "list"] {
                let Outcome { stdout, stderr, .. } = self.cli(&[verb]);
                eprintln!("limiter {verb}:\n{stdout}{stderr}");
            }
            eprintln!("the daemon's log:\n{}", self.log());
        }
        drop(self.daemon.take());
        if self.pins().exists() {
            let outcome = self.cli(&["unload"]);
            let clean = outcome.code == Some(0) && !self.pins().exists();
            assert!(clean || std::thread::panicking(), "limiter unload at the end of the test: {outcome:?}");
        }
        // What the limiter keeps on purpose.
        let history = format!("{}.history.db", self.instance);
        for left in std::fs::read_dir(sweep::STATE).into_iter().flatten().flatten() {
            if left.file_name().to_str().is_some_and(|name| name.starts_with(&history)) {
                let _stays = std::fs::remove_file(left.path());
            }
        }
    }
}
