//! The bans, in a file: they outlive a restart of the host, where the kernel's memory does not.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use limiter_common::{Addr, Key, Rung, ladder::cause};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{instance::Instance, kernel::Tables, ledger};

const SECOND_NS: u64 = 1_000_000_000;

/// The file. Times are seconds since 1970: the kernel's clock starts anew with the host.
#[derive(Default, Serialize, Deserialize)]
struct State {
    bans: Vec<Saved>,
}

/// A ban in force, or one whose length still matters for the next.
#[derive(Serialize, Deserialize)]
struct Saved {
    service: String,
    source: IpNet,
    since: u64,
    until: u64,
    bans: u32,
    reason: String,
}

/// Writes the bans of `instance`, whole or not at all.
pub fn save(instance: &Instance, tables: &Tables) -> Result<()> {
    let path = instance.bans_path();
    let (now_ns, now) = (ledger::now_ns()?, unix_now()?);
    let services = tables.policy.services()?;
    let unix =
        |ns: u64| (now + Duration::from_nanos(ns)).saturating_sub(Duration::from_nanos(now_ns)).as_secs();
    let banned = tables.rungs()?.into_iter().filter(|(_, rung)| rung.banned_until_ns != 0);
    let mut bans: Vec<Saved> = banned
        .filter_map(|(key, rung)| {
            let (_, policy) = services.iter().find(|(id, _)| id.0 == key.service)?;
            Some(Saved {
                service: policy.name().to_owned(),
                source: IpNet::new(key.source.to_ip(), key.prefix_len()).ok()?,
                since: unix(rung.banned_at_ns),
                until: unix(rung.banned_until_ns),
                bans: rung.bans,
                reason: super::word(rung.cause).to_owned(),
            })
        })
        .collect();
    bans.sort_by(|a, b| (&a.service, a.source).cmp(&(&b.service, b.source)));
    write(&path, &State { bans }).with_context(|| format!("cannot write the bans to {}", path.display()))
}

fn write(path: &Path, state: &State) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer_pretty(&mut file, state)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(dir)?.sync_all()?;
    Ok(())
}

/// Puts the bans of the file in force that have not ended; returns how many. A file that cannot be read is
/// put aside, not lost: a daemon without its bans is better than none.
pub fn restore(instance: &Instance, tables: &mut Tables) -> Result<usize> {
    let path = instance.bans_path();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let state: State = match serde_json::from_slice(&text) {
        Ok(state) => state,
        Err(error) => {
            let aside = path.with_extension("unreadable");
            fs::rename(&path, &aside).with_context(|| format!("cannot put {} aside", path.display()))?;
            warn!("{}: these are no bans ({error}): put aside as {}", path.display(), aside.display());
            return Ok(0);
        }
    };
    let (now_ns, now) = (ledger::now_ns()?, unix_now()?.as_secs());
    let services = tables.policy.services()?;
    let (ladder, room) = (tables.policy.ladder()?, tables.max_bans()? as usize);
    let boot = |unix: u64| {
        (now_ns + unix.saturating_sub(now) * SECOND_NS).saturating_sub(now.saturating_sub(unix) * SECOND_NS)
    };
    let mut restored = Vec::new();
    // Those made by hand first, then the youngest, should there be less room than there was.
    let mut bans = state.bans;
    bans.sort_by_key(|saved| (saved.reason != super::word(cause::ADMIN), std::cmp::Reverse(saved.since)));
    for saved in bans.into_iter().take(room) {
        let Some((id, policy)) = services.iter().find(|(_, policy)| policy.name() == saved.service) else {
            continue;
        };
        let rung = Rung {
            banned_until_ns: boot(saved.until).max(1),
            banned_at_ns: boot(saved.since),
            bans: saved.bans,
            cause: if saved.reason == super::word(cause::ADMIN) { cause::ADMIN } else { cause::LADDER },
            ..Rung::default()
        };
        if rung.is_forgotten(&ladder, now_ns) {
            continue;
        }
        // By what makes a source today.
        restored.push((Key::narrow(*id, policy, &Addr::from(saved.source.addr())), rung));
    }
    tables.change_rungs(|rungs| restored.iter().try_for_each(|(key, rung)| rungs.set(key, rung)))?;
    Ok(restored.iter().filter(|(_, rung)| rung.is_banned(now_ns)).count())
}

/// Removes the file.
pub fn remove(instance: &Instance) -> Result<()> {
    let path = instance.bans_path();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn unix_now() -> Result<Duration> {
    SystemTime::now().duration_since(UNIX_EPOCH).context("the clock of this host is before 1970")
}
