// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The pinned maps, read and changed behind the limiter's back.
#![expect(clippy::expect_used, reason = "the test fails, and says where")]

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use limiter_common::{
    Addr, Cause, Count, DatedRecord, Entry, Kept, Key, MAX_SERVICES, Penalty, Pending, ServiceId,
    ServicePolicy, Slot, Waiter, service::Prefixes, slot::SLOTS, waiting::Flow,
};

use crate::Limiter;

/// The ledger of an instance.
pub struct Ledger(HashMap<MapData, Key, Entry>);

impl Ledger {
    /// Of this instance.
    pub fn open(limiter: &Limiter) -> Self {
        let map = MapData::from_pin(limiter.pins().join("LEDGER")).expect("the ledger is pinned");
        Self(HashMap::try_from(Map::HashMap(map)).expect("it is a hash map"))
    }

    /// The only entry of `source`.
    fn entry(&self, source: IpAddr) -> (Key, Entry) {
        let source = Addr::from(source);
        let mut of_source =
            self.0.iter().map(Result::unwrap).filter(|(key, _)| source.cut(key.prefix) == key.addr);
        let found = of_source.next().expect("the source is known");
        assert!(of_source.next().is_none(), "the source is known once");
        found
    }

    /// When `source` is due, in nanoseconds of `CLOCK_BOOTTIME`.
    pub fn due_ns(&self, source: IpAddr) -> u64 {
        self.entry(source).1.due_ns
    }

    /// Makes the only entry of `source` hold so many connections, in one write that nobody may disturb.
    pub fn set_connections(&mut self, source: IpAddr, connections: u32) {
        self.set_count(source, Count(u64::from(connections)));
    }

    /// The same for the count as a whole.
    pub fn set_count(&mut self, source: IpAddr, count: Count) {
        let (key, entry) = self.entry(source);
        self.0.insert(key, Entry { count, ..entry }, 0).expect("the entry is there");
    }
}

/// What each CPU has reserved for the packet it handles.
pub struct Slots(PerCpuArray<MapData, Pending>);

impl Slots {
    /// Of this instance.
    pub fn open(limiter: &Limiter) -> Self {
        let map = MapData::from_pin(limiter.pins().join("PENDING")).expect("the slots are pinned");
        Self(PerCpuArray::try_from(Map::PerCpuArray(map)).expect("it is an array with a slot for each CPU"))
    }

    /// The generation of each CPU; 0 where nothing is reserved.
    pub fn generations(&self) -> Vec<u64> {
        self.0.get(&0, 0).expect("the slots").iter().map(|slot| slot.generation).collect()
    }

    /// Moves what is reserved on any CPU to `cpu`, as if its packet had come there. No packet may come meanwhile.
    pub fn move_to(&mut self, cpu: usize) {
        let mut slots: Vec<Pending> = self.0.get(&0, 0).expect("the slots").iter().copied().collect();
        let from = slots.iter().position(|slot| slot.generation != 0).expect("something is reserved");
        slots.swap(from, cpu);
        let slots = PerCpuValues::try_from(slots).expect("one for each CPU");
        self.0.set(0, slots, 0).expect("root may write");
    }
}

/// What is expected of the records.
const SLOT_EACH: &str = "there is a slot for every cookie";

/// The records of connections: in slots, and beside those that are taken; and what is kept of dead ones.
pub struct Records {
    slots: Array<MapData, Slot>,
    crowded: Array<MapData, u32>,
    overflow: HashMap<MapData, u64, DatedRecord>,
    kept: HashMap<MapData, u64, Kept>,
}

impl Records {
    /// Of this instance.
    pub fn open(limiter: &Limiter) -> Self {
        let map = |name| MapData::from_pin(limiter.pins().join(name)).expect("the records are pinned");
        Self {
            slots: Array::try_from(Map::Array(map("SLOTS"))).expect("it is an array"),
            crowded: Array::try_from(Map::Array(map("CROWDED"))).expect("it is an array"),
            overflow: HashMap::try_from(Map::HashMap(map("OVERFLOW"))).expect("it is a hash map"),
            kept: HashMap::try_from(Map::HashMap(map("KEPT"))).expect("it is a hash map"),
        }
    }

    /// How many connections have a record, in slots and beside them.
    pub fn len(&self) -> (usize, usize) {
        let slots: Vec<Slot> = self.slots.iter().map(Result::unwrap).collect();
        let beside = self.overflow.keys().count() + self.kept.keys().count();
        let crowded: u32 = self.crowded.iter().map(Result::unwrap).sum();
        assert_eq!(crowded as usize, beside, "the slots know who is beside them");
        (slots.iter().filter(|slot| slot.cookie != 0).count(), beside)
    }

    /// Makes the record of a connection that is in no table; `false` if there is no room.
    pub fn insert(&mut self, cookie: u64) -> bool {
        let index = Slot::of(cookie);
        let mut slot = self.slots.get(&index, 0).expect(SLOT_EACH);
        if slot.cookie == 0 {
            slot.cookie = cookie;
            self.slots.set(index, slot, 0).expect(SLOT_EACH);
        } else if self.overflow.insert(cookie, DatedRecord::default(), 0).is_ok() {
            let crowded = self.crowded.get(&index, 0).expect(SLOT_EACH);
            self.crowded.set(index, crowded + 1, 0).expect(SLOT_EACH);
        } else {
            return false;
        }
        true
    }

    /// The same until every slot is taken.
    pub fn crowd(&mut self) {
        for cookie in (0..=u64::MAX).rev().take(SLOTS as usize) {
            assert!(self.insert(cookie), "there is room");
        }
    }

    /// The same until there is no more room.
    pub fn fill(&mut self) {
        let filled = (0..=u64::MAX).rev().take_while(|&cookie| self.insert(cookie)).count();
        assert!(filled > SLOTS as usize, "there was room");
    }
}

/// Makes the records of those that wait older.
pub fn age_waiters(limiter: &Limiter, by: Duration) {
    let map = MapData::from_pin(limiter.pins().join("WAITERS")).expect("the records are pinned");
    let mut records: HashMap<_, Flow, Waiter> = Map::HashMap(map).try_into().expect("it is a hash map");
    let all: Vec<_> = records.iter().map(Result::unwrap).collect();
    for (flow, waiter) in all {
        let since_ns = waiter.since_ns.saturating_sub(by.as_nanos() as u64);
        records.insert(flow, Waiter { since_ns, ..waiter }, 0).expect("it is there");
    }
}

/// Where sources stand on the ladder, changed behind the limiter's back.
pub struct Penalties(pub HashMap<MapData, Key, Penalty>, pub ServiceId);

impl Penalties {
    /// Of this instance.
    pub fn open(limiter: &Limiter) -> Self {
        let map = MapData::from_pin(limiter.pins().join("PENALTIES")).expect("the ladder is pinned");
        let services = limiter.json(&["status"])["services"].as_array().expect("services").len();
        let policies = MapData::from_pin(limiter.pins().join("SERVICES")).expect("the services are pinned");
        let policies: Array<_, ServicePolicy> = Map::Array(policies).try_into().expect("it is an array");
        let is_smtp = |id: &u8| {
            (0..2).any(|set| {
                policies
                    .get(&(set * MAX_SERVICES + u32::from(*id)), 0)
                    .is_ok_and(|policy| policy.name() == "smtp")
            })
        };
        let smtp = (1..=services as u8).find(is_smtp).expect("there is smtp");
        Self(HashMap::try_from(Map::HashMap(map)).expect("it is a hash map"), ServiceId(smtp))
    }

    /// Has all bans end now.
    pub fn end_bans(&mut self) {
        let penalties: Vec<_> = self.0.iter().map(Result::unwrap).collect();
        for (key, penalty) in penalties {
            self.0.insert(key, Penalty { banned_until_ns: now_ns(), ..penalty }, 0).expect("it is there");
        }
    }

    /// Bans sources from smtp for an hour because of `cause`, the `nth` of them as if `nth` nanoseconds after the host started.
    pub fn ban(&mut self, cause: Cause, nths: Range<u32>, address: impl Fn(u32) -> IpAddr) {
        let smtp = ServicePolicy { source: Prefixes { ipv4: 32, ipv6: 64 }, ..ServicePolicy::default() };
        let banned_until_ns = now_ns() + 3_600_000_000_000;
        for nth in nths {
            let key = Key::source(self.1, &smtp, 0, &Addr::from(address(nth)));
            let banned_at_ns = u64::from(nth) + 1;
            let penalty =
                Penalty { banned_at_ns, banned_until_ns, cause: cause as u32, ..Penalty::default() };
            self.0.insert(key, penalty, 0).expect("there is room");
        }
    }
}

/// Everything of an instance in the kernel, gone as when the host starts again.
pub fn forget_everything(limiter: &Limiter) {
    let pins = std::fs::read_dir(limiter.pins()).expect("it is loaded");
    for pin in pins {
        std::fs::remove_file(pin.expect("a pin").path()).expect("it can be removed");
    }
    std::fs::remove_dir(limiter.pins()).expect("it is empty");
}

/// Nanoseconds of `CLOCK_BOOTTIME`.
pub fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("a clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
