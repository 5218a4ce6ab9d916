// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The bans between kernel and [file](super::journal): they outlive a restart of the host, where the kernel's memory does
//! not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use limiter_common::{Addr, Cause, Key, Penalty, ServiceId, ServicePolicy, service::Prefixes};
use tracing::{info, warn};

use super::journal::{Ban, Clock, Contents, Journal, Line, Who};
use crate::{
    instance::Instance,
    kernel::Tables,
    ledger,
    policy::{self, Services},
};

/// How many of those that are dropped are named.
const NAMED: usize = 3;

/// A ban as the file has it; none for a service that is not there any more.
pub(super) fn written(services: &Services, key: &Key, penalty: &Penalty) -> Option<Ban> {
    Some(Ban {
        who: who(services, key)?,
        since_ns: penalty.banned_at_ns,
        until_ns: penalty.banned_until_ns,
        bans: penalty.bans,
        by: Cause::from_u32(penalty.cause).name().to_owned(),
    })
}

/// Who is meant by a key, likewise.
pub(super) fn who(services: &Services, key: &Key) -> Option<Who> {
    let policy = policy::by_id(services, ServiceId(key.service))?;
    let source = IpNet::new(key.addr.to_ip(), key.prefix_len()).ok()?;
    Some(Who { service: policy.name().to_owned(), source })
}

/// The key of who is banned: for just the network that was, whatever makes a source today. None where the service is
/// gone, or addresses of this network are counted as something else.
pub(super) fn key(services: &Services, who: &Who) -> Option<Key> {
    let (id, policy) = policy::by_name(services, &who.service)?;
    let length = who.source.prefix_len();
    let as_it_was = ServicePolicy { source: Prefixes { ipv4: length, ipv6: length }, ..*policy };
    let key = Key::source(id, &as_it_was, 0, &Addr::from(who.source.addr()));
    (key.addr.to_ip() == who.source.addr() && key.prefix_len() == length).then_some(key)
}

/// Those that matter after a restart, or for the length of the next ban.
fn all(tables: &Tables) -> Result<Vec<Ban>> {
    let (now_ns, ladder) = (ledger::now_ns()?, tables.policy.ladder()?);
    let services = tables.policy.services()?;
    let mut penalties = tables.penalties()?;
    penalties.retain(|(_, penalty)| penalty.banned_until_ns != 0 && !penalty.is_forgotten(&ladder, now_ns));
    Ok(penalties.iter().filter_map(|(key, penalty)| written(&services, key, penalty)).collect())
}

/// Writes all bans of `instance` anew, whole or not at all. Under the lock of the bans.
pub fn save(instance: &Instance, tables: &Tables) -> Result<()> {
    Journal::new(instance.bans_path())?.write(all(tables)?)
}

/// Writes down what has become of these sources, whole or not at all. Under the lock of the bans.
pub fn note(instance: &Instance, tables: &Tables, keys: &[Key]) -> Result<()> {
    let services = tables.policy.services()?;
    let (mut ban, mut end) = (Vec::new(), Vec::new());
    for key in keys {
        match tables.penalty(key)?.filter(|penalty| penalty.banned_until_ns != 0) {
            Some(penalty) => ban.extend(written(&services, key, &penalty)),
            None => end.extend(who(&services, key)),
        }
    }
    put(&Journal::new(instance.bans_path())?, tables, &Line::now(ban, end)?)
}

/// Appends a line, or writes all anew.
pub(super) fn put(journal: &Journal, tables: &Tables, line: &Line) -> Result<()> {
    if journal.append(line, || Ok(tables.penalties()?.len()))? { Ok(()) } else { journal.write(all(tables)?) }
}

/// Notes what time it is: should the clock on the wall be set back meanwhile, bans go on from here. Nothing is noted where
/// nothing is written down.
pub fn mark(instance: &Instance) -> Result<()> {
    let _bans = instance.lock_bans()?;
    let journal = Journal::new(instance.bans_path())?;
    // However long it is: this is no time to write it anew.
    journal.append(&Line::now(Vec::new(), Vec::new())?, || Ok(u32::MAX as usize))?;
    Ok(())
}

/// Puts the bans of the file in force that have not ended, and says which it does not; returns how many. A file that is
/// damaged is kept beside, and what can be read of it counts: a daemon without some bans is better than none. Under the
/// lock of the bans, until the tables are those of the instance.
pub fn restore(instance: &Instance, tables: &mut Tables) -> Result<usize> {
    let journal = Journal::new(instance.bans_path())?;
    let contents = journal.read()?;
    let now = Clock::now()?;
    let services = tables.policy.services()?;
    let (ladder, room) = (tables.policy.ladder()?, tables.max_bans()? as usize);
    let then_ns = contents.now_ns(journal.boot(), now);
    let mut dropped = Dropped::default();
    let mut restored = Vec::new();
    for ban in contents.bans.values() {
        let penalty = penalty(ban, then_ns, now.at_ns);
        if penalty.is_forgotten(&ladder, now.at_ns) {
            dropped.ended += 1;
            continue;
        }
        match key(&services, &ban.who) {
            Some(key) => restored.push((key, penalty)),
            None => dropped.gone(&ban.who),
        }
    }
    // Those made by hand first, then the youngest, should there be less room than there was.
    restored.sort_by_key(|(_, penalty)| {
        (penalty.cause != Cause::Admin as u32, std::cmp::Reverse(penalty.banned_at_ns))
    });
    dropped.no_room = restored.len().saturating_sub(room);
    restored.truncate(room);
    tables.change_penalties(|penalties| {
        restored.iter().try_for_each(|(key, penalty)| penalties.set(key, penalty))
    })?;
    let mut in_force = 0;
    for (key, _) in restored.iter().filter(|(_, penalty)| penalty.is_banned(now.at_ns)) {
        // Should that not be known, it is a ban like others.
        match super::idle(tables, &services, key).unwrap_or(None) {
            None => in_force += 1,
            Some(because) => dropped.idle.extend(who(&services, key).map(|who| (who, because))),
        }
    }
    dropped.tell(&journal, &contents);
    let is_as_it_should_be = contents.is_of(journal.boot()) && contents.damaged == 0 && !contents.is_torn;
    if journal.extent()?.is_some()
        && !is_as_it_should_be
        && let Err(problem) = journal.write(all(tables)?)
    {
        warn!("{problem:#}; the bans stay in force, and are saved as soon as the file can be written");
    }
    Ok(in_force)
}

/// A ban as it stands now, `then_ns` in its own time and `now_ns` in that of the kernel. None is longer than it was made
/// for.
fn penalty(ban: &Ban, then_ns: u64, now_ns: u64) -> Penalty {
    let left_ns = ban.until_ns.saturating_sub(then_ns).min(ban.until_ns.saturating_sub(ban.since_ns));
    let over_ns = then_ns.saturating_sub(ban.until_ns);
    Penalty {
        banned_until_ns: now_ns.saturating_add(left_ns).saturating_sub(over_ns).max(1),
        // 0 is that of nobody's ban.
        banned_at_ns: now_ns.saturating_sub(then_ns.saturating_sub(ban.since_ns)).max(u64::from(now_ns > 0)),
        bans: ban.bans,
        cause: Cause::from_name(&ban.by).unwrap_or(Cause::Ladder) as u32,
        ..Penalty::default()
    }
}

/// What is not in force again, and why.
#[derive(Default)]
struct Dropped {
    ended: usize,
    no_room: usize,
    gone: usize,
    services: BTreeSet<String>,
    /// Those that do not hold at present, and why.
    idle: Vec<(Who, String)>,
}

impl Dropped {
    fn gone(&mut self, who: &Who) {
        self.gone += 1;
        self.services.insert(who.service.clone());
    }

    fn tell(&self, journal: &Journal, contents: &Contents) {
        if contents.damaged > 0 {
            put_aside(journal, contents.damaged);
        }
        if contents.is_torn {
            warn!(
                "the last line of {} is incomplete: bans made just before the host went down may be missing",
                journal.path().display()
            );
        }
        if self.ended > 0 {
            info!("{} saved bans have expired", self.ended);
        }
        if self.gone > 0 {
            let services = self.services.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            warn!("dropped {} saved bans: the service no longer exists ({services})", self.gone);
        }
        if self.no_room > 0 {
            warn!(
                "dropped the {} oldest saved bans: there is no room; raise max_bans in [ladder] and restart \
                 the daemon",
                self.no_room
            );
        }
        for said in by_reason(&self.idle, "not in force") {
            warn!("{said}; `limiter bans` lists them until they end");
        }
    }
}

/// What became of bans, one sentence for each service and reason; a reason may be empty.
pub(super) fn by_reason(bans: &[(Who, String)], what: &str) -> Vec<String> {
    let mut sources: BTreeMap<(&str, &str), Vec<IpNet>> = BTreeMap::new();
    for (who, because) in bans {
        sources.entry((&who.service, because)).or_default().push(who.source);
    }
    let said = sources.into_iter().map(|((service, because), sources)| {
        let how_many =
            if sources.len() == 1 { "1 ban is".to_owned() } else { format!("{} bans are", sources.len()) };
        let because = if because.is_empty() { String::new() } else { format!(": {because}") };
        format!("{service}: {how_many} {what} ({}){because}", some(&sources))
    });
    said.collect()
}

/// The first few, by name.
fn some(sources: &[IpNet]) -> String {
    let mut sources = sources.to_vec();
    sources.sort();
    let mut names: Vec<String> = sources.iter().take(NAMED).map(ToString::to_string).collect();
    if sources.len() > NAMED {
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// Keeps a file that is damaged under another name, too: it is written anew.
fn put_aside(journal: &Journal, damaged: usize) {
    let path = journal.path();
    let aside = path.with_extension("unreadable");
    let _may_not_be_there = fs::remove_file(&aside);
    let kept = match fs::hard_link(path, &aside) {
        Ok(()) => format!("the damaged file is kept as {}", aside.display()),
        Err(error) => format!("the damaged file cannot be kept as {} ({error})", aside.display()),
    };
    warn!(
        "{} is damaged: {damaged} lines or bans are invalid and were skipped, the others were loaded; {kept}",
        path.display()
    );
}

/// Removes the file, and one that was damaged.
pub fn remove(instance: &Instance) -> Result<()> {
    let path = instance.bans_path();
    for path in [path.with_extension("unreadable"), path] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_ban_is_longer_than_it_was_made_for(since_ns: u64, length_ns: u64, then_ns: u64, now_ns: u64) {
            let until_ns = since_ns.saturating_add(length_ns);
            let who = Who { service: "smtp".to_owned(), source: "192.0.2.1/32".parse().unwrap() };
            let ban = Ban { who, since_ns, until_ns, bans: 3, by: "ladder".to_owned() };
            let penalty = penalty(&ban, then_ns, now_ns);
            prop_assert!(penalty.banned_until_ns.saturating_sub(now_ns) <= length_ns.max(1));
            prop_assert!(penalty.banned_at_ns <= now_ns);
            if then_ns >= until_ns && now_ns > 0 {
                prop_assert!(!penalty.is_banned(now_ns), "it had ended");
            }
        }

        #[test]
        fn who_is_written_down_is_who_is_banned_again_whatever_makes_a_source_now(
            address: u128, v4: bool, made in 0u8..=128, now in 0u8..=128,
        ) {
            let prefixes = |length: u8| Prefixes { ipv4: length.min(32), ipv6: length };
            let policy = |length| ServicePolicy {
                name: ServicePolicy::pack_name("smtp").unwrap(), source: prefixes(length), ..ServicePolicy::default()
            };
            let address = if v4 { std::net::IpAddr::from(std::net::Ipv4Addr::from(address as u32)) } else { std::net::Ipv6Addr::from(address).into() };
            let banned = Key::source(ServiceId(4), &policy(made), 0, &Addr::from(address));
            let who = who(&[(ServiceId(4), policy(made))], &banned).unwrap();
            let again = key(&[(ServiceId(9), policy(now))], &who);
            // What is counted as another source than its own bits say is never somebody else's.
            prop_assert!(again.is_none_or(|again| again == Key { service: 9, ..banned }), "{:?} {:?}", banned, again);
            let is_mapped = !v4 && banned.addr.is_v4();
            prop_assert!(again.is_some() || is_mapped || Addr::from(who.source.addr()) != banned.addr || made < 96);
        }
    }
}
