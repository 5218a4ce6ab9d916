// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who is on the hooks that the limiter is on: programs of others run there, too.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use bytemuck::{Pod, Zeroable};

use super::{bpf::bpf, link::PinnedLink, pins};

/// `BPF_PROG_QUERY` of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const PROG_QUERY: libc::c_long = 16;
/// `BPF_F_QUERY_EFFECTIVE`: with those of the cgroups above.
const EFFECTIVE: u32 = 1;
/// So many programs of one hook are told of.
const MOST: usize = 64;

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `sk_lookup`, of a network namespace.
    SkLookup,
    /// `cgroup_skb/ingress`, of a cgroup.
    Ingress,
    /// `sock_ops`, of a cgroup.
    SockOps,
    /// `cgroup/sock_release`, of a cgroup.
    SockRelease,
}

impl Hook {
    /// All of a cgroup.
    pub const OF_CGROUP: [Self; 3] = [Self::Ingress, Self::SockOps, Self::SockRelease];

    /// What the kernel calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SkLookup => "sk_lookup",
            Self::Ingress => "cgroup_skb/ingress",
            Self::SockOps => "sock_ops",
            Self::SockRelease => "cgroup/sock_release",
        }
    }

    /// Its number in `enum bpf_attach_type`.
    const fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 0,
            Self::SockOps => 3,
            Self::SockRelease => 34,
            Self::SkLookup => 36,
        }
    }
}

/// The part of `union bpf_attr` for the query.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// The ids of the programs that run at a hook of `target`, a network namespace or a cgroup, in their order.
///
/// # Errors
/// What the kernel says.
pub fn programs(hook: Hook, target: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = [0_u32; MOST];
    let mut attr = Query {
        target_fd: target.as_raw_fd() as u32,
        attach_type: hook.attach_type(),
        query_flags: if hook == Hook::SkLookup { 0 } else { EFFECTIVE },
        attach_flags: 0,
        prog_ids: (&raw mut ids) as u64,
        prog_cnt: MOST as u32,
        padding: 0,
    };
    bpf(PROG_QUERY, &mut attr).with_context(|| format!("cannot ask who is on {}", hook.name()))?;
    Ok(ids.into_iter().take(attr.prog_cnt as usize).collect())
}

/// The names of all programs that are loaded, by their ids. One that comes meanwhile has none.
pub fn names() -> HashMap<u32, String> {
    let programs = loaded_programs().flatten();
    programs.map(|program| (program.id(), program.name_as_str().unwrap_or_default().to_owned())).collect()
}

/// The ids of the programs of every instance in the BPF file system `bpffs`, each with the name of its pins.
pub fn of_instances(bpffs: &Path) -> HashMap<String, HashSet<u32>> {
    let mut found: HashMap<String, HashSet<u32>> = HashMap::new();
    for entry in fs::read_dir(bpffs).into_iter().flatten().flatten() {
        let ids: HashSet<u32> = pins::LINKS.iter().filter_map(|name| id(&entry.path(), name)).collect();
        if !ids.is_empty() {
            found.insert(entry.file_name().to_string_lossy().into_owned(), ids);
        }
    }
    found
}

fn id(pins: &Path, program: &str) -> Option<u32> {
    let link = pins::link_path(pins, program);
    link.exists().then(|| PinnedLink::open(&link).ok()?.program_id().ok()).flatten()
}
