// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! An instance: the name under which everything of one limiter is found, so that several can live on
//! one host.

mod daemon;
mod locks;

use std::{
    ffi::OsString,
    hash::{BuildHasher as _, RandomState},
    io::ErrorKind,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail};

pub use self::daemon::{Daemon, Process};
pub use self::locks::{DaemonLock, Lock};
use crate::staged::{self, Durable, Staged};

/// Where locks are kept, and what daemon and commands leave for each other.
const RUN_DIR: &str = "/run/limiter";

// The locks, by the ends of their files' names.
/// Held by the daemon; it bears its number.
const PID: &str = "pid";
/// Held by whoever changes the policy.
const POLICY: &str = "policy";
/// Held by whoever bans and unbans.
const BANS: &str = "bans";
/// Held by whoever leaves word of a change, and by the daemon that takes it; it bears the word.
const CHANGES: &str = "changes";
/// Held by whoever runs a request of the maintenance program.
const MAINTENANCE: &str = "maintenance";

/// Where what outlives a restart of the host is kept (FHS 3.0, 5.8).
const STATE_DIR: &str = "/var/lib/limiter";

/// The name of an instance, which is also the name of its pin directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(String);

impl FromStr for Instance {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
            return Err("use 1 to 32 letters, digits, '-' or '_'".to_owned());
        }
        Ok(Self(name.to_owned()))
    }
}

impl std::fmt::Display for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Instance {
    /// The name where none is given.
    pub const DEFAULT: &str = "limiter";

    /// How the limiter is called for this instance, in a command that people type. The default one is not named: what
    /// need not be typed need not be read.
    pub fn program(&self) -> String {
        Self::program_of(&self.0)
    }

    /// The same for the instance of this name.
    pub fn program_of(name: &str) -> String {
        if name == Self::DEFAULT { "limiter".to_owned() } else { format!("limiter --instance {name}") }
    }

    /// Where the maps and links are pinned.
    pub fn pins(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf").join(&self.0)
    }

    /// Where they are pinned while they are being made; renamed to [`Self::pins`] when whole. BPF
    /// file systems allow no dot in a name, and no instance has a `+` in its own. It is another place when
    /// [`Self::choose_new_pins`] has been asked for one.
    pub fn new_pins(&self) -> PathBuf {
        let chosen = std::fs::read_to_string(self.run_path("new")).ok();
        let chosen = chosen.filter(|word| word.bytes().all(|b| b.is_ascii_alphanumeric()));
        let word = chosen.map_or_else(String::new, |word| format!("-{word}"));
        PathBuf::from("/sys/fs/bpf").join(format!("{}+new{word}", self.0))
    }

    /// Has [`Self::new_pins`] be a place that nobody can foresee, until the instance is unloaded.
    pub fn choose_new_pins(&self) -> Result<()> {
        // As random as the keys of hash tables, which nobody may foresee either.
        let word = format!("{:016x}", RandomState::new().hash_one(self.0.as_str()));
        let at = self.run_path("new");
        put(&at, word.as_bytes()).with_context(|| format!("cannot write {}", at.display()))
    }

    /// Where they are pinned as the process `pid` sees it, if that is in another BPF file system than here.
    pub fn pins_elsewhere(&self, pid: i32) -> Option<PathBuf> {
        let there = PathBuf::from(format!("/proc/{pid}/root/sys/fs/bpf"));
        let dev = |path: &Path| std::fs::metadata(path).map(|about| about.dev());
        let is_other = dev(&there).ok()? != dev(Path::new("/sys/fs/bpf")).ok()?;
        Some(there.join(&self.0)).filter(|pins| is_other && pins.exists())
    }

    fn run_path(&self, what: &str) -> PathBuf {
        PathBuf::from(RUN_DIR).join(format!("{}.{what}", self.0))
    }

    /// The directories of all instances' files: what goes with the host, and what stays.
    pub fn directories() -> [&'static Path; 2] {
        [Path::new(RUN_DIR), Path::new(STATE_DIR)]
    }

    /// Where bans are written down, so that they outlive a restart of the host.
    pub fn bans_path(&self) -> PathBuf {
        PathBuf::from(STATE_DIR).join(format!("{}.bans", self.0))
    }

    /// Where the history is kept.
    pub fn history_path(&self) -> PathBuf {
        PathBuf::from(STATE_DIR).join(format!("{}.history.db", self.0))
    }

    /// Where the daemon says what is wrong with the history.
    pub fn history_report_path(&self) -> PathBuf {
        self.run_path("history")
    }

    /// Where the daemon says on which interfaces the shield is.
    pub fn shield_path(&self) -> PathBuf {
        self.run_path("shield")
    }

    /// Where the daemon says what its greeter does, and with which certificates.
    pub fn greeter_path(&self) -> PathBuf {
        self.run_path("greeter")
    }

    /// Which directory the pins are in at this moment: its file system and number; none where nothing is loaded.
    pub fn pinned(&self) -> Option<(u64, u64)> {
        std::fs::metadata(self.pins()).ok().map(|found| (found.dev(), found.ino()))
    }

    /// Where commands leave word of what they have changed.
    pub fn changes_path(&self) -> PathBuf {
        self.run_path(CHANGES)
    }

    /// Remembers the configuration file of the daemon, for `limiter reload`; none: the built-in services.
    pub fn set_config_path(&self, path: Option<&Path>) -> Result<()> {
        self.set_path("config", path)
    }

    /// Remembers a path, or that there is none, for as long as the instance is loaded.
    fn set_path(&self, what: &str, path: Option<&Path>) -> Result<()> {
        let path = path.map(std::path::absolute).transpose().context("cannot find the current directory")?;
        let text = path.map_or_else(Vec::new, |path| path.into_os_string().into_encoded_bytes());
        let at = self.run_path(what);
        if std::fs::read(&at).is_ok_and(|known| known == text) {
            return Ok(());
        }
        // In one step: half of it would name another file, or none.
        put(&at, &text).with_context(|| format!("cannot write {}", at.display()))
    }

    /// Remembers the path of the network namespace that the daemon protects; none: that in which it was started.
    pub fn set_netns_path(&self, path: Option<&Path>) -> Result<()> {
        self.set_path("netns", path)
    }

    /// The path of the network namespace that the daemon which ran last protects, if it was named by one.
    pub fn netns_path(&self) -> Option<PathBuf> {
        let text = std::fs::read(self.run_path("netns")).ok()?;
        path_of(text)
    }

    /// Prepares the configuration that is about to be put in force, for the daemon: see [`Applied::leave`]. Under
    /// the lock of the policy.
    pub fn prepare_applied(&self, config: &str) -> Result<Applied> {
        let at = self.applied_path();
        // As it is made, only root may read it.
        let staged = Staged::write(&at, config.as_bytes(), |_| Ok(()));
        let staged =
            staged.with_context(|| format!("cannot create a file in the directory of {}", at.display()))?;
        let before = std::fs::read(&at).ok();
        Ok(Applied { staged, at, before })
    }

    /// Where it is left.
    pub fn applied_path(&self) -> PathBuf {
        self.run_path("applied")
    }

    /// The configuration file of the daemon that ran last.
    pub fn config_path(&self) -> Result<Option<PathBuf>> {
        let at = self.run_path("config");
        let what = || {
            format!(
                "{} does not name the configuration file: set it with `{limiter} reload \
                 --config FILE`",
                at.display(),
                limiter = self.program()
            )
        };
        let text = match std::fs::read(&at) {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(what()),
            read => read.with_context(what)?,
        };
        if text.is_empty() {
            return Ok(None);
        }
        path_of(text).map(Some).with_context(what)
    }

    /// Removes what says something of an instance that is not loaded any more. Under all its locks.
    pub fn clear(&self) -> Result<()> {
        for what in [
            PID,
            POLICY,
            BANS,
            MAINTENANCE,
            CHANGES,
            "config",
            "netns",
            "new",
            "applied",
            "shield",
            "greeter",
            "history",
        ] {
            let path = self.run_path(what);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        // Of a writer that was killed. Nobody writes now, and no instance has a dot in its name.
        let begin = format!(".{}.", self.0);
        for entry in std::fs::read_dir(RUN_DIR).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(begin.as_bytes()) {
                let _stays = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// The path that a file names. What it is written from is absolute; anything else is nobody's file, and nothing to
/// print.
fn path_of(text: Vec<u8>) -> Option<PathBuf> {
    let is_path = text.first() == Some(&b'/') && !text.contains(&0);
    is_path.then(|| PathBuf::from(OsString::from_vec(text)))
}

/// A configuration for the daemon that is not there yet.
pub struct Applied {
    staged: Staged,
    at: PathBuf,
    before: Option<Vec<u8>>,
}

/// One that is.
pub struct Left {
    at: PathBuf,
    before: Option<Vec<u8>>,
}

impl Applied {
    /// Leaves it there: it is in force.
    pub fn leave(self) -> Result<Left> {
        let Self { staged, at, before } = self;
        staged.put().with_context(|| format!("cannot write {}", at.display()))?.or_not();
        Ok(Left { at, before })
    }
}

impl Left {
    /// Leaves what was there before: nobody was told of it.
    pub fn take_back(self) -> Result<()> {
        match self.before {
            Some(before) => put(&self.at, &before),
            None => std::fs::remove_file(&self.at),
        }
        .with_context(|| format!("cannot restore {}", self.at.display()))
    }
}

/// Writes a file in [`RUN_DIR`], whole or not at all. It does not outlive the host.
fn put(at: &Path, bytes: &[u8]) -> std::io::Result<()> {
    staged::replace(at, bytes, staged::PRIVATE).map(Durable::or_not)
}
