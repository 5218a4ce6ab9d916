// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is loaded, for a command that reads it or changes it.

use std::path::PathBuf;

use anyhow::{Result, anyhow};

use crate::{
    instance::{Daemon, Instance},
    kernel::{Found, Tables, environment, netns},
    ledger,
};

/// That nothing is, and what to do.
pub fn nothing_loaded(instance: &Instance) -> String {
    let limiter = instance.program();
    format!("instance {instance} is not loaded: start it with `{limiter} run`, or name another --instance")
}

/// The tables of an instance that is loaded.
pub fn loaded(instance: &Instance) -> Result<Tables> {
    if_loaded(instance)?.ok_or_else(|| anyhow!(nothing_loaded(instance)))
}

/// The tables of an instance; none if it is not loaded.
pub fn if_loaded(instance: &Instance) -> Result<Option<Tables>> {
    environment::check()?;
    match Found::inspect(instance)? {
        Found::Current(tables) => Ok(Some(*tables)),
        Found::Nothing => {
            refuse_elsewhere(instance)?;
            Ok(None)
        }
        Found::Other(difference) => Err(anyhow!(
            "another build of limiter loaded instance {instance} ({difference}): use that build, or replace it \
             with `{limiter} run`",
            limiter = instance.program()
        )),
    }
}

/// So often what is loaded is read again, because it was unloaded or replaced meanwhile.
const MOST_READINGS: usize = 10;

/// Reads something of what is loaded. If that was unloaded meanwhile, or another has taken its place, what was read is of
/// neither: then it is read again.
pub fn steadily<T>(instance: &Instance, mut read: impl FnMut() -> Result<T>) -> Result<T> {
    let mut result = None;
    for _ in 0..MOST_READINGS {
        let before = instance.pinned();
        result = Some(read());
        if instance.pinned() == before {
            break;
        }
    }
    result.unwrap_or_else(read)
}

/// The same under a lock: what is loaded when the lock is held. A daemon that starts may have put other maps in the place
/// of those that were there before.
pub fn locked<L>(instance: &Instance, lock: impl FnOnce(&Instance) -> Result<L>) -> Result<(Tables, L)> {
    // For an instance that is not loaded no file is made.
    steadily(instance, || loaded(instance))?;
    let lock = lock(instance)?;
    Ok((loaded(instance)?, lock))
}

/// Says where the limits are, if they are not here.
pub fn refuse_elsewhere(instance: &Instance) -> Result<()> {
    let daemon = instance.daemon()?;
    match daemon.pid.filter(|&pid| instance.pins_elsewhere(pid).is_some()) {
        Some(pid) => Err(anyhow!(
            "instance {instance} is loaded in another mount namespace, which has its own BPF file system: run \
             `nsenter --mount --target {pid} {limiter} …`",
            limiter = instance.program()
        )),
        None => Ok(()),
    }
}

/// The daemon of an instance that is loaded, and whether it answers.
pub fn daemon(instance: &Instance, tables: &Tables) -> Result<Daemon> {
    let daemon = instance.daemon()?;
    let answers = daemon.running && tables.daemon_answers(ledger::monotonic_ns()?)?;
    Ok(Daemon { answers, ..daemon })
}

/// Enters the network namespace that is protected, by way of the daemon or by the path it was started with, so that its
/// sockets can be seen. Best effort: who needs to see them complains if they cannot.
pub fn enter_protected(instance: &Instance, tables: &Tables) -> Result<()> {
    let (protected, _) = tables.protects()?;
    if protected == environment::netns_cookie()? {
        return Ok(());
    }
    let of_daemon = instance.daemon()?.pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    let mut ways = of_daemon.into_iter().chain(instance.netns_path());
    if let Some(way) = ways.find(|way| netns::cookie_at(way).is_ok_and(|there| there == protected)) {
        let _it_has_just_gone = environment::enter_netns(&way);
    }
    Ok(())
}
