// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The limiter, an instance of its own for the cgroup of its host: the sockets of the clients, who are on
//! the same machine only here, are none of its business.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{HashMap, Map, MapData};
use limiter_common::{Addr, Count, Entry, Key, ServiceId, ServicePolicy, service::Prefixes};
use nix::{
    sys::signal::{Signal, kill},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde_json::Value;

use super::Host;
use crate::{
    bench::{
        flood::FLOODER,
        lab::{LIMIT, PLENTY, port},
        plan::Contestant,
    },
    command, interrupt, sweep,
};

/// How long it may take to load, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Where a limiter has its locks.
const LOCKS: &str = "/run/limiter";

/// Sources that [`Contestant::LimiterFull`] knows.
pub const MANY: u32 = 1_000_000;

/// Rules that it has, and those of the others.
const RULES: (u32, u32) = (100_000, 10);

/// A running limiter; unloaded when this ends.
pub struct Limiter {
    instance: String,
    program: PathBuf,
    child: Child,
    /// Connections of a source at [`port::ADMITS`].
    limit: usize,
}

impl Limiter {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn start(host: &Host, program: PathBuf) -> Result<Self> {
        configure(host, PLENTY)?;
        let instance = format!("{}-{}", sweep::BENCH.ours(), host.place.0);
        let child = spawn(&program, &instance, host)?;
        let mut limiter = Self { instance, program, child, limit: PLENTY };
        limiter.wait_until_it_serves(host)?;
        if host.contestant == Contestant::LimiterFull {
            limiter.fill(MANY)?;
        }
        limiter.order(&["ban", &FLOODER.to_string(), "--for", "2h"])?;
        Ok(limiter)
    }

    /// Puts another policy in force, which refuses nobody either.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn reload(&mut self, host: &Host) -> Result<()> {
        self.limit = if self.limit == PLENTY { PLENTY - 1 } else { PLENTY };
        configure(host, self.limit)?;
        let config = host.path("limiter.toml");
        self.order(&["reload", "--config", &config.to_string_lossy()])
    }

    /// Has `limiter` do something with this instance.
    fn order(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.program);
        command::output(command.args(["--instance", &self.instance]).args(arguments)).map(drop)
    }

    /// Ends the daemon, and starts another one on what is pinned.
    ///
    /// # Errors
    ///
    /// When it does not end, or serve.
    pub fn replace(&mut self, host: &Host) -> Result<()> {
        self.end()?;
        self.child = spawn(&self.program, &self.instance, host)?;
        self.wait_until_it_serves(host)
    }

    /// Where its maps and links are pinned.
    pub fn pins(&self) -> PathBuf {
        Path::new(sweep::PINS).join(&self.instance)
    }

    /// Makes so many sources known, that are not connected now.
    fn fill(&self, sources: u32) -> Result<()> {
        let ledger = MapData::from_pin(self.pins().join("LEDGER"))?;
        let mut ledger: HashMap<_, Key, Entry> = Map::HashMap(ledger).try_into()?;
        let policy = ServicePolicy { source: Prefixes { ipv4: 32, ipv6: 64 }, ..ServicePolicy::default() };
        let now_s = clock_gettime(ClockId::CLOCK_MONOTONIC)?.tv_sec() as u32;
        for number in 0..sources {
            if number % 65_536 == 0 {
                interrupt::check()?;
            }
            // Networks of nobody here: 16/8 and up, and 2002::/16.
            let remote = if number % 2 == 0 {
                Addr::from(std::net::IpAddr::from((0x1000_0000 + number).to_be_bytes()))
            } else {
                Addr([0x2002_u32.to_be() | (number >> 16).to_be(), number.to_be(), 0, 0])
            };
            let key = Key::source(ServiceId(1), &policy, 0, &remote);
            let entry = Entry {
                count: Count(0),
                accepted: 1,
                last_seen_s: now_s,
                tag: key.tag(),
                ..Entry::default()
            };
            ledger.insert(key, entry, 0).context("cannot fill the ledger")?;
        }
        Ok(())
    }

    fn wait_until_it_serves(&mut self, host: &Host) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let log = || fs::read_to_string(host.path("log")).unwrap_or_default();
        while !self.serves()? {
            interrupt::check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("the limiter ended ({status}):\n{}", log());
            }
            if Instant::now() > deadline {
                bail!("the limiter does not serve after {PATIENCE:?}:\n{}", log());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether it says so. As long as nothing is loaded, it fails and says that, which is no news.
    fn serves(&self) -> Result<bool> {
        let status = Command::new(&self.program)
            .args(["--instance", &self.instance, "status", "--json"])
            .output()
            .context("cannot start limiter")?;
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        Ok(status["daemon"]["running"] == true)
    }

    /// Ends the daemon.
    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
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

/// Writes the configuration, with a limit of connections at [`port::ADMITS`] that nobody reaches.
fn configure(host: &Host, limit: usize) -> Result<()> {
    let is_full = host.contestant == Contestant::LimiterFull;
    let has_shield = host.contestant == Contestant::LimiterShield;
    let interfaces = if has_shield { format!("[\"{}\"]", host.place.wire()) } else { "[]".to_owned() };
    let (max_sources, rules) = if is_full { (2 * MANY, RULES.0) } else { (262_144, RULES.1) };
    let mut config = format!(
        "max_sources = {max_sources}\nremember_seconds = 86400\ninterfaces = {interfaces}\n\
         [ladder]\nreplies = \"none\"\n\
         [service.smtp]\nports = [{}]\nmax_connections = {limit}\n\
         [service.resets]\nports = [{}]\nprotocol = \"smtp\"\nmax_connections = {LIMIT}\nresponse = \"reset\"\n\
         [service.replies]\nports = [{}]\nprotocol = \"smtp\"\nmax_connections = {LIMIT}\n",
        port::ADMITS,
        port::RESETS,
        port::REPLIES
    );
    for number in 0..rules {
        // Next to the clients' own (RFC 2544, RFC 5180), so that the way down the tries is long.
        let next = (number / 2) as u16;
        let network = if number % 2 == 0 {
            let [high, low] = next.to_be_bytes();
            format!("198.19.{high}.{low}")
        } else {
            format!("2001:2:1:{next:x}::/64")
        };
        for part in ["[[rule]]\nnetwork = \"", &network, "\"\nmax_connections = 5\n"] {
            config.push_str(part);
        }
    }
    fs::write(host.path("limiter.toml"), config).context("cannot write the configuration")
}

fn spawn(program: &Path, instance: &str, host: &Host) -> Result<Child> {
    let log = File::options().create(true).append(true).open(host.path("log"))?;
    // It enters the namespace itself: that way its BPF file system stays that of the machine.
    host.cgroup
        .command(&host.netns, program)
        .args(["--instance", instance, "run", "--cgroup"])
        .arg(host.cgroup.path())
        .arg("--config")
        .arg(host.path("limiter.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start limiter")
}

impl Drop for Limiter {
    fn drop(&mut self) {
        let unload = || {
            command::output(Command::new(&self.program).args(["--instance", &self.instance, "unload"]))
                .map(drop)
        };
        let unloaded = unload();
        for done in [self.end(), unloaded] {
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
