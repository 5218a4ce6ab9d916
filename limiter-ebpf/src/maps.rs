// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Every map, and how it is read. Names here are the names of the pins.

use core::{cell::UnsafeCell, ptr::null_mut};

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE},
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf, SockMap, lpm_trie},
    cty::c_void,
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use limiter_common::{
    Action, Addr, CachedDrop, CountKeys, Counters, DatedRecord, DropCache, Entry, Kept, Key, Ladder, Limits,
    MAX_SERVICES, PORT_WORDS, Penalty, Pending, Reason, Room, Rule, RuleMatch, SCOPES, SETS, Scope,
    ServiceId, ServicePolicy, Slot, Syn, Total, coverage,
    grounds::{self, Refused},
    listening::{Endpoint, MAX_ENDPOINTS},
    maintenance::MaintenanceRequest,
    room,
    rule::{self, RuleLimits, RuleService},
    slot,
    waiting::{Event, Flow, MAX_WAITERS, UsherRequest, Waiter},
};

use crate::map_ref::{Find as _, MapRef, field};

/// Which layout these maps have (`limiter_common::LAYOUT_VERSION`), for each set the fingerprint of the
/// configuration it was made of, the network namespace and the cgroup protected. The kernel reads none.
#[btf_map]
pub static LAYOUT: Array<u64, 5> = Array::new();

/// Which set of ports, services and rules is in force, 0 or 1, and whether it has [`SCOPES`].
#[btf_map]
pub static ACTIVE: Array<u64, 1> = Array::new();

/// Which change made by hand was the last: of the policy, or of who is banned. A map's only value, so that it is read
/// without a look-up.
#[unsafe(link_section = ".bss.change")]
#[unsafe(no_mangle)]
static CHANGE: Change = Change(UnsafeCell::new(0));

/// Until when a daemon serves those that wait, in nanoseconds of `CLOCK_MONOTONIC`. It puts this off for as long
/// as it lives.
#[unsafe(link_section = ".bss.attended")]
#[unsafe(no_mangle)]
static ATTENDED: Change = Change(UnsafeCell::new(0));

/// Until when the daemon counts as one that answers, in nanoseconds of `CLOCK_MONOTONIC`. It puts this off for as long
/// as it runs.
#[unsafe(link_section = ".bss.heartbeat")]
#[unsafe(no_mangle)]
static HEARTBEAT: Change = Change(UnsafeCell::new(0));

/// Written by user space alone.
#[repr(transparent)]
struct Change(UnsafeCell<u64>);

// SAFETY: it is only read here, by one instruction.
unsafe impl Sync for Change {}

/// Port to service, eight ports a word, one set after the other.
#[btf_map]
pub static PORTS: Array<u64, { (SETS * PORT_WORDS) as usize }> = Array::new();

/// Service to policy, one set after the other.
#[btf_map]
pub static SERVICES: Array<ServicePolicy, { (SETS * MAX_SERVICES) as usize }> = Array::new();

/// What the first set says of networks. The loader sets the number of entries of all four.
#[btf_map]
pub static RULES_0: LpmTrie<Addr, Rule, 1> = LpmTrie::new();

/// What the second set says of networks.
#[btf_map]
pub static RULES_1: LpmTrie<Addr, Rule, 1> = LpmTrie::new();

/// Where each set has rules ([`coverage`]), one set after the other.
#[btf_map]
pub static COVERAGE: Array<u64, { (SETS * coverage::WORDS) as usize }> = Array::new();

/// Limits of the first set's rules: for single services, and all but a number of connections for others.
#[btf_map]
pub static LIMITS_0: HashMap<RuleService, RuleLimits, 1, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Limits of the second set's rules.
#[btf_map]
pub static LIMITS_1: HashMap<RuleService, RuleLimits, 1, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// What every source may make of refusals, as each set says.
#[btf_map]
pub static LADDERS: Array<Ladder, { SETS as usize }> = Array::new();

/// Who was refused lately, and who is banned. The loader sets the number of entries.
#[btf_map]
pub static PENALTIES: HashMap<Key, Penalty, 1, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The live counts. Not preallocated: a host with few sources pays for few. The loader sets the
/// number of entries.
#[btf_map]
pub static LEDGER: HashMap<Key, Entry, 1, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// How much room there is in the ledger and for penalties, and which ring belongs to it.
#[btf_map]
pub static ROOMS: Array<Room, { room::rooms::ROOMS as usize }> = Array::new();

/// The rings of all rooms, one after the other. The loader sets the number of entries.
#[btf_map]
pub static RINGS: Array<Key, 1> = Array::new();

/// The live count of each service as a whole.
#[btf_map]
pub static TOTALS: Array<Total, { MAX_SERVICES as usize }> = Array::new();

/// The reservation of the packet each CPU is handling.
#[btf_map]
pub static PENDING: PerCpuArray<Pending, 1> = PerCpuArray::new();

/// The drops that each CPU remembers.
#[btf_map]
pub static DROP_CACHE: PerCpuArray<DropCache, 1> = PerCpuArray::new();

/// Counters by service.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, { MAX_SERVICES as usize }> = PerCpuArray::new();

/// The greeter's listener.
#[btf_map]
pub static GREETER: SockMap<1> = SockMap::new();

/// The request the maintenance program runs.
#[btf_map]
pub static MAINTENANCE: Array<MaintenanceRequest, 1> = Array::new();

/// The record of each connection, by [`Slot::of`] its socket's cookie.
#[btf_map]
pub static SLOTS: Array<Slot, { slot::SLOTS as usize }> = Array::new();

/// The same by the cookie, for connections that find their slot taken. The loader sets the number of entries.
#[btf_map]
pub static OVERFLOW: HashMap<u64, DatedRecord, 1, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// How many records of each slot's cookies are in hash maps. Who finds its record in its slot does not look here.
#[btf_map]
pub static CROWDED: Array<u32, { slot::SLOTS as usize }> = Array::new();

/// What is kept for sockets that will report no change of state, by their cookie. The loader sets the number of
/// entries.
#[btf_map]
pub static KEPT: HashMap<u64, Kept, 1, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Handshakes that were held back, for as long as anything is to be done about them.
#[btf_map]
pub static WAITERS: HashMap<Flow, Waiter, { MAX_WAITERS as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// How many sockets listen at each endpoint of a mail port.
#[btf_map]
pub static LISTENING: HashMap<Endpoint, u64, { MAX_ENDPOINTS as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// On what grounds handshakes were refused that are not complete yet, by [`Refused::slot`].
#[btf_map]
pub static REFUSED: Array<Refused, { grounds::SLOTS as usize }> = Array::new();

/// The programs that the gate goes on in.
#[btf_map]
pub static STAGES: ProgramArray<5> = ProgramArray::new();

/// The programs that the ledger goes on in.
#[btf_map]
pub static LEDGER_STAGES: ProgramArray<3> = ProgramArray::new();

/// What the daemon is told of them.
#[btf_map]
pub static EVENTS: RingBuf<Event, { 1 << 18 }> = RingBuf::new();

/// What the daemon asks of the usher.
#[btf_map]
pub static USHER_REQUEST: Array<UsherRequest, 1> = Array::new();

/// Marks the greeter's listener, and what it accepts.
#[btf_map]
pub static GREETER_SOCKETS: SkStorage<u32, { (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize }> = SkStorage::new();

/// Socket storage. aya-ebpf's own type has a fixed set of flags and takes no `sock_ops` context.
#[repr(C)]
pub struct SkStorage<T, const F: usize> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; F],
}

// SAFETY: only pointers that the loader patches, never dereferenced here; the kernel serialises
// access to the storage of one socket.
unsafe impl<T, const F: usize> Sync for SkStorage<T, F> {}

impl<T, const F: usize> SkStorage<T, F> {
    const fn new() -> Self {
        use core::ptr::null;
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }

    /// Whether anything is stored for `sk`.
    ///
    /// # Safety
    ///
    /// `sk` is a full socket the context of this run guarantees.
    #[inline(always)]
    pub unsafe fn has(&self, sk: *mut c_void) -> bool {
        let map = core::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `map` is the relocated map, `sk` is valid by the caller's contract, and nothing is asked to
        // be made.
        !unsafe { bpf_sk_storage_get(map, sk, core::ptr::null_mut(), 0) }.is_null()
    }
}

/// A service, as the set says that is in force.
#[derive(Clone, Copy)]
pub struct Service {
    /// Its number.
    pub id: ServiceId,
    /// Its policy.
    pub policy: &'static ServicePolicy,
    /// The set, 0 or 1: everything else of this verdict comes from it, too.
    set: u32,
    /// Whether rules of it say where sources are counted.
    has_scopes: bool,
}

/// The service that `port` belongs to; `None` for a port that is nobody's.
#[inline(always)]
pub fn service_of(port: u32) -> Option<Service> {
    let (active, service) = look_up(port)?;
    service_in(active, service)
}

/// Whether `port` is of a service.
#[inline(always)]
pub fn is_of_a_service(port: u32) -> bool {
    look_up(port).is_some()
}

/// The word that says which set is in force, and the service to which that set says `port` belongs.
#[inline(always)]
fn look_up(port: u32) -> Option<(u64, ServiceId)> {
    let active = ACTIVE.find(0)?.get();
    let word = *PORTS.get((active as u32 & 1) * PORT_WORDS + ((port & 0xffff) >> 3))?;
    let service = (word >> ((port & 7) * 8)) as u8;
    if service == 0 { None } else { Some((active, ServiceId(service))) }
}

/// The service of this number.
#[inline(always)]
pub fn service(id: ServiceId) -> Option<Service> {
    service_in(ACTIVE.find(0)?.get(), id)
}

#[inline(always)]
fn service_in(active: u64, id: ServiceId) -> Option<Service> {
    let set = active as u32 & 1;
    let policy = SERVICES.get(set * MAX_SERVICES + u32::from(id.0))?;
    Some(Service { id, policy, set, has_scopes: active & SCOPES != 0 })
}

impl Service {
    /// What every source may make of refusals.
    #[inline(always)]
    pub fn ladder(&self) -> Option<&'static Ladder> {
        LADDERS.get(self.set)
    }

    /// Whether the daemon has said that `addr` is one of the host's local addresses.
    #[inline(always)]
    pub fn is_local(&self, addr: &Addr) -> bool {
        let [first, second] = addr.halves();
        self.has_rules(addr) && is_local(self.set, first, second) != 0
    }

    /// Whether there are rules for anyone near `addr`: elsewhere nothing is looked up.
    #[inline(always)]
    fn has_rules(&self, addr: &Addr) -> bool {
        let (word, bit) = coverage::bit(coverage::region(addr));
        COVERAGE.get(self.set * coverage::WORDS + word).is_some_and(|word| word & bit != 0)
    }

    /// Where the rules have an address counted. Where none says so, nothing is looked up.
    #[inline(always)]
    pub fn scope(&self, remote: &Addr) -> Scope {
        if !self.has_scopes || !self.has_rules(remote) {
            return Scope::SERVICES;
        }
        self.rules_say(remote, false, null_mut()).0
    }

    /// Where a source is counted that connects to `local`, and what becomes of it. One of the host's local addresses that no
    /// rule knows of is allowed all the same: it may be a new one.
    #[inline(always)]
    pub fn action(&self, remote: &Addr, local: &Addr) -> (Scope, Action) {
        let is_local = remote.is_local(local);
        if !is_local && !self.has_rules(remote) {
            return (Scope::SERVICES, Action::Limit);
        }
        self.rules_say(remote, is_local, null_mut())
    }

    /// The same, and the limits of such a source.
    #[inline(always)]
    pub fn limits(&self, remote: &Addr, local: &Addr) -> (Scope, Limits) {
        self.limits_of(remote, remote.is_local(local))
    }

    /// The same of one that is, or is not, the host that talks to itself.
    #[inline(always)]
    pub fn limits_of(&self, remote: &Addr, is_local: bool) -> (Scope, Limits) {
        let mut limits = Limits::of_service(self.policy);
        if !is_local && !self.has_rules(remote) {
            return (Scope::SERVICES, limits);
        }
        let (scope, _) = self.rules_say(remote, is_local, &raw mut limits);
        (scope, limits)
    }

    /// What a peer is counted in of whom the rules say `scope`.
    #[inline(always)]
    pub fn count_keys(&self, scope: Scope, remote: &Addr) -> CountKeys {
        CountKeys::new(self.id, self.policy, scope, remote)
    }

    /// What [`rules_say`] says.
    #[inline(always)]
    fn rules_say(&self, remote: &Addr, is_local: bool, limits: *mut Limits) -> (Scope, Action) {
        let asked = self.set | u32::from(is_local) << 1 | u32::from(self.id.0) << 8;
        let [first, second] = remote.halves();
        Scope::of_word(rules_say(asked, first, second, limits))
    }
}

#[inline(always)]
fn rule_in(set: u32, key: &lpm_trie::Key<Addr>) -> Option<&'static Rule> {
    if set == 0 { RULES_0.get(key) } else { RULES_1.get(key) }
}

/// Whether an address, given in halves, is one of the host's local by the rules of a set, 0 or 1. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_local(set: u32, first: u64, second: u64) -> u32 {
    let key = lpm_trie::Key::new(128, Addr::of_halves([first, second]));
    rule_in(set, &key).is_some_and(Rule::is_local).into()
}

/// What the rules of a set say of an address, given in halves, at a service: a [`Scope`] and an [`Action`] as a word;
/// `limits` are those of the service, and become those of the source. `asked` has the set, a bit that says whether it is
/// the host's own, and the service. Verified by itself; below `hold` it has to do with 32 bytes of stack, so it takes
/// numbers, and has the address in the key alone.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rules_say(asked: u32, first: u64, second: u64, limits: *mut Limits) -> u64 {
    let (set, is_local, service) = (asked & 1, asked & 2 != 0, asked >> 8);
    // SAFETY: null, or limits that the caller has borrowed for the call; see `rooms::given`.
    let limits = unsafe { limits.as_mut() };
    let (rule, source_prefix) = {
        let key = lpm_trie::Key::new(128, Addr::of_halves([first, second]));
        let rule = rule_in(set, &key);
        // SAFETY: valid and aligned; volatile, so that it is not kept elsewhere meanwhile.
        let remote = unsafe { (&raw const key.data).read_volatile() };
        (rule, rule.map_or(0, |rule| rule.source_prefix(&remote)))
    };
    let mut scope = Scope { source_prefix, ..Scope::SERVICES };
    let policy = SERVICES.get(set * MAX_SERVICES + (service & 63));
    let has_network = policy.is_some_and(ServicePolicy::has_network);
    let action = match rule {
        Some(rule) if !rule.allows_itself(is_local) => Action::from_u8(rule.action),
        None if !is_local => Action::Limit,
        _ => Action::Allow,
    };
    match (action, rule) {
        (Action::Allow, _) => {
            scope.network_differs = has_network;
            if rule.is_none() {
                scope.source_prefix = RuleMatch::ALLOW.source_prefix;
            }
            if let (Some(limits), Some(policy)) = (limits, policy) {
                limits.allow(policy);
            }
        }
        (Action::Deny, _) => {
            if let Some(limits) = limits {
                limits.denied = true;
            }
        }
        (Action::Limit, Some(rule)) => {
            let one = rule_limits(set, rule, service);
            let all = rule_limits(set, rule, 0);
            scope.network_differs = !has_network & rule::has_network(one, all);
            if let Some(limits) = limits {
                limits.rule(rule.max_connections, one, all);
            }
        }
        (Action::Limit, None) => {}
    }
    scope.word(action)
}

/// The limits of a rule for a service, if it has such.
#[inline(always)]
fn rule_limits(set: u32, rule: &Rule, service: u32) -> Option<&'static RuleLimits> {
    if !rule.limits(ServiceId(service as u8)) {
        return None;
    }
    let key = RuleService { rule: rule.id, service };
    let limits = if set == 0 { LIMITS_0.get_ptr(key) } else { LIMITS_1.get_ptr(key) };
    // SAFETY: found in this run, for which the set in force is not written.
    limits.map(|limits| unsafe { &*limits })
}

/// The counters of `service` on this CPU. A softirq may interrupt a program that runs in process context, and both count
/// here: at worst one of a statistic is lost.
#[inline(always)]
pub fn counters(service: ServiceId) -> Option<MapRef<Counters>> {
    COUNTERS.find(u32::from(service.0))
}

/// Counts one in a counter of a service.
macro_rules! count {
    ($service:expr, $($counter:tt)+) => {
        if let Some(counters) = $crate::maps::counters($service) {
            $crate::map_ref::field!(counters, $($counter)+).count(1);
        }
    };
}
pub(crate) use count;

/// Counts a SYN that the shield drops, as refused, too.
#[inline(always)]
pub fn count_drop(service: ServiceId, reason: Reason) {
    if let Some(counters) = counters(service) {
        field!(counters, dropped).count(1);
        field!(counters, refused[reason as usize]).count(1);
    }
}

/// Which change made by hand was the last. To be read before what it may have changed.
#[inline(always)]
pub fn change() -> u64 {
    // SAFETY: valid and aligned; volatile, because user space writes it.
    unsafe { CHANGE.0.get().read_volatile() }
}

/// Until when a daemon serves those that wait, in nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn attended_until_ns() -> u64 {
    // SAFETY: as in `change`.
    unsafe { ATTENDED.0.get().read_volatile() }
}

/// Until when the daemon counts as one that answers, in nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn answers_until_ns() -> u64 {
    // SAFETY: as in `change`.
    unsafe { HEARTBEAT.0.get().read_volatile() }
}

/// The place of this CPU for what it remembers of `syn`.
#[inline(always)]
pub fn cached_drop(syn: &Syn) -> Option<MapRef<CachedDrop>> {
    let cache = DROP_CACHE.find(0)?;
    Some(field!(cache, 0[syn.slot()]))
}

/// Where the source of what is remembered stands, by what makes a source today.
#[inline(always)]
pub fn penalty_of(cached: &CachedDrop) -> Option<MapRef<Penalty>> {
    let (service, remote) = (service(ServiceId(cached.service))?, cached.remote());
    penalty(&Key::source(service.id, service.policy, service.scope(&remote).source_prefix, &remote))
}

/// The slot for the grounds of a handshake.
#[inline(always)]
pub fn refused(flow: &Flow) -> Option<MapRef<Refused>> {
    REFUSED.find(Refused::slot(flow))
}

/// The total of a service.
#[inline(always)]
pub fn total(service: ServiceId) -> Option<MapRef<Total>> {
    TOTALS.find(u32::from(service.0))
}

/// Where the source of `key` stands on the ladder, if it was refused lately.
#[inline(always)]
pub fn penalty(key: &Key) -> Option<MapRef<Penalty>> {
    PENALTIES.find(key)
}

/// The entry of `key`.
#[inline(always)]
pub fn entry(key: &Key) -> Option<MapRef<Entry>> {
    LEDGER.find(key)
}
