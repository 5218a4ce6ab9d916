// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The pinned maps, typed.

use std::{
    collections::{HashMap as StdHashMap, HashSet},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use limiter_common::{
    Count, Counters, DatedRecord, DropCache, Entry, Kept, Key, Penalty, Pending, Room, ServiceId, Slot,
    Total, Waiter, maintenance::MaintenanceRequest, room::rooms, waiting::Flow,
};

use super::{
    map::{found, open},
    sets::Sets,
    walk::{walk, walk_by_key},
};

/// Index in the `LAYOUT` map: the layout's version.
const VERSION: u32 = 0;
/// The network namespace that is protected.
const NETNS: u32 = 2;
/// The cgroup that is protected.
const CGROUP: u32 = 3;

/// Everything of an instance that is read or changed from user space.
pub struct Tables {
    layout: Array<MapData, u64>,
    heartbeat: Array<MapData, u64>,
    /// Ports, services and rules.
    pub policy: Sets,
    ledger: HashMap<MapData, Key, Entry>,
    /// The same map, for [`walk`].
    whole_ledger: MapData,
    /// The ladder's map, likewise.
    whole_penalties: MapData,
    penalties: Penalties,
    drop_cache: PerCpuArray<MapData, DropCache>,
    /// The records of connections, for [`walk_by_key`].
    slots: MapData,
    /// The same of those whose slot is taken, for [`walk`].
    overflow: MapData,
    /// What is kept for sockets that report nothing, likewise.
    kept: MapData,
    /// Handshakes that were held back, likewise.
    waiters: MapData,
    rooms: Array<MapData, Room>,
    totals: Array<MapData, Total>,
    counters: PerCpuArray<MapData, Counters>,
    pending: PerCpuArray<MapData, Pending>,
    request: Array<MapData, MaintenanceRequest>,
}

/// Where each source stands on the ladder that was refused lately.
pub struct Penalties {
    map: HashMap<MapData, Key, Penalty>,
    /// What was where something was changed, to be put back if the change fails.
    before: Vec<(Key, Option<Penalty>)>,
}

impl Penalties {
    /// Puts a source where it stands.
    pub fn set(&mut self, key: &Key, penalty: &Penalty) -> Result<()> {
        self.remember(key)?;
        self.map.insert(key, penalty, 0).context("cannot write a ban")
    }

    /// Forgets where a source stands, if anywhere.
    pub fn remove(&mut self, key: &Key) -> Result<()> {
        self.remember(key)?;
        found(self.map.remove(key)).map(drop).context("cannot remove a penalty")
    }

    fn remember(&mut self, key: &Key) -> Result<()> {
        self.before.push((*key, self.get(key)?));
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Option<Penalty>> {
        found(self.map.get(key, 0)).context("cannot read the bans")
    }

    /// Takes back what was changed, the last change first.
    fn take_back(&mut self) -> Result<()> {
        while let Some((key, before)) = self.before.pop() {
            match before {
                Some(penalty) => self.map.insert(key, penalty, 0),
                None => found(self.map.remove(&key)).map(drop),
            }
            .context("cannot restore the bans")?;
        }
        Ok(())
    }
}

/// Drops by source and the beginning of its ban.
pub struct UncountedDrops(StdHashMap<(Key, u64), u64>);

impl UncountedDrops {
    /// Those of the ban of a source.
    pub fn of(&self, key: &Key, penalty: &Penalty) -> u64 {
        self.0.get(&(*key, penalty.banned_at_ns)).copied().unwrap_or_default()
    }
}

/// The layout version of a pinned `LAYOUT` map.
pub(super) fn version(layout: MapData) -> Result<u64> {
    Ok(Array::<_, u64>::try_from(Map::Array(layout))?.get(&VERSION, 0)?)
}

impl Tables {
    /// Opens the maps pinned in `dir`, which must be of this build's layout.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            layout: Map::Array(open(dir, "LAYOUT")?).try_into()?,
            heartbeat: Map::Array(open(dir, "HEARTBEAT")?).try_into()?,
            policy: Sets::open(dir)?,
            ledger: Map::HashMap(open(dir, "LEDGER")?).try_into()?,
            whole_ledger: open(dir, "LEDGER")?,
            whole_penalties: open(dir, "PENALTIES")?,
            penalties: Penalties {
                map: Map::HashMap(open(dir, "PENALTIES")?).try_into()?,
                before: Vec::new(),
            },
            drop_cache: Map::PerCpuArray(open(dir, "DROP_CACHE")?).try_into()?,
            slots: open(dir, "SLOTS")?,
            overflow: open(dir, "OVERFLOW")?,
            kept: open(dir, "KEPT")?,
            waiters: open(dir, "WAITERS")?,
            rooms: Map::Array(open(dir, "ROOMS")?).try_into()?,
            totals: Map::Array(open(dir, "TOTALS")?).try_into()?,
            counters: Map::PerCpuArray(open(dir, "COUNTERS")?).try_into()?,
            pending: Map::PerCpuArray(open(dir, "PENDING")?).try_into()?,
            request: Map::Array(open(dir, "MAINTENANCE")?).try_into()?,
        })
    }

    /// Says how much room there is, before anything is in it.
    pub(super) fn make_room(&mut self, rooms: &[Room]) -> Result<()> {
        (0..).zip(rooms).try_for_each(|(index, room)| Ok(self.rooms.set(index, room, 0)?))
    }

    /// Whether there is no room for the entry of a new source, at `now_s` of `CLOCK_MONOTONIC`.
    pub fn is_full(&self, now_s: u32) -> Result<bool> {
        Ok(self.rooms.get(&rooms::SOURCES, 0)?.is_full(now_s.into()))
    }

    /// How many entries are shared by sources that have none of their own.
    pub fn shared(&self) -> Result<u64> {
        let rooms = rooms::SHARED..rooms::PENALTIES;
        rooms.map(|index| Ok(self.rooms.get(&index, 0)?.taken)).sum()
    }

    /// How many sources and networks the ledger has, and how many it can hold.
    pub fn room(&self) -> Result<(u64, u32)> {
        let room = self.rooms.get(&rooms::SOURCES, 0)?;
        Ok((room.taken, room.most))
    }

    /// Marks the maps as being of this build's layout, and says what they protect.
    pub fn count_keys(&mut self, netns: u64, cgroup: u64) -> Result<()> {
        self.layout.set(NETNS, netns, 0)?;
        self.layout.set(CGROUP, cgroup, 0)?;
        self.layout.set(VERSION, limiter_common::LAYOUT_VERSION, 0)?;
        Ok(())
    }

    /// Network namespace cookie and cgroup id of what is protected.
    pub fn protects(&self) -> Result<(u64, u64)> {
        Ok((self.layout.get(&NETNS, 0)?, self.layout.get(&CGROUP, 0)?))
    }

    /// Says that the daemon counts as one that answers until `until_ns` of `CLOCK_MONOTONIC`.
    pub fn beat(&mut self, until_ns: u64) -> Result<()> {
        self.heartbeat.set(0, until_ns, 0).context("cannot tell the kernel programs that the daemon runs")
    }

    /// Whether it does, at `now_ns`.
    pub fn daemon_answers(&self, now_ns: u64) -> Result<bool> {
        Ok(self.heartbeat.get(&0, 0)? > now_ns)
    }

    /// The reservation pending on each CPU.
    pub fn pending(&self) -> Result<Vec<Pending>> {
        Ok(self.pending.get(&0, 0)?.iter().copied().collect())
    }

    /// What is known of each source. Entries that come and go meanwhile may be missed.
    pub fn sources(&self) -> Result<Vec<(Key, Entry)>> {
        let mut sources = Vec::new();
        self.each_source(|key, entry| sources.push((key, entry)))?;
        Ok(sources)
    }

    /// The same, one after the other: there may be millions.
    pub fn each_source(&self, see: impl FnMut(Key, Entry)) -> Result<()> {
        walk(&self.whole_ledger, see).context("cannot read the ledger")
    }

    /// What is known of one source.
    pub fn source(&self, key: &Key) -> Result<Option<Entry>> {
        found(self.ledger.get(key, 0)).context("cannot read the ledger")
    }

    /// Where one source stands on the ladder, if it was refused lately.
    pub fn penalty(&self, key: &Key) -> Result<Option<Penalty>> {
        self.penalties.get(key)
    }

    /// Everyone who was refused lately, or is banned.
    pub fn penalties(&self) -> Result<Vec<(Key, Penalty)>> {
        let mut penalties = Vec::new();
        walk(&self.whole_penalties, |key, penalty| penalties.push((key, penalty)))
            .context("cannot read the bans")?;
        Ok(penalties)
    }

    /// How many bans there can be, and how many sources that were refused lately beside them.
    pub fn max_bans(&self) -> Result<u32> {
        Ok(self.rooms.get(&rooms::PENALTIES, 0)?.most / 2)
    }

    /// Changes where sources stand on the ladder, as a whole or not at all. When this returns, no verdict rests on
    /// what was before.
    pub fn change_penalties<T>(&mut self, change: impl FnOnce(&mut Penalties) -> Result<T>) -> Result<T> {
        self.policy.prepare_to_tell()?;
        self.penalties.before.clear();
        let outcome = change(&mut self.penalties).and_then(|outcome| {
            self.policy.tell_of_change()?;
            Ok(outcome)
        });
        outcome.or_else(|problem| {
            self.penalties
                .take_back()
                .with_context(|| format!("only a part was done ({problem:#}): repeat the command"))?;
            let _ = self.policy.tell_of_change();
            Err(problem)
        })
    }

    /// Packets of banned sources that were dropped, and are not counted in [`Penalty::dropped`] yet.
    pub fn uncounted_drops(&self) -> Result<UncountedDrops> {
        let services: StdHashMap<_, _> = self.policy.services()?.into_iter().collect();
        let mut drops = StdHashMap::new();
        for cache in self.drop_cache.get(&0, 0)?.iter() {
            for cached in cache.0.iter().filter(|cached| cached.uncounted != 0 && cached.banned_at_ns != 0) {
                let id = ServiceId(cached.service);
                let Some(policy) = services.get(&id) else { continue };
                let ban = (self.policy.source(id, policy, &cached.remote())?, cached.banned_at_ns);
                *drops.entry(ban).or_default() += u64::from(cached.uncounted);
            }
        }
        Ok(UncountedDrops(drops))
    }

    /// The cookies of the sockets that have a record. Those that come and go meanwhile may be missed.
    pub fn recorded(&self) -> Result<HashSet<u64>> {
        let mut cookies = HashSet::new();
        self.each_record(|cookie, _| {
            cookies.insert(cookie);
        })?;
        Ok(cookies)
    }

    /// The records of connections, by their sockets' cookies. Those that come and go meanwhile may be missed.
    pub fn records(&self) -> Result<StdHashMap<u64, DatedRecord>> {
        let mut records = StdHashMap::new();
        self.each_record(|cookie, record| {
            records.insert(cookie, record);
        })?;
        Ok(records)
    }

    fn each_record(&self, mut see: impl FnMut(u64, DatedRecord)) -> Result<()> {
        walk_by_key(&self.slots, |_: u32, slot: Slot| {
            if slot.cookie != 0 {
                see(slot.cookie, slot.dated());
            }
        })
        .and_then(|()| walk(&self.overflow, &mut see))
        .context("cannot read the records of connections")
    }

    /// What is kept for sockets that report nothing, by their cookies. What comes and goes meanwhile may be missed.
    pub fn kept(&self) -> Result<Vec<(u64, Kept)>> {
        let mut kept = Vec::new();
        walk(&self.kept, |cookie, one| kept.push((cookie, one)))
            .context("cannot read the dead connections")?;
        Ok(kept)
    }

    /// The handshakes that were held back. Those that come and go meanwhile may be missed.
    pub fn waiters(&self) -> Result<Vec<(Flow, Waiter)>> {
        let mut waiters = Vec::new();
        walk(&self.waiters, |flow, waiter| waiters.push((flow, waiter))).context(
            "cannot read the waiting \
                                                                                  handshakes",
        )?;
        Ok(waiters)
    }

    /// The live count of a service as a whole.
    pub fn total(&self, id: ServiceId) -> Result<Count> {
        Ok(self.totals.get(&u32::from(id.0), 0)?.count)
    }

    /// Of a whole service's connections, those that were let through where refusals are only counted.
    pub fn total_beyond(&self, id: ServiceId) -> Result<u32> {
        Ok(self.totals.get(&u32::from(id.0), 0)?.beyond)
    }

    /// The counters of a service, summed over CPUs.
    pub fn counters(&self, id: ServiceId) -> Result<Counters> {
        let cpus = self.counters.get(&u32::from(id.0), 0)?;
        Ok(Counters::sum(cpus.iter()))
    }

    /// Connections that the census has counted so far, at all services.
    pub fn adopted(&self) -> Result<u64> {
        self.policy.services()?.into_iter().map(|(id, _)| Ok(self.counters(id)?.adopted)).sum()
    }

    /// Hands the maintenance program a request.
    pub(super) fn set_maintenance_request(&mut self, request: &MaintenanceRequest) -> Result<()> {
        Ok(self.request.set(0, request, 0)?)
    }

    /// What became of it.
    pub(super) fn maintenance_request(&self) -> Result<MaintenanceRequest> {
        Ok(self.request.get(&0, 0)?)
    }
}
