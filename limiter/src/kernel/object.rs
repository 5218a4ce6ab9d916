// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel programs: loaded, attached or exchanged for those that are attached, and pinned.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd as _, AsRawFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, SkStorage, SockMap},
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, Iter, ProgramError,
        ProgramFd, SkLookup, SockOps, Xdp, links::FdLink,
    },
};
use limiter_common::{census::kind, room};
use tracing::warn;

use super::{
    btf::{self, Layout, RequestBits},
    census,
    environment::Cgroup,
    link::PinnedLink,
    listening::Listening,
    maintenance::Maintenance,
    memory,
    pins::{self, Found},
    privilege,
    release::Release,
    sets::{MAX_RULE_LIMITS, MAX_RULES},
    shield::Shield,
    sizes::Sizes,
    tables::Tables,
    waiting::{self, Waiters},
};
use crate::instance::Instance;

/// The kernel programs, embedded so that the binary needs no other file.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/limiter.bpf.o"));

/// What an instance protects.
pub struct Target {
    /// Sockets of this cgroup and below.
    pub cgroup: Cgroup,
    /// Cookie of the network namespace, which is also the one this process is in.
    pub netns: u64,
    /// How many sources the ledger can hold, if it is made anew; and as many connections, if that is more than
    /// [`MIN_OVERFLOW`](super::sizes::MIN_OVERFLOW).
    pub max_sources: u32,
    /// How many refused and banned sources are remembered, likewise.
    pub max_bans: u32,
}

/// Programs that are loaded and, with [`Loaded::attach`], in force.
pub struct Loaded {
    ebpf: Ebpf,
    /// The maps.
    pub tables: Tables,
    dir: PathBuf,
    is_takeover: bool,
    bits: RequestBits,
}

/// The daemon's hold on the programs in force.
pub struct Attached {
    /// Changes the ledger on the daemon's behalf.
    pub maintenance: Maintenance,
    /// How many connections were older than the limiter, and are counted now.
    pub adopted: u64,
    /// Those that wait.
    pub waiters: Waiters,
    /// The cgroup that is protected.
    pub cgroup: u64,
    /// Holds what is not pinned.
    _ebpf: Ebpf,
    /// Diagnostics of the programs.
    pub log: aya_log::EbpfLogger<&'static dyn tracing_log::log::Log>,
}

impl Target {
    /// How much room what is loaded for this target has, in words, if that is not what is wanted: maps cannot be made
    /// larger, so others have to take their place.
    pub fn outgrows(&self, tables: &Tables) -> Result<Option<String>> {
        if tables.protects()? != (self.netns, self.cgroup.id) {
            return Ok(None);
        }
        let loaded = [
            ("max_sources", tables.room()?.1, self.max_sources),
            ("max_bans", tables.max_bans()?, self.max_bans),
        ];
        let other = loaded.into_iter().find(|(_, is, wanted)| is != wanted);
        Ok(other.map(|(key, is, wanted)| format!("{key} was {is}, and is now {wanted}")))
    }

    /// Loads the programs of this build on the maps that `found` names, or on new ones.
    ///
    /// # Errors
    /// When the pins belong to another namespace or cgroup, or the kernel refuses a program.
    pub fn load(&self, instance: &Instance, found: &Found) -> Result<Loaded> {
        let is_takeover = if let Found::Current(tables) = found {
            let (netns, cgroup) = tables.protects()?;
            // A service that is started again has a new cgroup at the same path.
            let is_gone = cgroup != self.cgroup.id && pins::has_lost_its_cgroup(instance)?;
            ensure!(
                netns == self.netns && (cgroup == self.cgroup.id || is_gone),
                "instance {instance} is loaded for another {}: run `{limiter} unload` first, or choose another \
                 --instance",
                if netns == self.netns { "cgroup" } else { "network namespace" },
                limiter = instance.program()
            );
            true
        } else {
            let new = pins::clear_new(instance)?;
            let made = DirBuilder::new().mode(0o700).create(&new);
            made.with_context(|| format!("cannot create {}", new.display()))?;
            false
        };
        let dir = if is_takeover { instance.pins() } else { instance.new_pins() };
        let sizes = Sizes::of(self.max_sources, self.max_bans, &Release::running());
        let least = memory::least(sizes.bytes());
        if let Some(limit) = memory::limit().filter(|limit| limit.bytes < least) {
            warn!(
                "the memory limit of cgroup {} is {} MiB: below {} MiB the kernel may kill the daemon while it \
                 loads; raise the limit (MemoryMax= of the unit), or lower max_sources",
                limit.cgroup.display(),
                limit.mib(),
                least >> 20
            );
        }
        let layout = btf::layout()?;
        let ebpf = self.load_object(&dir, &layout, &sizes)?;
        let mut tables = Tables::open(&dir)?;
        if !is_takeover {
            tables.make_room(&room::rooms(self.max_sources, self.max_bans))?;
        }
        tables.count_keys(self.netns, self.cgroup.id)?;
        Ok(Loaded { ebpf, tables, dir, is_takeover, bits: layout.bits })
    }

    fn load_object(&self, dir: &Path, layout: &Layout, sizes: &Sizes) -> Result<Ebpf> {
        let looks_up_per_cpu = u32::from(layout.looks_up_per_cpu);
        let mut loader = EbpfLoader::new();
        loader
            // Nothing in the object is relocated by the kernel's types, and they would take 12 MiB.
            .btf(None)
            .override_global("OFFSETS", &layout.offsets, true)
            .override_global("LOOKS_UP_PER_CPU", &looks_up_per_cpu, true)
            .override_global("NETNS", &self.netns, true)
            .override_global("CGROUP", &self.cgroup.id, true)
            .map_max_entries("LEDGER", sizes.ledger)
            .map_max_entries("RINGS", sizes.rings)
            .map_max_entries("OVERFLOW", sizes.overflow)
            .map_max_entries("KEPT", sizes.kept)
            .map_max_entries("PENALTIES", sizes.penalties);
        for (name, entries) in [
            ("RULES_0", MAX_RULES),
            ("RULES_1", MAX_RULES),
            ("LIMITS_0", MAX_RULE_LIMITS),
            ("LIMITS_1", MAX_RULE_LIMITS),
        ] {
            loader.map_max_entries(name, entries);
        }
        for (name, pin) in pins::map_names() {
            loader.map_pin_path(name, dir.join(pin));
        }
        // The kernel's types have been read twice by now: what that took would be there beside the maps.
        memory::give_back();
        let mut ebpf = loader.load(OBJECT).map_err(|error| self.no_maps(&error.into()))?;
        drop(loader);
        // What it has taken would be there beside what the verifier takes.
        memory::give_back();
        for name in ["ledger", "ended", "replied", "rejudged"] {
            program::<SockOps>(&mut ebpf, name)?.load().map_err(|error| refused(name, error))?;
        }
        program::<CgroupSkb>(&mut ebpf, "gate")?.load().map_err(|error| refused("gate", error))?;
        program::<CgroupSock>(&mut ebpf, "release")?.load().map_err(|error| refused("release", error))?;
        program::<SkLookup>(&mut ebpf, "admission")?.load().map_err(|error| refused("admission", error))?;
        for name in ["hold", "again", "make_room", "newcomer", "fast_open", pins::MAINTENANCE, pins::USHER] {
            program::<CgroupSkb>(&mut ebpf, name)?.load().map_err(|error| refused(name, error))?;
        }
        waiting::set_stages(&mut ebpf)?;
        if let Err(error) = program::<Xdp>(&mut ebpf, pins::SHIELD)?.load() {
            warn!("{:#}; the other programs refuse denied and banned sources", refused(pins::SHIELD, error));
        }
        for (name, what) in [
            (pins::CENSUS, "connections older than the limiter are not counted, and counts are not checked"),
            (pins::PULSE, "a keepalive that is set later is for new connections only"),
        ] {
            let outcome = match &layout.no_census {
                Some(lack) => Err(anyhow!("{lack}")),
                None => load_iterator(&mut ebpf, name, layout),
            };
            if let Err(problem) = outcome {
                warn!("{problem:#}; {what}");
            }
        }
        if let Err(error) = load_destroy(&mut ebpf, layout) {
            warn!("{error:#}; connections that die in the queue of a listener stay counted after it closes");
        }
        memory::give_back();
        Ok(ebpf)
    }
}

impl Target {
    /// Why there are no maps: a limit of memory is not one of sources.
    fn no_maps(&self, error: &anyhow::Error) -> anyhow::Error {
        let is_memory = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(libc::ENOMEM))
        };
        if !error.chain().any(is_memory) {
            return privilege::explain(error, "the maps of the limiter");
        }
        let limit = memory::limit().map_or_else(String::new, |limit| {
            format!(", and the memory limit of cgroup {} is {} MiB", limit.cgroup.display(), limit.mib())
        });
        anyhow!(
            "not enough memory for the kernel maps ({error:#}){limit}: raise the memory limit (MemoryMax= of \
             the unit), or lower max_sources, which is {}, or max_bans, which is {}",
            self.max_sources,
            self.max_bans
        )
    }
}

impl Loaded {
    /// Makes `listener` the greeter: refused handshakes go to it from now on, and what it accepts is
    /// not counted.
    pub fn set_greeter(&mut self, listener: &impl AsRawFd) -> Result<()> {
        let sockets = self
            .ebpf
            .map_mut("GREETER_SOCKETS")
            .ok_or_else(|| anyhow!("the object has no map GREETER_SOCKETS"))?;
        let mut sockets: SkStorage<&mut MapData, u32> = sockets.try_into()?;
        sockets.insert(listener, 1, 0).context("cannot mark the greeter's listener")?;
        let greeter = self.ebpf.map_mut("GREETER").ok_or_else(|| anyhow!("the object has no map GREETER"))?;
        let mut greeter: SockMap<&mut MapData> = greeter.try_into()?;
        greeter.set(0, listener, 0).context("cannot pass the greeter's listener to the kernel")
    }

    /// Puts the programs in force: in the place of those that are attached, or attached and pinned
    /// under the instance's name. There is no moment in which nothing is enforced. The shield is left to
    /// who knows the network devices.
    pub fn attach(mut self, target: &Target, instance: &Instance) -> Result<(Attached, Shield)> {
        self.pin_helpers()?;
        let shield = self.pin_shield()?;
        let mut adopted = 0;
        // The ledger first, so that nothing is admitted uncounted.
        for name in pins::LINKS {
            if name == "gate" {
                adopted = self.adopt()?;
            }
            let pin = pins::link_path(&self.dir, name);
            let present = if self.is_takeover && pin.exists() { Some(PinnedLink::open(&pin)?) } else { None };
            if let Some(link) = &present
                && link.is_attached()?
            {
                let fd = self
                    .ebpf
                    .program(name)
                    .ok_or_else(|| anyhow!("the object has no program {name}"))?
                    .fd()?;
                link.replace_program(fd.as_fd())?;
            } else {
                // Someone has detached it. It cannot be attached again, but another can.
                if present.is_some() {
                    fs::remove_file(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
                }
                self.link(name, target)?
                    .pin(&pin)
                    .with_context(|| format!("cannot pin {}", pin.display()))?;
            }
        }
        if !self.is_takeover {
            pins::put_in_place(instance)?;
        }
        let log = aya_log::EbpfLogger::init(&mut self.ebpf)
            .context("cannot read the log of the kernel programs")?;
        let maintenance = Maintenance::open(instance, &instance.pins())?;
        let waiters = Waiters::take(&mut self.ebpf, instance, self.bits)?;
        let shield = Shield::open(instance.pins(), shield)?;
        let cgroup = target.cgroup.id;
        Ok((Attached { maintenance, adopted, waiters, cgroup, log, _ebpf: self.ebpf }, shield))
    }

    /// Pins the shield's program; returns it with its id, if this kernel has accepted it.
    fn pin_shield(&mut self) -> Result<Option<(ProgramFd, u32)>> {
        let shield = program::<Xdp>(&mut self.ebpf, pins::SHIELD)?;
        let Ok(fd) = shield.fd().and_then(|fd| Ok(fd.try_clone()?)) else { return Ok(None) };
        let id = shield.info()?.id();
        let pin = Replacement::new(&self.dir, pins::SHIELD);
        shield.pin(&pin.new).context("cannot pin the shield")?;
        pin.put()?;
        Ok(Some((fd, id)))
    }

    /// Pins what is attached nowhere, in the place of what was pinned before.
    fn pin_helpers(&mut self) -> Result<()> {
        for name in [pins::MAINTENANCE, pins::USHER] {
            let pin = Replacement::new(&self.dir, name);
            program::<CgroupSkb>(&mut self.ebpf, name)?
                .pin(&pin.new)
                .with_context(|| format!("cannot pin the {name}"))?;
            pin.put()?;
        }
        self.attach_destroy()?;
        for name in [pins::CENSUS, pins::PULSE] {
            let iterator = program::<Iter>(&mut self.ebpf, name)?;
            if iterator.fd().is_err() {
                // Refused by this kernel, as was said when it was loaded.
                continue;
            }
            let id = iterator.attach()?;
            let pin = Replacement::new(&self.dir, name);
            FdLink::try_from(iterator.take_link(id)?)?
                .pin(&pin.new)
                .with_context(|| format!("cannot pin the {name}"))?;
            pin.put()?;
        }
        Ok(())
    }

    /// Attaches what sees sockets destroyed, for as long as it is pinned. The kernel cannot exchange the program of a
    /// tracepoint's link, so for a moment there are two: what one of them takes, the other does not find.
    fn attach_destroy(&mut self) -> Result<()> {
        let destroy = program::<BtfTracePoint>(&mut self.ebpf, pins::DESTROY)?;
        if destroy.fd().is_err() {
            // Refused by this kernel, as was said when it was loaded.
            return Ok(());
        }
        let id = destroy.attach()?;
        let pin = Replacement::new(&self.dir, pins::DESTROY);
        FdLink::from(destroy.take_link(id)?).pin(&pin.new).context("cannot pin the program destroy")?;
        pin.put()
    }

    /// Counts the connections that nobody has counted yet; returns how many. From when the ledger is
    /// attached, none can be missed; before gate and admission are, nobody is judged by less.
    fn adopt(&self) -> Result<u64> {
        if let Err(problem) = Listening::open(&self.dir)?.adopt() {
            warn!(
                "{problem:#}; clients of listeners older than the limiter are refused only after their handshake"
            );
        }
        let before = self.tables.adopted()?;
        let Some(records) = census::take(&self.dir, &self.tables)? else { return Ok(0) };
        let uncounted = records.iter().filter(|record| record.kind == kind::UNCOUNTED).count();
        if uncounted > 0 {
            warn!(
                "cannot count {uncounted} connections older than the limiter: memory for the ledger is short"
            );
        }
        Ok(self.tables.adopted()? - before)
    }

    fn link(&mut self, name: &str, target: &Target) -> Result<FdLink> {
        let cgroup = target.cgroup.dir.as_fd();
        // In single mode links are allowed as many as there are (aya: any other mode answers EINVAL).
        let mode = CgroupAttachMode::Single;
        let link = match name {
            "ledger" => {
                let program: &mut SockOps = program(&mut self.ebpf, name)?;
                let id = program.attach(cgroup, mode)?;
                program.take_link(id)?.try_into()?
            }
            "release" => {
                let program: &mut CgroupSock = program(&mut self.ebpf, name)?;
                let id = program.attach(cgroup, mode)?;
                program.take_link(id)?.try_into()?
            }
            "gate" => {
                let program: &mut CgroupSkb = program(&mut self.ebpf, name)?;
                let id = program.attach(cgroup, CgroupSkbAttachType::Ingress, mode)?;
                program.take_link(id)?.try_into()?
            }
            _ => {
                let netns = fs::File::open("/proc/thread-self/ns/net")
                    .context("cannot open the network namespace")?;
                let program: &mut SkLookup = program(&mut self.ebpf, name)?;
                let id = program.attach(netns)?;
                program.take_link(id)?.into()
            }
        };
        Ok(link)
    }
}

/// A pin that takes the place of another in one step.
struct Replacement {
    path: PathBuf,
    new: PathBuf,
}

impl Replacement {
    fn new(dir: &Path, name: &str) -> Self {
        let new = dir.join(format!("{name}+new"));
        // Left by a daemon that was killed just here, if it is there at all.
        let _not_there = fs::remove_file(&new);
        Self { path: dir.join(name), new }
    }

    fn put(self) -> Result<()> {
        fs::rename(&self.new, &self.path).with_context(|| format!("cannot rename {}", self.new.display()))
    }
}

/// A program of the object, by name.
pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| anyhow!("the object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn load_iterator(ebpf: &mut Ebpf, name: &str, layout: &Layout) -> Result<()> {
    let types = layout.iterator()?;
    program::<Iter>(ebpf, name)?.load("tcp", &types).map_err(|error| refused(name, error))
}

fn load_destroy(ebpf: &mut Ebpf, layout: &Layout) -> Result<()> {
    let types = layout.tracepoint()?;
    let destroy = program::<BtfTracePoint>(ebpf, pins::DESTROY)?;
    destroy.load("tcp_destroy_sock", &types).map_err(|error| refused(pins::DESTROY, error))
}

/// One sentence for people; the verifier's log goes to the debug log.
fn refused(name: &str, error: ProgramError) -> anyhow::Error {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        tracing::debug!("verifier log of {name}:\n{verifier_log}");
        privilege::explain_program(&io_error.into(), name, &verifier_log.to_string())
    } else {
        anyhow::Error::new(error).context(format!("cannot load the program {name}"))
    }
}
