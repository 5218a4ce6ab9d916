// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Mail ports of other network namespaces, as of containers: nothing that is loaded here limits what comes to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, File},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    thread,
};

use super::{Context, Outcome, outcome::or_good};
use crate::{
    evidence,
    instance::Instance,
    kernel::{
        environment,
        hooks::{self, Hook},
    },
    listeners,
};

/// At most so many namespaces are looked into.
const MOST: usize = 64;

/// Listeners at mail ports in another network namespace.
struct Elsewhere {
    /// A process in it.
    pid: u32,
    /// Who listens, if that is known.
    who: Option<String>,
    ports: BTreeSet<u16>,
    /// Whether a limiter is attached to it.
    is_protected: bool,
}

/// Looks into each of them.
pub fn look(context: &Context) -> Vec<Outcome> {
    let ports: HashSet<u16> =
        context.services.iter().flat_map(|service| service.ports.iter().copied()).collect();
    let others = others();
    let found: Vec<Result<Option<Elsewhere>, String>> = thread::scope(|scope| {
        let ports = &ports;
        let looks: Vec<_> =
            others.iter().take(MOST).map(|&pid| scope.spawn(move || look_into(pid, ports))).collect();
        looks.into_iter().filter_map(|look| look.join().ok()).collect()
    });
    judge(&context.instance, others.len(), found)
}

/// A process of each network namespace but this one: the smallest number.
fn others() -> Vec<u32> {
    let number = |path: &Path| fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
    let ours = number(Path::new("/proc/thread-self/ns/net"));
    let mut known: BTreeMap<(u64, u64), u32> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(namespace) = number(&entry.path().join("ns/net")) else { continue };
        if Some(namespace) != ours {
            let known = known.entry(namespace).or_insert(pid);
            *known = (*known).min(pid);
        }
    }
    known.into_values().collect()
}

/// In the namespace of a process; none if nobody listens there, or the process has ended.
fn look_into(pid: u32, ports: &HashSet<u16>) -> Result<Option<Elsewhere>, String> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    if !path.exists() {
        return Ok(None);
    }
    environment::enter_netns(&path).map_err(|problem| format!("{problem:#}"))?;
    let mut listening = listeners::all().map_err(|problem| format!("{problem:#}"))?;
    listening.retain(|listener| ports.contains(&listener.port));
    if listening.is_empty() {
        return Ok(None);
    }
    let names = hooks::names();
    let is_limiter = |id: &u32| names.get(id).is_some_and(|name| name == "admission");
    let attached =
        File::open(&path).ok().and_then(|netns| hooks::programs(Hook::SkLookup, netns.as_fd()).ok());
    let is_protected = attached.is_some_and(|ids| ids.iter().any(is_limiter));
    let inodes = listening.iter().map(|listener| listener.inode).collect();
    let owner = evidence::openers(&inodes).into_values().min_by_key(|process| process.pid);
    let pid = owner.as_ref().map_or(pid, |process| process.pid);
    let who = owner.map(|process| process.name);
    Ok(Some(Elsewhere { pid, who, ports: listening.iter().map(|one| one.port).collect(), is_protected }))
}

fn judge(instance: &Instance, all: usize, looks: Vec<Result<Option<Elsewhere>, String>>) -> Vec<Outcome> {
    let mut found = Vec::new();
    let mut protected = 0;
    for look in looks {
        match look {
            Ok(None) => {}
            Ok(Some(Elsewhere { is_protected: true, .. })) => protected += 1,
            Ok(Some(Elsewhere { pid, who, ports, .. })) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                let who = who.map_or_else(|| "a process".to_owned(), |name| format!("{name} (pid {pid})"));
                found.push(
                    Outcome::note(format!(
                        "{who} listens at {} in another network namespace, where nothing limits: if it is reached \
                         through this host (a container's published ports), protect it there",
                        ports.join(", ")
                    ))
                    .mended_by(format!(
                        "limiter --instance {instance}-container run --netns /proc/{pid}/ns/net"
                    )),
                );
            }
            Err(problem) => found.push(Outcome::unknown(problem)),
        }
    }
    found.dedup();
    if all > MOST {
        let skipped = all - MOST;
        found.push(Outcome::unknown(format!("{skipped} more network namespaces were not looked into")));
    }
    or_good(
        found,
        match (all, protected) {
            (0, _) => "there is no other network namespace".to_owned(),
            (_, 0) => format!("nobody listens at a mail port in {all} other network namespaces"),
            (_, protected) => {
                format!("{protected} other network namespaces have mail ports, and a limiter each")
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    fn there(is_protected: bool) -> Elsewhere {
        let who = Some("dovecot".to_owned());
        Elsewhere { pid: 4711, who, ports: BTreeSet::from([143, 993]), is_protected }
    }

    #[test]
    fn a_mail_port_elsewhere_is_a_note_with_the_command_that_protects_it() {
        let judged = |looks| judge(&"mail".parse().unwrap(), 3, looks);
        let said = judged(vec![Ok(Some(there(false))), Ok(None)]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].grade, Grade::Note);
        assert!(
            said[0].sentence.starts_with("dovecot (pid 4711) listens at 143, 993 in another"),
            "{said:?}"
        );
        assert_eq!(
            said[0].command.as_deref(),
            Some("limiter --instance mail-container run --netns /proc/4711/ns/net")
        );
        assert_eq!(judged(vec![Ok(Some(there(true)))])[0].grade, Grade::Good);
        assert_eq!(judged(vec![Err("no".to_owned())])[0].grade, Grade::Unknown);
        assert_eq!(judge(&"mail".parse().unwrap(), MOST + 2, Vec::new())[0].grade, Grade::Unknown);
    }
}
