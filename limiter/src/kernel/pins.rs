// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is pinned: recognised by its layout before anything of it is read.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{MapData, MapType};
use limiter_common::{
    Counters, DatedRecord, DropCache, Entry, Kept, Key, LAYOUT_VERSION, Ladder, MAX_SERVICES, PORT_WORDS,
    Penalty, Pending, Room, Rule, SETS, ServicePolicy, Slot, Total, coverage,
    grounds::{self, Refused},
    listening::{Endpoint, MAX_ENDPOINTS},
    maintenance::MaintenanceRequest,
    room::rooms::ROOMS,
    rule::{Network, RuleLimits, RuleService},
    slot::SLOTS,
    waiting::{Flow, MAX_WAITERS, Waiter},
};
use rustix::{
    fs::{Access, CWD, RenameFlags, access, renameat_with},
    io::Errno,
};
use tracing::warn;

use super::{
    link::PinnedLink,
    sets::{MAX_RULE_LIMITS, MAX_RULES},
    tables,
    tables::Tables,
};
use crate::{
    instance::Instance,
    trust::{self, Distrust},
};

/// A map as this build expects to find it pinned.
struct Expected {
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    /// `None`: whatever it was made with.
    entries: Option<u32>,
}

const fn map(name: &'static str, kind: MapType, key: usize, value: usize, entries: Option<u32>) -> Expected {
    Expected { name, kind, key, value, entries }
}

const MAPS: [Expected; 32] = [
    map("LAYOUT", MapType::Array, 4, 8, Some(5)),
    map("ACTIVE", MapType::Array, 4, 8, Some(1)),
    map("CHANGE", MapType::Array, 4, 8, Some(1)),
    map("HEARTBEAT", MapType::Array, 4, 8, Some(1)),
    map("PORTS", MapType::Array, 4, 8, Some(SETS * PORT_WORDS)),
    map("SERVICES", MapType::Array, 4, size_of::<ServicePolicy>(), Some(SETS * MAX_SERVICES)),
    map("RULES_0", MapType::LpmTrie, size_of::<Network>(), size_of::<Rule>(), Some(MAX_RULES)),
    map("RULES_1", MapType::LpmTrie, size_of::<Network>(), size_of::<Rule>(), Some(MAX_RULES)),
    map("COVERAGE", MapType::Array, 4, 8, Some(SETS * coverage::WORDS)),
    map("LIMITS_0", MapType::Hash, size_of::<RuleService>(), size_of::<RuleLimits>(), Some(MAX_RULE_LIMITS)),
    map("LIMITS_1", MapType::Hash, size_of::<RuleService>(), size_of::<RuleLimits>(), Some(MAX_RULE_LIMITS)),
    map("LADDERS", MapType::Array, 4, size_of::<Ladder>(), Some(SETS)),
    map("PENALTIES", MapType::Hash, size_of::<Key>(), size_of::<Penalty>(), None),
    map("LEDGER", MapType::Hash, size_of::<Key>(), size_of::<Entry>(), None),
    map("ROOMS", MapType::Array, 4, size_of::<Room>(), Some(ROOMS)),
    map("RINGS", MapType::Array, 4, size_of::<Key>(), None),
    map("TOTALS", MapType::Array, 4, size_of::<Total>(), Some(MAX_SERVICES)),
    map("PENDING", MapType::PerCpuArray, 4, size_of::<Pending>(), Some(1)),
    map("DROP_CACHE", MapType::PerCpuArray, 4, size_of::<DropCache>(), Some(1)),
    map("COUNTERS", MapType::PerCpuArray, 4, size_of::<Counters>(), Some(MAX_SERVICES)),
    map("GREETER", MapType::SockMap, 4, 4, Some(1)),
    map("MAINTENANCE", MapType::Array, 4, size_of::<MaintenanceRequest>(), Some(1)),
    map("SLOTS", MapType::Array, 4, size_of::<Slot>(), Some(SLOTS)),
    map("OVERFLOW", MapType::Hash, 8, size_of::<DatedRecord>(), None),
    map("CROWDED", MapType::Array, 4, 4, Some(SLOTS)),
    map("KEPT", MapType::Hash, 8, size_of::<Kept>(), None),
    map("WAITERS", MapType::Hash, size_of::<Flow>(), size_of::<Waiter>(), Some(MAX_WAITERS)),
    map("LISTENING", MapType::Hash, size_of::<Endpoint>(), 8, Some(MAX_ENDPOINTS)),
    map("REFUSED", MapType::Array, 4, size_of::<Refused>(), Some(grounds::SLOTS)),
    map("STAGES", MapType::ProgramArray, 4, 4, Some(5)),
    map("LEDGER_STAGES", MapType::ProgramArray, 4, 4, Some(3)),
    map("GREETER_SOCKETS", MapType::SkStorage, 4, 4, None),
];

/// The programs that are attached, by the name of their link's pin.
pub(super) const LINKS: [&str; 4] = ["ledger", "release", "gate", "admission"];

/// The pin of the census: whoever reads it gets its records.
pub(super) const CENSUS: &str = "census";
/// The pin of the link to the tracepoint. The kernel can detach none of those at once: the program is attached until
/// the pin is removed.
pub(super) const DESTROY: &str = "destroy";
/// The pin of the pulse: whoever reads it gives all connections their keepalive.
pub(super) const PULSE: &str = "pulse";

/// The pin of the maintenance program.
pub(super) const MAINTENANCE: &str = "maintenance";

/// The pin of the usher's.
pub(super) const USHER: &str = "usher";

/// The pin of the shield's program, for whoever wants to try it on a frame.
pub(super) const SHIELD: &str = "shield";

/// Names of the maps that are pinned: in the object, and of the pins.
pub(super) fn map_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    // A global is a map of the name of its section, and pins have no dots.
    MAPS.iter().map(|map| {
        let in_object = match map.name {
            "CHANGE" => ".bss.change",
            "HEARTBEAT" => ".bss.heartbeat",
            name => name,
        };
        (in_object, map.name)
    })
}

/// Where the link of a program is pinned.
pub(super) fn link_path(dir: &Path, program: &str) -> PathBuf {
    dir.join(format!("link-{program}"))
}

/// What is pinned under an instance's name.
pub enum Found {
    /// Nothing.
    Nothing,
    /// Maps of this build's layout.
    Current(Box<Tables>),
    /// Something else, in words: maps of another version, or not all of them.
    Other(String),
}

impl Found {
    /// Looks at the pins of `instance`; what is of another layout is not read.
    pub fn inspect(instance: &Instance) -> Result<Self> {
        let dir = instance.pins();
        if !is_there(&dir)? {
            return Ok(Self::Nothing);
        }
        trust_pins(&dir)?;
        if let Some(difference) = difference(&dir) {
            return Ok(Self::Other(difference));
        }
        Ok(Self::Current(Box::new(Tables::open(&dir)?)))
    }
}

/// Whether anything has this name, if only a link to nothing.
fn is_there(dir: &Path) -> Result<bool> {
    match fs::symlink_metadata(dir) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot inspect {}", dir.display())),
    }
}

/// Checks that nobody but root has a say in these pins: where any user may write to the BPF file system (mode 1777),
/// somebody else's may have the name.
fn trust_pins(dir: &Path) -> Result<()> {
    let (_, distrust) = trust::look(dir).with_context(|| format!("cannot inspect {}", dir.display()))?;
    if let Some(Distrust { path, who, .. }) = distrust {
        bail!(
            "{}: {who} can change these pins, so limiter does not use them; unless you know why, remove them with \
             `rm -r {}`",
            path.display(),
            dir.display()
        );
    }
    Ok(())
}

/// Makes room for pins that are being made, and says where. What a daemon has left that was killed while it loaded was
/// never in use, and is removed. Somebody else's is left alone, and another place chosen.
pub fn clear_new(instance: &Instance) -> Result<PathBuf> {
    let new = instance.new_pins();
    if !is_there(&new)? {
        return Ok(new);
    }
    if let Err(problem) = check_ours(&new) {
        warn!("another directory is used in place of one that is not limiter's: {problem:#}");
        instance.choose_new_pins()?;
        return Ok(instance.new_pins());
    }
    remove(&new)?;
    Ok(new)
}

/// Checks that pins are a limiter's own: root's, and in a directory. A link, whoever has made it, would lead a removal
/// somewhere else.
fn check_ours(dir: &Path) -> Result<()> {
    ensure!(!dir.is_symlink(), "{} is a symbolic link: unless you know why, remove it", dir.display());
    trust_pins(dir)
}

/// How the pins in `dir` differ from this build's layout.
fn difference(dir: &Path) -> Option<String> {
    let Ok(layout) = MapData::from_pin(dir.join("LAYOUT")) else {
        return Some("some pins are missing".to_owned());
    };
    if let Some(difference) = mismatch(&layout, &MAPS[0]) {
        return Some(difference);
    }
    match tables::version(layout) {
        Ok(LAYOUT_VERSION) => {}
        Ok(version) => return Some(format!("its layout is {version}, this build has {LAYOUT_VERSION}")),
        Err(error) => return Some(format!("its layout cannot be read ({error})")),
    }
    MAPS.iter().find_map(|expected| match MapData::from_pin(dir.join(expected.name)) {
        Ok(found) => mismatch(&found, expected),
        Err(_) => Some(format!("the map {} is missing", expected.name)),
    })
}

fn mismatch(found: &MapData, expected: &Expected) -> Option<String> {
    let same = found.info().is_ok_and(|info| {
        info.map_type().is_ok_and(|kind| kind == expected.kind)
            && info.key_size() as usize == expected.key
            && info.value_size() as usize == expected.value
            && expected.entries.is_none_or(|entries| info.max_entries() == entries)
    });
    (!same).then(|| format!("the map {} has a different shape", expected.name))
}

/// The programs of `instance` that are attached to nothing, by name: then its limits are not in force.
pub fn detached(instance: &Instance) -> Result<Vec<&'static str>> {
    let dir = instance.pins();
    let mut detached = Vec::new();
    for name in LINKS {
        let pin = link_path(&dir, name);
        if !pin.try_exists()? || !PinnedLink::open(&pin)?.is_attached()? {
            detached.push(name);
        }
    }
    Ok(detached)
}

/// Whether nothing of `instance` is attached to a cgroup any more: the one it was for is gone.
pub fn has_lost_its_cgroup(instance: &Instance) -> Result<bool> {
    let detached = detached(instance)?;
    Ok(LINKS.iter().filter(|name| **name != "admission").all(|name| detached.contains(name)))
}

/// Gives what is pinned while it is being made the name of the instance, in one step. What had the name before has the
/// other one then: see [`take_back`] and [`remove`].
pub fn put_in_place(instance: &Instance) -> Result<()> {
    let (new, pins) = (instance.new_pins(), instance.pins());
    let renamed = if pins.try_exists()? {
        match exchange(&new, &pins) {
            // BPF file systems can since Linux 5.16.
            Err(Errno::INVAL) => {
                remove(&pins)?;
                fs::rename(&new, &pins)
            }
            exchanged => exchanged.map_err(Into::into),
        }
    } else {
        fs::rename(&new, &pins)
    };
    renamed.with_context(|| format!("cannot rename {} to {}", new.display(), pins.display()))
}

/// Takes back what [`put_in_place`] has done, if it has: what had the name before has it again.
/// That is a directory of this inode.
pub fn take_back(instance: &Instance, inode: u64) -> Result<()> {
    let (new, pins) = (instance.new_pins(), instance.pins());
    let is_it = |path: &Path| fs::metadata(path).is_ok_and(|found| found.ino() == inode);
    if is_it(&new) {
        exchange(&new, &pins).with_context(|| format!("cannot rename {} back", new.display()))?;
    }
    // Before Linux 5.16 what had the name is gone by then.
    ensure!(
        is_it(&pins),
        "{} in force",
        if pins.exists() { "the new limits are" } else { "the old limits are gone, and no limits are" }
    );
    remove(&new)
}

fn exchange(a: &Path, b: &Path) -> rustix::io::Result<()> {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
}

/// Checks that the pins of `instance` can be removed.
///
/// # Errors
/// When the BPF file system is read-only, as for a unit with `ProtectKernelTunables=`.
pub fn check_writable(instance: &Instance) -> Result<()> {
    let pins = instance.pins();
    match access(&pins, Access::WRITE_OK) {
        Err(Errno::ROFS) => bail!(
            "{} is on a read-only file system, so nothing was changed: make it writable (`mount -o remount,rw \
             /sys/fs/bpf`; systemd: ReadWritePaths=/sys/fs/bpf), or unload from a place where it is",
            pins.display()
        ),
        looked => looked.with_context(|| format!("cannot write to {}", pins.display())),
    }
}

/// How far [`unload`] came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unloaded {
    /// Nowhere: the limits are in force.
    Nothing,
    /// Some of the limits may be in force.
    Part,
}

/// Lifts the limits of `instance` and removes its pins. They lose their name first, which changes nothing where they
/// cannot be removed.
///
/// # Errors
/// With how far it came; done again, it goes on from there.
pub fn unload(instance: &Instance) -> Result<(), (Unloaded, anyhow::Error)> {
    let pins = instance.pins();
    let rename = || -> Result<Option<PathBuf>> {
        if !is_there(&pins)? {
            return Ok(Some(instance.new_pins()).filter(|new| check_ours(new).is_ok()));
        }
        check_ours(&pins)?;
        // Left by a start, or by an unload that came no further.
        let new = clear_new(instance)?;
        fs::rename(&pins, &new).with_context(|| format!("cannot rename {}", pins.display()))?;
        Ok(Some(new))
    };
    let new = rename().map_err(|problem| (Unloaded::Nothing, problem))?;
    new.map_or(Ok(()), |new| remove(&new)).map_err(|problem| (Unloaded::Part, problem))
}

/// Removes the pins in `dir`, detaching its programs at once. What is not there is no error.
///
/// # Errors
/// When it cannot, or they are not root's.
pub fn remove(dir: &Path) -> Result<()> {
    if !is_there(dir)? {
        return Ok(());
    }
    check_ours(dir)?;
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    // Admission and gate first: while the ledger is attached alone it counts, and refuses nobody.
    paths.sort();
    for path in &paths {
        let is_link = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"link-"));
        if is_link {
            PinnedLink::open(path)?.detach()?;
        }
    }
    for path in &paths {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::remove_dir(dir).with_context(|| format!("cannot remove {}", dir.display()))
}
