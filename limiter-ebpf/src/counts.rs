// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The counts that a connection is in, found in the maps.

use core::ptr::NonNull;

use limiter_common::{
    Count, CountKeys, Entry, Key, Limits, Penalty, Total, Usage, count::Word as _, key::Level,
    reservation::CountWords, verdict::Beyond,
};

use crate::{
    atomic::{self, Shared},
    attended, clock, maps, rooms,
};

/// Where everything that a connection is counted in is counted; valid for the run in which it was found.
#[derive(Clone, Copy)]
pub struct Counts {
    /// The source's entry.
    pub source: *mut Entry,
    /// Its network's entry, where that is counted. Nothing but the pointer says whether it is: of a flag
    /// beside it, older verifiers (6.1) forget what it means for the pointer.
    pub network: Option<NonNull<Entry>>,
    total: *mut Total,
}

impl Counts {
    /// The counts of `count_keys`; `None` if one is not there.
    #[inline(always)]
    pub fn find(count_keys: &CountKeys) -> Option<Self> {
        let of_source = maps::entry(&count_keys.source)?;
        let of_network = if count_keys.has_network() {
            Some(NonNull::new(maps::entry(&count_keys.network)?)?)
        } else {
            None
        };
        Some(Self { source: of_source, network: of_network, total: maps::total(count_keys.service())? })
    }

    /// The same, made where they are not there; `None` when there is no room for one.
    #[inline(always)]
    pub fn find_or_make(count_keys: &CountKeys) -> Option<Self> {
        let of_source = rooms::entry_or_new(&count_keys.source)?;
        let of_network = if count_keys.has_network() {
            Some(NonNull::new(rooms::entry_or_new(&count_keys.network)?)?)
        } else {
            None
        };
        Some(Self { source: of_source, network: of_network, total: maps::total(count_keys.service())? })
    }

    /// The words that the steps of `limiter_common::reservation` change.
    #[inline(always)]
    pub fn words<'a>(&self) -> CountWords<'a, Shared> {
        // SAFETY: found in this run; the words are aligned, and every program changes them through
        // `Shared` only.
        unsafe {
            CountWords {
                source: Shared::count(self.source),
                network: match self.network {
                    Some(of_network) => Some(Shared::count(of_network.as_ptr())),
                    None => None,
                },
                total: Shared::word((&raw mut (*self.total).count).cast()),
                waiting: Shared::word((&raw mut (*self.total).waiting).cast()),
                due: Shared::word(&raw mut (*self.source).due_ns),
            }
        }
    }

    /// How many of the connections were let through beyond the limits.
    #[inline(always)]
    pub fn beyond(&self) -> Beyond {
        // SAFETY: found in this run.
        unsafe {
            Beyond {
                source: (&raw const (*self.source).beyond).read_volatile(),
                network: match self.network {
                    Some(of_network) => (&raw const (*of_network.as_ptr()).beyond).read_volatile(),
                    None => 0,
                },
                total: (&raw const (*self.total).beyond).read_volatile(),
            }
        }
    }

    /// Notes that one more, or with `u32::MAX` one less, of the connections is one that was let through beyond the limits.
    /// While that one is counted.
    #[inline(always)]
    pub fn add_beyond(&self, one: u32) {
        // SAFETY: found in this run, and holding the connection.
        unsafe {
            atomic::add_u32(&raw mut (*self.source).beyond, one);
            if let Some(of_network) = self.network {
                atomic::add_u32(&raw mut (*of_network.as_ptr()).beyond, one);
            }
            atomic::add_u32(&raw mut (*self.total).beyond, one);
        }
    }

    /// Whether the entries are those of `count_keys`: a deleted entry's memory may serve another source at
    /// once.
    #[inline(always)]
    pub fn belong_to(&self, count_keys: &CountKeys) -> bool {
        // SAFETY: found in this run.
        let is = |entry: *mut Entry, tag: u32| unsafe { (&raw const (*entry).tag).read_volatile() == tag };
        is(self.source, count_keys.source.tag())
            && self.network.is_none_or(|of_network| is(of_network.as_ptr(), count_keys.network.tag()))
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
        rooms::may_be_idle(&count_keys.network, of_network.as_ptr());
    }
}

/// Whether somebody waits for a place of one of these counts.
#[inline(always)]
pub fn is_waited_for(words: &CountWords<'_, Shared>) -> bool {
    let waits = |word: &Shared| Count(word.load()).waiting() != 0;
    waits(words.source) || waits(words.total) || words.network.is_some_and(waits)
}

/// What the source of `count_keys` is counted in at this moment: its own entry, or, while there is no room for one, the one
/// that it would share with others.
#[inline(always)]
pub fn present(mut count_keys: CountKeys) -> CountKeys {
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
    // SAFETY: found in this run.
    let is_banned = |penalty: *mut Penalty| unsafe { (*penalty).is_banned(clock::now_ns()) };
    maps::penalty(source).is_some_and(is_banned)
}

/// Whether one more connection of the `source` that is counted in `count_keys`, of which `of_source` is the entry, would be over a
/// limit: a look that makes and holds nothing in the source's name.
#[inline(always)]
pub fn is_over(source: &Key, count_keys: &CountKeys, limits: &Limits, of_source: Option<*mut Entry>) -> bool {
    let usage = usage(source, count_keys, of_source, limits.total != u32::MAX);
    // Where nothing is a matter of time, the clock is not asked.
    let is_of_time = limits.rate.is_limited() || usage.is_on_the_ladder();
    usage.over(limits, if is_of_time { clock::now_ns() } else { 0 }).is_some()
}

/// Where the `source` stands that is counted in `count_keys`; zeros for what is not known. What is limited by nothing is not
/// looked up.
#[inline(always)]
pub fn usage(source: &Key, count_keys: &CountKeys, of_source: Option<*mut Entry>, with_total: bool) -> Usage {
    let mut usage = Usage::default();
    if let Some(penalty) = maps::penalty(source) {
        // SAFETY: found in this run.
        unsafe {
            usage.banned_until_ns = (&raw const (*penalty).banned_until_ns).read_volatile();
            usage.replies_due_ns = (&raw const (*penalty).replies_due_ns).read_volatile();
        }
    }
    if let Some(entry) = of_source {
        // SAFETY: found in this run.
        unsafe {
            usage.source = (&raw const (*entry).count).read_volatile();
            usage.due_ns = (&raw const (*entry).due_ns).read_volatile();
        }
    }
    if count_keys.has_network()
        && let Some(entry) = maps::entry(&count_keys.network)
    {
        // SAFETY: found in this run.
        usage.network = unsafe { (&raw const (*entry).count).read_volatile() };
    }
    if with_total && let Some(total) = maps::total(count_keys.service()) {
        // SAFETY: found in this run.
        usage.total = unsafe { (&raw const (*total).count).read_volatile() };
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
