//! An instance: the name under which everything of one limiter is found, so that several can live on
//! one host.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::{ffi::OsStringExt as _, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// Where locks are kept.
const RUN_DIR: &str = "/run/limiter";

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
    /// Where the maps and links are pinned.
    pub fn pins(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf").join(&self.0)
    }

    /// Where they are pinned while they are being made; renamed to [`Self::pins`] when whole. BPF
    /// file systems allow no dot in a name, and no instance has a `+` in its own.
    pub fn new_pins(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf").join(format!("{}+new", self.0))
    }

    fn lock_path(&self, what: &str) -> PathBuf {
        PathBuf::from(RUN_DIR).join(format!("{}.{what}", self.0))
    }

    fn open_lock(&self, what: &str) -> Result<File> {
        std::fs::create_dir_all(RUN_DIR).with_context(|| format!("cannot create {RUN_DIR}"))?;
        let path = self.lock_path(what);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .with_context(|| format!("cannot open the lock {}", path.display()))
    }

    /// Becomes the daemon of this instance, for as long as the result lives.
    ///
    /// # Errors
    /// When another daemon serves it.
    pub fn lock_daemon(&self) -> Result<DaemonLock> {
        match Flock::lock(self.open_lock("pid")?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => {
                file.set_len(0)?;
                Ok(DaemonLock(file))
            }
            Err((_, _)) => {
                let pid = self.daemon()?.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                bail!(
                    "a daemon already serves the instance {self}{pid}: stop it first, or choose another --instance"
                )
            }
        }
    }

    /// Holds off every other change of the pinned policy until the result is dropped.
    pub fn lock_policy(&self) -> Result<impl Drop + use<>> {
        Flock::lock(self.open_lock("policy")?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .context("cannot lock the policy")
    }

    /// Holds off everyone else who bans and unbans, and writes it down, until the result is dropped.
    pub fn lock_bans(&self) -> Result<impl Drop + use<>> {
        Flock::lock(self.open_lock("bans")?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .context("cannot lock the bans")
    }

    /// Where bans are written down, so that they outlive a restart of the host.
    pub fn bans_path(&self) -> PathBuf {
        PathBuf::from(STATE_DIR).join(format!("{}.bans", self.0))
    }

    /// Where the daemon says on which interfaces the shield is.
    pub fn shield_path(&self) -> PathBuf {
        self.lock_path("shield")
    }

    /// What whoever runs an errand of the steward locks meanwhile.
    pub fn errand_lock(&self) -> Result<File> {
        self.open_lock("errand")
    }

    /// Remembers the configuration file of the daemon, for `limiter reload`; none: the built-in services.
    pub fn set_config_path(&self, path: Option<&Path>) -> Result<()> {
        let path = path.map(std::path::absolute).transpose().context("cannot find the configuration file")?;
        let text = path.map_or_else(Vec::new, |path| path.into_os_string().into_encoded_bytes());
        let at = self.lock_path("config");
        std::fs::write(&at, text).with_context(|| format!("cannot write {}", at.display()))
    }

    /// Leaves the configuration that was put in force by somebody else for the daemon.
    pub fn set_applied(&self, config: &str) -> Result<()> {
        let (at, new) = (self.applied_path(), self.lock_path("applied+new"));
        std::fs::write(&new, config).with_context(|| format!("cannot write {}", new.display()))?;
        std::fs::rename(&new, &at).with_context(|| format!("cannot write {}", at.display()))
    }

    /// Where it is left.
    pub fn applied_path(&self) -> PathBuf {
        self.lock_path("applied")
    }

    /// The configuration file of the daemon that ran last.
    pub fn config_path(&self) -> Result<Option<PathBuf>> {
        let at = self.lock_path("config");
        let text = std::fs::read(&at).with_context(|| {
            format!(
                "cannot read {}: no daemon has run since the host was started; give --config",
                at.display()
            )
        })?;
        Ok((!text.is_empty()).then(|| PathBuf::from(OsString::from_vec(text))))
    }

    /// Who serves this instance, if anyone does.
    pub fn daemon(&self) -> Result<Daemon> {
        let Ok(mut file) = File::open(self.lock_path("pid")) else {
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
}

/// The daemon of an instance as others see it.
#[derive(Debug, serde::Serialize)]
pub struct Daemon {
    /// Whether it serves: it has loaded or taken over everything, and greets.
    pub running: bool,
    /// Its process.
    pub pid: Option<i32>,
}

/// Held by the daemon of an instance.
pub struct DaemonLock(Flock<File>);

impl DaemonLock {
    /// Tells everyone that the daemon serves from now on.
    pub fn announce(&mut self) -> Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        writeln!(self.0, "{}", std::process::id())?;
        Ok(())
    }
}
