// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who else is on the hooks that the limiter is on, in the protected network namespace and in the cgroups of those who
//! listen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::File,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Context, Outcome, instance::not_loaded, outcome::or_good};
use crate::{
    kernel::{
        environment,
        hooks::{self, Hook},
    },
    listeners,
};

/// Whose programs run where.
#[derive(Default)]
struct Facts {
    /// The programs of each hook, each once.
    programs: BTreeMap<&'static str, BTreeSet<u32>>,
    /// Their names.
    names: HashMap<u32, String>,
    /// The programs of each instance, by its name.
    instances: HashMap<String, HashSet<u32>>,
    /// This one.
    instance: String,
    /// What could not be asked.
    unasked: Vec<String>,
}

/// Asks the kernel.
pub fn look(context: &Context) -> Vec<Outcome> {
    if context.status().is_none() {
        return not_loaded();
    }
    if !context.sees_network {
        return vec![Outcome::unknown(context.not_seen())];
    }
    judge(&gather(context))
}

fn gather(context: &Context) -> Facts {
    let mut facts = Facts {
        names: hooks::names(),
        instances: hooks::of_instances(Path::new("/sys/fs/bpf")),
        instance: context.instance.to_string(),
        ..Facts::default()
    };
    facts.see(Hook::SkLookup, Path::new("/proc/thread-self/ns/net"));
    match cgroups(context) {
        Ok(cgroups) => {
            for cgroup in cgroups {
                for hook in Hook::OF_CGROUP {
                    facts.see(hook, &cgroup);
                }
            }
        }
        Err(problem) => facts.unasked.push(format!("{problem:#}")),
    }
    facts
}

/// The protected cgroup, and those of who listens at mail ports: what runs in these is what runs above them, too.
fn cgroups(context: &Context) -> Result<Vec<PathBuf>> {
    let root = environment::tree()?.context("the cgroup v2 tree is mounted nowhere")?;
    let (_, protected) = match context.tables() {
        Some(Ok(tables)) => tables.protects()?,
        _ => (0, 0),
    };
    let listening = context.listening().unwrap_or_default();
    let mut ids: HashSet<u64> = listening.iter().filter_map(|one| one.listener.cgroup).collect();
    ids.insert(protected);
    Ok(listeners::cgroup_paths(&root, &ids).into_values().collect())
}

impl Facts {
    fn see(&mut self, hook: Hook, target: &Path) {
        let asked = File::open(target)
            .with_context(|| format!("cannot open {}", target.display()))
            .and_then(|target| hooks::programs(hook, target.as_fd()));
        match asked {
            Ok(ids) => self.programs.entry(hook.name()).or_default().extend(ids),
            Err(problem) => self.unasked.push(format!("{problem:#}")),
        }
    }
}

/// What programs of others may do to the limits, by their hook.
const HARM: [(&str, bool, &str); 4] = [
    (
        "sk_lookup",
        true,
        "it may send connections to another socket, so that refused clients are served, or get no reason",
    ),
    (
        "sock_ops",
        true,
        "it may switch off the callbacks by which limiter counts (bpf_sock_ops_cb_flags_set replaces the flags of all \
         programs), so that counts are wrong until the daemon corrects them",
    ),
    ("cgroup_skb/ingress", false, "it may drop packets to mail ports as well"),
    ("cgroup/sock_release", false, "it sees the same sockets, and changes nothing"),
];

fn judge(facts: &Facts) -> Vec<Outcome> {
    let of_limiters: HashSet<u32> = facts.instances.values().flatten().copied().collect();
    let mut found: Vec<Outcome> = Vec::new();
    for (hook, is_harm, what) in HARM {
        let on_it = facts.programs.get(hook).into_iter().flatten();
        let others: Vec<String> = on_it
            .filter(|id| !of_limiters.contains(id) && !is_of_limiter(hook, facts.names.get(id)))
            .map(|id| match facts.names.get(id).filter(|name| !name.is_empty()) {
                Some(name) => format!("{name} (id {id})"),
                None => format!("id {id}"),
            })
            .collect();
        if others.is_empty() {
            continue;
        }
        let sentence = format!("another program is on {hook}, {}: {what}", others.join(", "));
        let outcome = if is_harm { Outcome::warning(sentence) } else { Outcome::note(sentence) };
        let first = others.first().and_then(|other| other.rsplit("id ").next()).unwrap_or_default();
        found.push(outcome.mended_by(format!("bpftool prog show id {}", first.trim_end_matches(')'))));
    }
    if !facts.unasked.is_empty() {
        let mut unasked = facts.unasked.clone();
        unasked.dedup();
        found.push(Outcome::unknown(unasked.join("; ")));
    }
    let others = facts.instances.keys().filter(|name| **name != facts.instance).count();
    let beside =
        if others == 0 { String::new() } else { format!(", beside {others} other instances of limiter") };
    or_good(found, format!("no program of others is on the hooks of limiter{beside}"))
}

/// Whether a program has the name of one of the limiter's on this hook: an instance that is pinned in another BPF file
/// system, as in a container, is known by nothing else.
fn is_of_limiter(hook: &str, name: Option<&String>) -> bool {
    let ours = match hook {
        "sk_lookup" => "admission",
        "sock_ops" => "ledger",
        "cgroup_skb/ingress" => "gate",
        _ => "release",
    };
    name.is_some_and(|name| name == ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    fn facts(on: &[(&'static str, u32)], names: &[(u32, &str)]) -> Facts {
        let mut facts = Facts { instance: "mail".to_owned(), ..Facts::default() };
        facts.instances.insert("mail".to_owned(), HashSet::from([1, 2, 3, 4]));
        facts.names = names.iter().map(|(id, name)| (*id, (*name).to_owned())).collect();
        for (hook, id) in on {
            facts.programs.entry(hook).or_default().insert(*id);
        }
        facts
    }

    #[test]
    fn the_limiters_own_programs_are_no_strangers() {
        let own = [("sk_lookup", 1), ("cgroup_skb/ingress", 2), ("sock_ops", 3), ("cgroup/sock_release", 4)];
        assert_eq!(judge(&facts(&own, &[]))[0].grade, Grade::Good);
        let of_a_container = facts(&[("sk_lookup", 9)], &[(9, "admission")]);
        assert_eq!(judge(&of_a_container)[0].grade, Grade::Good);
    }

    #[test]
    fn another_program_is_named_with_what_it_may_do() {
        for (hook, grade) in [
            ("sk_lookup", Grade::Warning),
            ("sock_ops", Grade::Warning),
            ("cgroup_skb/ingress", Grade::Note),
            ("cgroup/sock_release", Grade::Note),
        ] {
            let said = judge(&facts(&[(hook, 1), (hook, 77)], &[(77, "tubular")]));
            assert_eq!(said.len(), 1, "{said:?}");
            assert_eq!(said[0].grade, grade, "{hook}");
            assert!(said[0].sentence.contains(&format!("on {hook}, tubular (id 77): ")), "{said:?}");
            assert_eq!(said[0].command.as_deref(), Some("bpftool prog show id 77"));
        }
        let nameless = judge(&facts(&[("sock_ops", 78)], &[]));
        assert!(nameless[0].sentence.contains("on sock_ops, id 78: "), "{nameless:?}");
        assert_eq!(nameless[0].command.as_deref(), Some("bpftool prog show id 78"));
    }

    #[test]
    fn what_could_not_be_asked_is_unknown() {
        let facts = Facts { unasked: vec!["no".to_owned(), "no".to_owned()], ..facts(&[], &[]) };
        assert_eq!(judge(&facts), [Outcome::unknown("no")]);
    }
}
