// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The counts that a connection is in, found in the maps.

use limiter_common::{
    Addr, Count, CountKeys, Entry, Key, Limits, Reason, Total, Usage,
    count::Word as _,
    key::Level,
    reservation::{self, Arrival, CountWords, Outcome, Wait},
    verdict::Beyond,
};

use crate::{
    atomic::Shared,
    attended, clock,
    map_ref::{MapRef, field},
    maps::{self, Service},
    rooms,
};

/// Where everything that a connection is counted in is counted; valid for the run in which it was found.
#[derive(Clone, Copy)]
pub struct Counts {
    /// The source's entry.
    pub source: MapRef<Entry>,
    /// Its network's entry, where that is counted.
    pub network: Option<MapRef<Entry>>,
    total: MapRef<Total>,
}

impl Counts {
    /// The counts of `count_keys`; `None` if one is not there.
    #[inline(always)]
    pub fn find(count_keys: &CountKeys) -> Option<Self> {
        let of_source = maps::entry(&count_keys.source)?;
        let of_network =
            if count_keys.has_network() { Some(maps::entry(&count_keys.network)?) } else { None };
        Some(Self { source: of_source, network: of_network, total: maps::total(count_keys.service())? })
    }

    /// The same, made where they are not there; `None` when there is no room for one.
    #[inline(always)]
    pub fn find_or_make(count_keys: &CountKeys) -> Option<Self> {
        let of_source = rooms::entry_or_new(&count_keys.source)?;
        let of_network =
            if count_keys.has_network() { Some(rooms::entry_or_new(&count_keys.network)?) } else { None };
        Some(Self { source: of_source, network: of_network, total: maps::total(count_keys.service())? })
    }

    /// The words that the steps of `limiter_common::reservation` change.
    #[inline(always)]
    pub fn words<'a>(&self) -> CountWords<'a, Shared> {
        CountWords {
            source: field!(self.source, count).shared(),
            network: match self.network {
                Some(of_network) => Some(field!(of_network, count).shared()),
                None => None,
            },
            total: field!(self.total, count).shared(),
            waiting: field!(self.total, waiting).shared(),
            due: field!(self.source, due_ns).shared(),
        }
    }

    /// Takes a place in each count for a handshake, and pays for it. If the entries are not those of `count_keys` any more,
    /// what was taken is given back, and it has to come again.
    #[inline(always)]
    pub fn reserve(&self, count_keys: &CountKeys, limits: &Limits, now_ns: u64, arrival: Arrival) -> Outcome {
        let words = self.words();
        let outcome = reservation::reserve(&words, limits, now_ns, arrival);
        if outcome == Outcome::Taken && !self.belong_to(count_keys) {
            reservation::cancel(&words, limits.rate.interval_ns);
            return Outcome::Again;
        }
        outcome
    }

    /// Waits for a place because of `reason`, as [`reservation::wait`]; with the same check.
    #[inline(always)]
    pub fn wait(
        &self,
        count_keys: &CountKeys,
        limits: &Limits,
        reason: Reason,
        most: u32,
        capacity: u32,
    ) -> Wait {
        let words = self.words();
        let outcome = reservation::wait(&words, limits, reason, most, capacity);
        if let Wait::Waits(marks) = outcome
            && !self.belong_to(count_keys)
        {
            reservation::leave(&words, marks);
            return Wait::Again;
        }
        outcome
    }

    /// How many of the connections were let through beyond the limits.
    #[inline(always)]
    pub fn beyond(&self) -> Beyond {
        Beyond {
            source: field!(self.source, beyond).get(),
            network: match self.network {
                Some(of_network) => field!(of_network, beyond).get(),
                None => 0,
            },
            total: field!(self.total, beyond).get(),
        }
    }

    /// Notes that one more, or with `u32::MAX` one less, of the connections is one that was let through beyond the limits.
    /// While that one is counted.
    #[inline(always)]
    pub fn add_beyond(&self, one: u32) {
        field!(self.source, beyond).add(one);
        if let Some(of_network) = self.network {
            field!(of_network, beyond).add(one);
        }
        field!(self.total, beyond).add(one);
    }

    /// Whether the entries are those of `count_keys`: a deleted entry's memory may serve another source at
    /// once.
    #[inline(always)]
    pub fn belong_to(&self, count_keys: &CountKeys) -> bool {
        let is = |entry: MapRef<Entry>, tag: u32| field!(entry, tag).get() == tag;
        is(self.source, count_keys.source.tag())
            && self.network.is_none_or(|of_network| is(of_network, count_keys.network.tag()))
    }
}

/// Makes the entries of `count_keys`, or else the finest shared one for which there is room; then `count_keys` is changed.
/// Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn make_entries(count_keys: *mut CountKeys) -> u32 {
    let Some(mut made) = rooms::given(count_keys) else { return 0 };
    rooms::clear_room();
    if Counts::find_or_make(&made).is_some() {
        return 0;
    }
    made.network = Key::NONE;
    for level in Level::ALL {
        if made.source.share(level) && rooms::entry_or_new(&made.source).is_some() {
            break;
        }
    }
    // SAFETY: not null; see `rooms::given`.
    unsafe { *count_keys = made };
    0
}

/// A connection was let go: an entry that has none now may go when there is no room for others.
#[inline(always)]
pub fn let_go(count_keys: &CountKeys, counts: &Counts) {
    rooms::may_be_idle(&count_keys.source, counts.source);
    if let Some(of_network) = counts.network {
        rooms::may_be_idle(&count_keys.network, of_network);
    }
}

/// Whether somebody waits for a place of one of these counts.
#[inline(always)]
pub fn is_waited_for(words: &CountWords<'_, Shared>) -> bool {
    let waits = |word: &Shared| Count(word.load()).waiting() != 0;
    waits(words.source) || waits(words.total) || words.network.is_some_and(waits)
}

/// Where a peer of a service stands at this moment.
pub struct Present {
    /// What its source is known as, whatever it is counted in.
    pub source: Key,
    /// What it is counted in: see [`present`].
    pub count_keys: CountKeys,
    /// Its limits there.
    pub limits: Limits,
    /// The entry of its source there.
    pub entry: Option<MapRef<Entry>>,
}

impl Present {
    /// Looks up the peer `remote` that connects to `local`.
    #[inline(always)]
    pub fn of(service: &Service, remote: &Addr, local: &Addr) -> Self {
        let (scope, limits) = service.limits(remote, local);
        let count_keys = service.count_keys(scope, remote);
        let source = count_keys.source;
        let count_keys = present(count_keys);
        let limits = limits.within(&count_keys);
        Self { source, count_keys, limits, entry: maps::entry(&count_keys.source) }
    }
}

/// What the source of `count_keys` is counted in at this moment: its own entry, or, while there is no room for one, the one
/// that it would share with others.
#[inline(always)]
fn present(mut count_keys: CountKeys) -> CountKeys {
    if maps::entry(&count_keys.source).is_none() && rooms::is_full() {
        count_keys.network = Key::NONE;
        look_for_shared(&raw mut count_keys.source);
    }
    count_keys
}

/// Makes `key` that of the finest shared entry there is; of the last level, if there is none. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look_for_shared(key: *mut Key) -> u32 {
    let Some(mut shared) = rooms::given(key) else { return 0 };
    for level in Level::ALL {
        if shared.share(level) && maps::entry(&shared).is_some() {
            break;
        }
    }
    // SAFETY: not null; see `rooms::given`.
    unsafe { *key = shared };
    0
}

/// Whether a ban holds for the `source`.
#[inline(always)]
pub fn is_banned(source: &Key, limits: &Limits) -> bool {
    limits.bannable && bans(source)
}

/// Whether there is a ban of the `source`. Hardly anyone is on the ladder, so the clock is only asked for who is.
#[inline(always)]
pub fn bans(source: &Key) -> bool {
    maps::penalty(source).is_some_and(|penalty| rooms::is_in_force(penalty, clock::now_ns()))
}

/// Whether one more connection of the `source` that is counted in `count_keys`, of which `of_source` is the entry, would be over a
/// limit: a look that makes and holds nothing in the source's name.
#[inline(always)]
pub fn is_over(
    source: &Key,
    count_keys: &CountKeys,
    limits: &Limits,
    of_source: Option<MapRef<Entry>>,
) -> bool {
    let usage = usage(source, count_keys, of_source, limits.total != u32::MAX);
    // Where nothing is a matter of time, the clock is not asked.
    let is_of_time = limits.rate.is_limited() || usage.is_on_the_ladder();
    usage.over(limits, if is_of_time { clock::now_ns() } else { 0 }).is_some()
}

/// Where the `source` stands that is counted in `count_keys`; zeros for what is not known. What is limited by nothing is not
/// looked up.
#[inline(always)]
pub fn usage(
    source: &Key,
    count_keys: &CountKeys,
    of_source: Option<MapRef<Entry>>,
    with_total: bool,
) -> Usage {
    let mut usage = Usage::default();
    if let Some(penalty) = maps::penalty(source) {
        usage.banned_until_ns = field!(penalty, banned_until_ns).get();
        usage.replies_due_ns = field!(penalty, replies_due_ns).get();
    }
    if let Some(entry) = of_source {
        usage.source = field!(entry, count).get();
        usage.due_ns = field!(entry, due_ns).get();
    }
    if count_keys.has_network()
        && let Some(entry) = maps::entry(&count_keys.network)
    {
        usage.network = field!(entry, count).get();
    }
    if with_total && let Some(total) = maps::total(count_keys.service()) {
        usage.total = field!(total, count).get();
    }
    let waiting = usage.source.waiting() | usage.network.waiting() | usage.total.waiting();
    if waiting != 0 && !attended::are_attended() {
        // Nobody serves them: what they wait for is not kept free.
        usage.source = usage.source.without_waiting();
        usage.network = usage.network.without_waiting();
        usage.total = usage.total.without_waiting();
    }
    usage
}
