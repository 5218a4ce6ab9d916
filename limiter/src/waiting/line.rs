// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who waits, in which order, and what is to be done about it.
//!
//! Pure: what the records say comes in, and the time, and how many places are free; what goes out is what the
//! usher is to be asked. Nothing here has an effect before the kernel has agreed to it, so a line that is behind
//! the times grants too much or too little for a moment, and lets nobody in whom the gate would not.

use std::collections::HashMap;

use limiter_common::{
    Count, CountKeys, Key, Reason, ServiceId, Tier, Waiter,
    reservation::WaitMarks,
    waiting::{self, Flow, State},
};

/// The shortest time that somebody has to answer in its turn, in nanoseconds: what a delayed ACK or a busy client
/// takes (RFC 9293, 3.8.6.3).
const SHORTEST_TURN_NS: u64 = 200_000_000;
/// The longest, whatever the round trip was.
const LONGEST_TURN_NS: u64 = 3_000_000_000;
/// For how long of its turn a place is kept for it alone: then the next one may take it as well. How long a round
/// trip is, is the client's to say.
const LONGEST_KEPT_NS: u64 = 500_000_000;
/// How long one rests that found no place in its turn, because somebody else was counted meanwhile.
const REST_NS: u64 = 100_000_000;

/// How often one for whom no more might wait is let in where another one has left, and a third has come first.
const MOST_TRIES: u8 = 8;

/// What the usher is to be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// It may take a place.
    Grant,
    /// It has not answered: the next one's turn.
    Revoke,
    /// It may wait, where another one waits no longer.
    Admit,
    /// It waits for something else than before, or is marked elsewhere.
    WaitOn(Reason, WaitMarks),
    /// It is told why it is refused.
    Tell,
}

/// One of whom it is asked what is free for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked<'a> {
    /// Its addresses and ports.
    pub flow: &'a Flow,
    /// What it would be counted in.
    pub count_keys: CountKeys,
}

/// How many places are free for one that waits, and how many the rate allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Free {
    /// Of its source.
    pub source: u64,
    /// Of its network.
    pub network: Places,
    /// Of the service.
    pub total: Places,
    /// Handshakes of its source that the rate allows now.
    pub rate: u64,
    /// Whether its source may have none at all by now: it is denied, or banned.
    pub is_refused: bool,
}

/// The places of a network or a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    /// How many there are.
    pub limit: u64,
    /// How many are taken.
    pub taken: u64,
    /// How many are kept for those that are marked there.
    pub kept: u64,
}

impl Places {
    /// Of a `count` that may have `limit`.
    pub fn of(limit: u32, count: Count) -> Self {
        Self { limit: limit.into(), taken: count.taken(), kept: count.waiting().into() }
    }

    /// Those that are not taken.
    const fn left(&self) -> u64 {
        self.limit.saturating_sub(self.taken)
    }

    /// Of these, those for one that is marked there, or is not and leaves alone what others wait for: as the gate sees it.
    const fn left_for(&self, is_marked: bool) -> u64 {
        if is_marked { self.left() } else { self.left().saturating_sub(self.kept) }
    }
}

/// One that was held back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Queued {
    number: u64,
    state: State,
    waits_for: Reason,
    marks: WaitMarks,
    count_keys: CountKeys,
    /// How many may wait in front of its listener.
    capacity: usize,
    since_ns: u64,
    /// Who has the lowest goes first: since when it waits, or when it lost its turn.
    order: u64,
    turn_ns: u64,
    /// When its turn ends, if it has it.
    until_ns: u64,
    /// Until when a place is kept for it alone.
    kept_until_ns: u64,
    /// Until when it rests.
    rests_until_ns: u64,
    /// How often it was to be let in where another one had left, in vain.
    tries: u8,
}

/// Everyone who was held back.
#[derive(Default, Debug)]
pub struct Line(HashMap<Flow, Queued>);

/// Whose turn may have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Among {
    /// Anyone's.
    All,
    /// Of those of this service that are of the source, or wait for a place of their network or of the service.
    Freed(ServiceId, limiter_common::Addr),
}

impl Line {
    /// What a record says now, at `now_ns`.
    pub fn update(&mut self, flow: &Flow, waiter: &Waiter, now_ns: u64) {
        let Some(state) = waiting::state(waiter.word) else { return };
        let number = waiting::number(waiter.word);
        let count_keys = waiter.record.count_keys(&flow.remote);
        let turn_ns = (2 * u64::from(waiter.rtt_us) * 1000).clamp(SHORTEST_TURN_NS, LONGEST_TURN_NS);
        let before = self.0.get(flow).filter(|before| before.number == number);
        let queued = Queued {
            number,
            state,
            waits_for: waiter.reason(),
            marks: waiter.marks(),
            count_keys,
            capacity: waiter.capacity.into(),
            since_ns: waiter.since_ns,
            order: before.map_or(waiter.since_ns, |before| before.order),
            turn_ns,
            until_ns: match before {
                Some(before) if before.state == State::Granted => before.until_ns,
                _ => now_ns + turn_ns,
            },
            kept_until_ns: before.map_or(0, |before| before.kept_until_ns),
            rests_until_ns: match before {
                Some(before) if before.state == State::Granted && state == State::Waiting => now_ns + REST_NS,
                Some(before) => before.rests_until_ns,
                None => 0,
            },
            tries: before.map_or(0, |before| before.tries),
        };
        self.0.insert(*flow, queued);
    }

    /// It was not let in: somebody came first, or its source may have no more who wait.
    pub fn was_not_admitted(&mut self, flow: &Flow) {
        if let Some(queued) = self.0.get_mut(flow) {
            queued.tries = queued.tries.saturating_add(1);
        }
    }

    /// It is gone.
    pub fn remove(&mut self, flow: &Flow) {
        self.0.remove(flow);
    }

    /// Keeps those of whom `there_are` records.
    pub fn retain(&mut self, mut is_there: impl FnMut(&Flow) -> bool) {
        self.0.retain(|flow, _| is_there(flow));
    }

    /// Whether nobody was held back.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of a record.
    pub fn number(&self, flow: &Flow) -> Option<u64> {
        self.0.get(flow).map(|queued| queued.number)
    }

    /// Those that wait and have not been granted a place.
    pub fn waiting(&self) -> impl Iterator<Item = &Flow> {
        self.0.iter().filter(|(_, queued)| queued.state == State::Waiting).map(|(flow, _)| flow)
    }

    /// What was asked has been done, at `now_ns`.
    pub fn done(&mut self, flow: &Flow, act: Act, now_ns: u64) {
        let Some(queued) = self.0.get_mut(flow) else { return };
        match act {
            Act::Grant => {
                queued.state = State::Granted;
                queued.until_ns = now_ns + queued.turn_ns;
                queued.kept_until_ns = now_ns + queued.turn_ns.min(LONGEST_KEPT_NS);
            }
            // To the end of the line, and no place of others is kept for it until it has answered.
            Act::Revoke => {
                (queued.state, queued.order) = (State::Waiting, now_ns);
                queued.marks = queued.marks.missed();
            }
            Act::Admit => (queued.state, queued.marks) = (State::Waiting, WaitMarks::IN_SOURCE),
            Act::WaitOn(reason, marks) => (queued.waits_for, queued.marks) = (reason, marks),
            Act::Tell => queued.state = State::Told,
        }
    }

    /// What time asks for at `now_ns`, if one of a service waits for `wait_ns` at the most.
    pub fn due(&self, now_ns: u64, wait_ns: impl Fn(ServiceId) -> u64) -> Vec<(Flow, Act)> {
        let mut acts = Vec::new();
        for (flow, queued) in &self.0 {
            let act = match queued.state {
                State::Granted if queued.until_ns <= now_ns => Act::Revoke,
                State::Waiting if queued.since_ns + wait_ns(queued.count_keys.service()) <= now_ns => {
                    Act::Tell
                }
                State::Refused => Act::Tell,
                _ => continue,
            };
            acts.push((*flow, act));
        }
        acts.extend(self.crowded());
        acts
    }

    /// When [`Self::due`] has something to say next, in nanoseconds.
    pub fn next_due_ns(&self, wait_ns: impl Fn(ServiceId) -> u64) -> Option<u64> {
        let due = |queued: &Queued| match queued.state {
            State::Granted => Some(queued.until_ns),
            State::Waiting => Some(queued.since_ns + wait_ns(queued.count_keys.service())),
            State::Crowded | State::Refused => Some(0),
            _ => None,
        };
        self.0.values().filter_map(due).min()
    }

    /// For the oldest for whom no more might wait: who has to go. That is the newest of the source with the most
    /// waiters, it itself among them. Who was beaten to the capacity that was made free for it is let in where there is some
    /// now, and else more is made.
    fn crowded(&self) -> Vec<(Flow, Act)> {
        let crowded = self.0.iter().filter(|(_, queued)| queued.state == State::Crowded);
        let Some((flow, queued)) = crowded.min_by_key(|(_, queued)| queued.since_ns) else {
            return Vec::new();
        };
        let mut waiting: HashMap<Key, usize> = HashMap::new();
        let of_service =
            || self.0.iter().filter(|(_, other)| other.count_keys.service() == queued.count_keys.service());
        let mut in_all = 0;
        for (_, other) in of_service().filter(|(_, other)| other.state.is_marked()) {
            in_all += 1;
            *waiting.entry(other.count_keys.source).or_default() += 1;
        }
        if queued.tries >= MOST_TRIES {
            return vec![(*flow, Act::Tell)];
        }
        if queued.tries > 0 && in_all < queued.capacity {
            return vec![(*flow, Act::Admit)];
        }
        let own = waiting.get(&queued.count_keys.source).copied().unwrap_or_default() + 1;
        let most = waiting.iter().filter(|(_, n)| **n > own).max_by_key(|(key, n)| (**n, key.addr.0));
        let newest = most.and_then(|(key, _)| {
            let of_it =
                of_service().filter(|(_, it)| it.count_keys.source == *key && it.state == State::Waiting);
            of_it.max_by_key(|(_, it)| it.since_ns)
        });
        match newest {
            // Unless there are so many at another listener of the service that one less is no help.
            Some((newest, _)) if in_all <= queued.capacity => vec![(*newest, Act::Tell), (*flow, Act::Admit)],
            _ => vec![(*flow, Act::Tell)],
        }
    }

    /// Whose turn it is at `now_ns`, first come first served, by what is `free` for each; and who is told because
    /// it may have no place any more. Not those who have waited for as long as one waits: they are told by time.
    pub fn turns(
        &self,
        among: Among,
        now_ns: u64,
        wait_ns: impl Fn(ServiceId) -> u64,
        mut free: impl FnMut(&Asked<'_>) -> Option<Free>,
    ) -> Vec<(Flow, Act)> {
        // Places that were granted and are not taken yet.
        let mut granted: HashMap<Key, u64> = HashMap::new();
        // How many come before the next one, of the same source, network or service.
        let mut ahead: HashMap<Key, u64> = HashMap::new();
        for queued in self.0.values().filter(|queued| queued.state == State::Granted) {
            let is_kept = now_ns < queued.kept_until_ns;
            for key in queued.keys() {
                if is_kept {
                    *granted.entry(key).or_default() += 1;
                }
                // Of a source, as many as places are kept.
                if is_kept || key != queued.count_keys.source {
                    *ahead.entry(key).or_default() += 1;
                }
            }
        }
        let is_asked = |queued: &Queued| match among {
            Among::All => true,
            Among::Freed(service, source) => {
                queued.count_keys.service() == service
                    && (queued.count_keys.source.addr == source
                        || matches!(queued.waits_for, Reason::Network | Reason::Total))
            }
        };
        let waits = |queued: &Queued| {
            queued.state == State::Waiting
                && queued.rests_until_ns <= now_ns
                && now_ns < queued.since_ns + wait_ns(queued.count_keys.service())
                && is_asked(queued)
        };
        let mut line: Vec<(&Flow, &Queued)> = self.0.iter().filter(|(_, queued)| waits(queued)).collect();
        line.sort_unstable_by_key(|(flow, queued)| (queued.order, flow.remote_port));
        let mut turns = Vec::new();
        for (flow, queued) in line {
            let Some(free) = free(&Asked { flow, count_keys: queued.count_keys }) else { continue };
            if free.is_refused {
                turns.push((*flow, Act::Tell));
                continue;
            }
            let keys = queued.count_keys;
            let (source, network, total) = (keys.source, keys.network, Key::total(keys.service()));
            let before = Before { network: of(&ahead, &network), total: of(&ahead, &total) };
            // Of a source with places for some, those behind wait for more of its own, not for the service's.
            let blocked_by = if of(&ahead, &source) >= free.source {
                Some(Reason::Concurrency)
            } else {
                queued.blocked_by(&free, &before)
            };
            let waits_with_others = matches!(blocked_by, None | Some(Reason::Network | Reason::Total));
            for key in queued.keys().filter(|key| *key == source || waits_with_others) {
                *ahead.entry(key).or_default() += 1;
            }
            if let Some(reason) = blocked_by {
                let marks = queued.marks_for(reason, &free, &before);
                if reason != queued.waits_for || marks != queued.marks {
                    turns.push((*flow, Act::WaitOn(reason, marks)));
                }
                continue;
            }
            let source_has_room = free.source.min(free.rate) > of(&granted, &source);
            let network_has_room = !keys.has_network()
                || free.network.left_for(queued.is_in(Tier::Network)) > of(&granted, &network);
            let total_has_room = free.total.left_for(queued.is_in(Tier::Total)) > of(&granted, &total);
            if source_has_room && network_has_room && total_has_room {
                for key in queued.keys() {
                    *granted.entry(key).or_default() += 1;
                }
                turns.push((*flow, Act::Grant));
            }
        }
        turns
    }
}

/// Of a number for each count.
fn of(numbers: &HashMap<Key, u64>, key: &Key) -> u64 {
    numbers.get(key).copied().unwrap_or_default()
}

/// How many come before one that waits.
struct Before {
    /// Of its network.
    network: u64,
    /// Of the service.
    total: u64,
}

impl Queued {
    /// The counts in which a place is granted to it: all that it falls under. To one that has missed its turn, that of its
    /// source: it keeps no place of the others from anybody.
    fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        let others = !self.marks.has_missed();
        let of_network = (others && self.count_keys.has_network()).then_some(self.count_keys.network);
        let total = others.then_some(Key::total(self.count_keys.service()));
        [Some(self.count_keys.source), of_network, total].into_iter().flatten()
    }

    /// Whether a place of this tier is kept for it.
    const fn is_in(&self, tier: Tier) -> bool {
        self.marks.is_in(tier)
    }

    /// What of the counts around its source stands in its way, if anything does, whatever was granted to others. Of a network
    /// with places for some, those behind wait for more of its own, not for the service's.
    const fn blocked_by(&self, free: &Free, before: &Before) -> Option<Reason> {
        let total_is_full = free.total.left_for(self.is_in(Tier::Total)) == 0;
        // Of what is left of its network all may be kept for some behind it, who are about to lose that.
        let network_is_full = free.network.left_for(self.is_in(Tier::Network)) == 0 && !total_is_full;
        if !self.marks.has_missed() && before.network >= free.network.left() || network_is_full {
            Some(Reason::Network)
        } else if total_is_full {
            Some(Reason::Total)
        } else if free.rate == 0 {
            Some(Reason::Rate)
        } else {
            None
        }
    }

    /// The marks it is to have while it waits because of `reason`: all that it may have, if it is one of the first for whom there
    /// are places, and else that of its source. As the kernel has it (`reservation::wait`), but in order.
    const fn marks_for(&self, reason: Reason, free: &Free, before: &Before) -> WaitMarks {
        if self.marks.has_missed() {
            return self.marks;
        }
        let fits = match reason {
            Reason::Network => {
                let left = free.network.left();
                before.network < if left == 0 { free.network.limit } else { left }
            }
            Reason::Total => before.total < free.total.limit,
            _ => true,
        };
        if fits { WaitMarks::of(reason) } else { WaitMarks::IN_SOURCE }
    }
}

#[cfg(test)]
mod tests;
