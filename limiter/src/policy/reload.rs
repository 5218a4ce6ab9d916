// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter reload`: the file comes into force as a whole, and the daemon takes what the kernel does not know of it; both,
//! or neither.

use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::{
    apply,
    change::naming,
    description::{Difference, OF_NO_SERVICE, differences, differences_of_the_rest},
    local, services,
};
use crate::{
    config::{self, Config},
    instance::{Applied as ForDaemon, Instance, Process},
    kernel::Tables,
};

/// What a reload did.
pub struct Reloaded {
    /// What is different now.
    pub changes: Vec<Changed>,
    /// What of the file is not in force yet; an error if that cannot be told.
    pub later: Result<Option<Later>>,
}

/// What a reload changed.
pub struct Changed {
    /// What it is.
    pub difference: Difference,
    /// Whether it was changed live, and is again what the file says.
    pub is_reverted: bool,
}

/// Keys of a configuration that are not in force yet.
pub struct Later {
    /// Their names, one at least.
    pub keys: Vec<&'static str>,
    /// When they are.
    pub until: Until,
}

/// When a key comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When the daemon, which is running, starts again.
    Restart,
    /// When a daemon runs.
    Start,
}

/// What a reload of a file would change.
#[derive(Debug)]
pub struct Preview {
    /// Whether the file means something else than when it was put in force.
    pub is_edited: bool,
    /// What is another in the file than in force.
    pub differences: Vec<Difference>,
}

/// Looks what a reload of a file that means `config` would change. Changes nothing.
///
/// # Errors
/// When what is in force cannot be read.
pub fn preview(instance: &Instance, tables: &Tables, config: &Config) -> Result<Preview> {
    let present = tables.policy.policy()?;
    let numbers = services::numbers(&present.services);
    let wanted = apply::of_config(config, &numbers, local::built_in(&present.rules));
    let mut differences = differences(&present, &wanted);
    // What the kernel does not know of is as it was in the file that was put in force last.
    if let Ok(last) = config::load(&instance.applied_path()) {
        differences.extend(differences_of_the_rest(&last, config));
    }
    Ok(Preview { is_edited: present.fingerprint != config.fingerprint(), differences })
}

/// Puts the file at `path` in force, or the defaults without one, and remembers with `is_named` that it is the file that
/// later reloads read. The policy is to be locked since before the file is read, or a change that is saved at this moment
/// would be overruled by what was there before.
///
/// # Errors
/// When that fails at any step. Then nothing has changed, or the error says what has.
pub fn reload(
    instance: &Instance,
    tables: &mut Tables,
    path: Option<&Path>,
    is_named: bool,
) -> Result<Reloaded> {
    // All of it before anything is touched: one mistake and nothing changes.
    let config = path.map(config::load).transpose()?.unwrap_or_default();
    // What tells a change made live from one of the file; where it cannot be read, nothing is said of that.
    let last = config::load(&instance.applied_path()).ok();
    // What the kernel does not know of: the host name, and how often the daemon looks after the ledger.
    // Not the file itself: it may have changed by the time the daemon reads it.
    let for_daemon = instance.prepare_applied(&config.to_string())?;
    let daemon = instance.daemon_process()?;
    let is_served = daemon.is_some();
    let before = tables.policy.policy()?;
    let known = instance.config_path();
    let put = || {
        let changes = put(&config, last.as_ref(), tables)?;
        let Err(problem) = tell(daemon, for_daemon) else { return Ok(changes) };
        tables.policy.replace(&before).with_context(|| {
            format!(
                "the configuration is in force, but the daemon was not told ({problem:#}): repeat the command"
            )
        })?;
        Err(problem)
    };
    let changes = if is_named { naming(instance, path, known, put) } else { put() }?;
    let later = later(tables, &config, &changes, is_served);
    Ok(Reloaded { changes, later })
}

/// Puts `config` into the tables; what is different then, and whether that was changed live and is as in `last`, the
/// configuration that was put in force last, again.
fn put(config: &Config, last: Option<&Config>, tables: &mut Tables) -> Result<Vec<Changed>> {
    let (before, after, _) = apply::replace(config, tables)?;
    let of_policy = differences(&before, &after).into_iter();
    let Some(last) = last else {
        return Ok(of_policy.map(|difference| Changed { difference, is_reverted: false }).collect());
    };
    let numbers = services::numbers(&after.services);
    let in_the_files = differences(&apply::of_config(last, &numbers, Vec::new()), &after);
    let is_in_the_files = |found: &Difference| {
        in_the_files.iter().any(|file| (&file.what, file.key) == (&found.what, found.key))
    };
    let of_policy =
        of_policy.map(|difference| Changed { is_reverted: !is_in_the_files(&difference), difference });
    let rest = differences_of_the_rest(last, config).into_iter();
    Ok(of_policy.chain(rest.map(|difference| Changed { difference, is_reverted: false })).collect())
}

/// What of a configuration that was just put in force is not in force yet.
fn later(tables: &Tables, config: &Config, changes: &[Changed], is_served: bool) -> Result<Option<Later>> {
    // Maps cannot be made larger. Not what has changed: what is loaded may be what the file says again.
    let loaded = [
        ("max_sources", tables.room()?.1 == config.max_sources),
        ("max_bans", tables.max_bans()? == config.ladder.max_bans),
    ];
    let mut keys: Vec<&str> = loaded.iter().filter(|(_, is_so)| !is_so).map(|(key, _)| *key).collect();
    let until = if is_served { Until::Restart } else { Until::Start };
    if !is_served {
        let of_no_service = changes.iter().filter(|change| change.difference.what == OF_NO_SERVICE);
        let by_daemon = of_no_service.filter_map(|change| change.difference.key);
        keys.extend(by_daemon.filter(|key| BY_DAEMON.contains(key)));
    }
    Ok((!keys.is_empty()).then_some(Later { keys, until }))
}

/// What the daemon does, and the kernel by itself does not.
const BY_DAEMON: [&str; 4] = ["hostname", "remember_seconds", "reconcile_seconds", "interfaces"];

/// Leaves the configuration for the daemon, and tells it: both, or neither.
fn tell(daemon: Option<Process>, for_daemon: ForDaemon) -> Result<()> {
    let left = for_daemon.leave()?;
    let Some(Err(problem)) = daemon.map(|daemon| daemon.signal(Signal::USR1)) else { return Ok(()) };
    // If it stays, nobody reads it before another is there.
    let _stays = left.take_back();
    Err(problem)
}
