// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The limiter, an instance of its own for the cgroup of its host: the sockets of the clients, who are on
//! the same machine only here, are none of its business.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use limiter_common::{Addr, Count, Entry, Key, ServiceId, ServicePolicy, service::Prefixes};
use limiter_lab::{daemon::Daemon, interrupt, sweep};
use nix::time::{ClockId, clock_gettime};

use super::site::Site;
use crate::bench::{
    flood::FLOODER,
    lab::{LIMIT, PLENTY, port},
    plan::Contestant,
};

/// Sources that [`Contestant::LimiterFull`] knows.
pub const MANY: u32 = 1_000_000;

/// Rules that it has, and those of the others.
const RULES: (u32, u32) = (100_000, 10);

/// A running limiter; unloaded when this ends.
pub struct Limiter {
    instance: String,
    program: PathBuf,
    daemon: Daemon,
    /// Connections of a source at [`port::ADMITS`].
    limit: usize,
}

impl Limiter {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn start(host: &Site, program: PathBuf) -> Result<Self> {
        configure(host, PLENTY)?;
        let instance = format!("{}-{}", sweep::BENCH.ours(), host.place.0);
        let (command, arguments) = launch(&program, host);
        let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        let daemon = Daemon::start(&program, command, &instance, &arguments, host.path("log"))?;
        let limiter = Self { instance, program, daemon, limit: PLENTY };
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
    pub fn reload(&mut self, host: &Site) -> Result<()> {
        self.limit = if self.limit == PLENTY { PLENTY - 1 } else { PLENTY };
        configure(host, self.limit)?;
        let config = host.path("limiter.toml");
        self.order(&["reload", "--config", &config.to_string_lossy()])
    }

    /// Has `limiter` do something with this instance.
    fn order(&self, arguments: &[&str]) -> Result<()> {
        self.daemon.ask(arguments).map(drop)
    }

    /// Ends the daemon, and starts another one on what is pinned.
    ///
    /// # Errors
    ///
    /// When it does not end, or serve.
    pub fn replace(&mut self, host: &Site) -> Result<()> {
        let (command, arguments) = launch(&self.program, host);
        let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        self.daemon.replace(command, &arguments)
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
}

/// Writes the configuration, with a limit of connections at [`port::ADMITS`] that nobody reaches.
fn configure(host: &Site, limit: usize) -> Result<()> {
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

/// The command that starts the daemon in the host's cgroup, and the arguments of `limiter run`.
fn launch(program: &Path, host: &Site) -> (Command, Vec<OsString>) {
    let arguments: [OsString; 4] =
        ["--cgroup".into(), host.cgroup.path().into(), "--config".into(), host.path("limiter.toml").into()];
    // It enters the namespace itself: that way its BPF file system stays that of the machine.
    (host.cgroup.command(&host.netns, program), arguments.into())
}
