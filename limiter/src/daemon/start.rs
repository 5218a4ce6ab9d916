// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The start: everything that can fail, before the daemon says that it serves; and what is done when it does fail.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use anyhow::{Context as _, Error, Result, anyhow};
use tracing::{error, info, warn};

use super::{heartbeat, options::Options};
use crate::{
    bans,
    greeter::Listener,
    instance::{Instance, Lock},
    kernel::{Attached, Found, Tables, Target, environment, netns, pins, sets::PolicySet, shield::Shield},
    policy::{self, Applied},
    waiting,
};

/// What there was before a start.
pub struct Before {
    pub found: Found,
    /// Held until other maps have taken the place of those that are there: a ban made meanwhile would be in these.
    _bans: Option<Lock>,
    /// Of what is taken over.
    running: Option<Running>,
    /// The file that was put in force; an error if nobody knows.
    file: Result<Option<PathBuf>>,
    /// The path of the network namespace that was protected, if it was named by one.
    netns: Option<PathBuf>,
    /// Of the directory of the pins, whatever its name; 0 for none.
    inode: u64,
}

/// An instance that is taken over.
struct Running {
    /// What is in force.
    policy: PolicySet,
    /// Network namespace and cgroup.
    protects: (u64, u64),
}

impl Before {
    /// Looks at it. Under the lock of the policy, which is to be held until the start has succeeded or failed.
    pub fn look(instance: &Instance, options: &Options) -> Result<Self> {
        let mut found = Found::inspect(instance)?;
        let mut bans = None;
        if let Found::Current(tables) = &found
            && let Some(difference) = replaces(instance, options, tables)?
        {
            bans = Some(instance.lock_bans()?);
            // They are put in force again by the load. A daemon without some bans is better than none.
            if let Err(problem) = bans::state::save(instance, tables) {
                error!("{problem:#}; bans that are not in the file are no longer in force");
            }
            found = Found::Other(difference);
        }
        if bans.is_none() && !matches!(found, Found::Current(_)) {
            bans = Some(instance.lock_bans()?);
        }
        let inode = fs::metadata(instance.pins()).map_or(0, |pins| pins.ino());
        let running = match &mut found {
            Found::Current(tables) => {
                let protects = tables.protects()?;
                // An address that has left the host meanwhile is no longer allowed, whatever becomes of this start.
                if protects.0 == environment::netns_cookie()? {
                    policy::set_local(tables, policy::addresses()?)?;
                }
                Some(Running { policy: tables.policy.policy()?, protects })
            }
            _ => None,
        };
        Ok(Self {
            found,
            _bans: bans,
            running,
            file: instance.config_path(),
            netns: instance.netns_path(),
            inode,
        })
    }

    /// Makes everything as it was, as the start has failed because of `problem`; what to say of it.
    pub fn restore(self, instance: &Instance, problem: Error) -> Error {
        let (restored, stands) = match &self.found {
            Found::Nothing => (Self::clear(instance), "nothing is loaded"),
            Found::Current(_) => (self.put_back(instance), "the old limits stay in force"),
            Found::Other(_) => {
                let restored = pins::take_back(instance, self.inode).and_then(|()| self.name_file(instance));
                (restored, "the old limits stay in force")
            }
        };
        match restored {
            Ok(()) => problem.context(format!("the daemon cannot start, and {stands}")),
            Err(left) => anyhow!(
                "the daemon cannot start: {problem:#}; its changes cannot be undone: {left:#}; start it again, \
                 or run `{limiter} unload`",
                limiter = instance.program()
            ),
        }
    }

    /// Of what was not there before, nothing stays.
    fn clear(instance: &Instance) -> Result<()> {
        pins::remove(&instance.new_pins())?;
        pins::remove(&instance.pins())?;
        instance.clear()
    }

    /// The file that was put in force is the one that `limiter reload` reads, and the namespace has the path that it had.
    fn name_file(&self, instance: &Instance) -> Result<()> {
        instance.set_netns_path(self.netns.as_deref())?;
        self.file.as_ref().map_or(Ok(()), |file| instance.set_config_path(file.as_deref()))
    }

    /// What was taken over has the policy again that it had. Which build its programs are of does not matter.
    fn put_back(&self, instance: &Instance) -> Result<()> {
        let Some(Running { policy, protects }) = &self.running else { return Ok(()) };
        let mut tables = Tables::open(&instance.pins())?;
        if tables.protects()? != *protects {
            tables.count_keys(protects.0, protects.1)?;
        }
        if tables.policy.policy()? != *policy {
            tables.policy.replace(policy)?;
        }
        self.name_file(instance)
    }

    /// Says what has become of it, which lets go of what was held for it.
    pub fn tell(self, instance: &Instance, adopted: u64) {
        match &self.found {
            Found::Nothing => info!("loaded as instance {instance}"),
            Found::Current(_) => info!("took over instance {instance} with its counts"),
            Found::Other(difference) => warn!(
                "replaced the limits of instance {instance} ({difference}): the history of its sources is lost"
            ),
        }
        if adopted > 0 {
            info!("counted {adopted} existing connections");
        }
    }
}

/// Why other maps have to take the place of those that are loaded, in words, if they do.
fn replaces(instance: &Instance, options: &Options, tables: &Tables) -> Result<Option<String>> {
    let target = target(options)?;
    let path = options.netns.as_deref().map(std::path::absolute).transpose()?;
    let is_same_path = path.is_some() && path == instance.netns_path();
    match path.filter(|path| is_same_path && netns::stays(path)) {
        // A container that is started again has a new one there. Nothing of what was known is of anybody in it.
        Some(path) if tables.protects()?.0 != target.netns => {
            Ok(Some(format!("another network namespace is at {}", path.display())))
        }
        _ => target.outgrows(tables),
    }
}

/// What is to be protected.
fn target(options: &Options) -> Result<Target> {
    Ok(Target {
        cgroup: environment::Cgroup::open(options.cgroup.as_deref())?,
        netns: environment::netns_cookie()?,
        max_sources: options.config.max_sources,
        max_bans: options.config.ladder.max_bans,
    })
}

/// Loads, or takes over what is pinned. Under the lock of the policy.
pub fn load(instance: &Instance, options: &Options, found: &Found) -> Result<(Listener, Attached, Shield)> {
    let target = target(options)?;
    let mut loaded = target.load(instance, found)?;
    match policy::apply(&options.config, &mut loaded.tables)? {
        Applied::Changed => info!("the configuration is in force"),
        Applied::Kept => info!("the configuration is already in force; live changes stay"),
    }
    policy::set_local(&mut loaded.tables, policy::addresses()?)?;
    if !matches!(found, Found::Current(_)) {
        match bans::state::restore(instance, &mut loaded.tables) {
            Ok(0) => {}
            Ok(bans) => info!("restored {bans} saved bans"),
            Err(problem) => error!("cannot restore the saved bans: {problem:#}"),
        }
    }
    let listener = Listener::bind().context("cannot open the greeter's listener")?;
    loaded.set_greeter(&listener)?;
    heartbeat::first(&mut loaded.tables)?;
    let (mut attached, shield) = loaded.attach(&target, instance)?;
    // From now on, what is held back is noted; who serves it comes in a moment.
    waiting::attend(&mut attached.waiters)?;
    Ok((listener, attached, shield))
}
