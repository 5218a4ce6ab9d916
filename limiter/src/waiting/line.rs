// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who waits, in which order, and what is to be done about it.
//!
//! Pure: what the records say comes in, and the time, and how many places are free; what goes out is what the
//! usher is to be asked. Nothing here has an effect before the kernel has agreed to it, so a line that is behind
//! the times grants too much or too little for a moment, and lets nobody in whom the gate would not.

use std::collections::HashMap;

use limiter_common::{
    CountKeys, Key, Reason, ServiceId, Waiter,
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
    /// It waits for something else than before.
    WaitOn(Reason),
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
    /// Where it is marked: there it overtakes nobody if it takes what others wait for.
    pub marks: WaitMarks,
}

/// How many places are free for one that waits, and how many the rate allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Free {
    /// Of its source.
    pub source: u64,
    /// Of its network.
    pub network: u64,
    /// Of the service.
    pub total: u64,
    /// Handshakes of its source that the rate allows now.
    pub rate: u64,
    /// Whether its source may have none at all by now: it is denied, or banned.
    pub is_refused: bool,
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
            // To the end of the line.
            Act::Revoke => (queued.state, queued.order) = (State::Waiting, now_ns),
            Act::Admit => (queued.state, queued.marks) = (State::Waiting, WaitMarks::of(queued.waits_for)),
            Act::WaitOn(reason) => (queued.waits_for, queued.marks) = (reason, WaitMarks::of(reason)),
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
        // Count that were granted and are not taken yet.
        let mut granted: HashMap<Key, u64> = HashMap::new();
        let is_kept = |queued: &&Queued| queued.state == State::Granted && now_ns < queued.kept_until_ns;
        for queued in self.0.values().filter(is_kept) {
            for key in queued.keys() {
                *granted.entry(key).or_default() += 1;
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
        let granted_of =
            |granted: &HashMap<Key, u64>, key: &Key| granted.get(key).copied().unwrap_or_default();
        let mut ahead: HashMap<Key, u64> = HashMap::new();
        let mut turns = Vec::new();
        for (flow, queued) in line {
            let asked = Asked { flow, count_keys: queued.count_keys, marks: queued.marks };
            let Some(free) = free(&asked) else { continue };
            if free.is_refused {
                turns.push((*flow, Act::Tell));
                continue;
            }
            // Of a source with places for some, those behind wait for more of its own, not for the service's.
            let before = ahead
                .entry(queued.count_keys.source)
                .or_insert_with(|| granted_of(&granted, &queued.count_keys.source));
            let blocked_by =
                if *before >= free.source { Some(Reason::Concurrency) } else { free.blocked_by() };
            *before += 1;
            if let Some(reason) = blocked_by {
                if reason != queued.waits_for {
                    turns.push((*flow, Act::WaitOn(reason)));
                }
                continue;
            }
            let granted_of = |key: &Key| granted_of(&granted, key);
            let source_has_room = free.source.min(free.rate) > granted_of(&queued.count_keys.source);
            let others_have_room = (!queued.count_keys.has_network()
                || free.network > granted_of(&queued.count_keys.network))
                && free.total > granted_of(&Key::total(queued.count_keys.service()));
            if source_has_room && others_have_room {
                for key in queued.keys() {
                    *granted.entry(key).or_default() += 1;
                }
                turns.push((*flow, Act::Grant));
            }
        }
        turns
    }
}

impl Free {
    /// What stands in the way of one more, if anything does, whatever was granted to others.
    const fn blocked_by(&self) -> Option<Reason> {
        if self.source == 0 {
            Some(Reason::Concurrency)
        } else if self.network == 0 {
            Some(Reason::Network)
        } else if self.total == 0 {
            Some(Reason::Total)
        } else if self.rate == 0 {
            Some(Reason::Rate)
        } else {
            None
        }
    }
}

impl Queued {
    /// The counts it falls under.
    fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        let of_network = self.count_keys.has_network().then_some(self.count_keys.network);
        [Some(self.count_keys.source), of_network, Some(Key::total(self.count_keys.service()))]
            .into_iter()
            .flatten()
    }
}

#[cfg(test)]
mod tests;
