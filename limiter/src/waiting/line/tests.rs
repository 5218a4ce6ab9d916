// SPDX-License-Identifier: GPL-2.0-only OR MIT
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};

use limiter_common::{
    Addr, ConnectionRecord, CountKeys, Limits, ServicePolicy,
    count::{self, Word},
    record,
    reservation::{self, Arrival, CountWords, Outcome, Wait},
};
use proptest::prelude::*;

use super::*;

const SERVICE: ServiceId = ServiceId(1);
const MS: u64 = 1_000_000;
const WAIT_NS: u64 = 5_000 * MS;

fn flow(source: u8, port: u16) -> Flow {
    let remote = Addr::from(IpAddr::V4(Ipv4Addr::new(198, 51, 100, source)));
    Flow { remote, remote_port: port, local_port: 25, ..Flow::default() }
}

fn policy() -> ServicePolicy {
    let mut policy = ServicePolicy { max_connections: 3, ..ServicePolicy::default() };
    (policy.source.ipv4, policy.source.ipv6) = (32, 64);
    policy
}

/// A record of `flow`, made at `since_ns`, which is its number, too.
fn waiter(flow: &Flow, state: State, since_ns: u64, waits_for: Reason) -> Waiter {
    let count_keys = CountKeys::new(SERVICE, &policy(), limiter_common::Scope::SERVICES, &flow.remote);
    Waiter {
        word: waiting::word(since_ns, state),
        since_ns,
        rtt_us: 1_000,
        waits_for: waits_for as u8,
        marks: if state.is_marked() { WaitMarks::of(waits_for).0 } else { 0 },
        record: ConnectionRecord::new(record::COUNTED, &count_keys),
        capacity: 50,
        ..Waiter::default()
    }
}

fn line(of: &[(Flow, State, u64)]) -> Line {
    let mut line = Line::default();
    for (flow, state, since_ns) in of {
        line.update(flow, &waiter(flow, *state, *since_ns, Reason::Concurrency), *since_ns);
    }
    line
}

/// As many as one likes.
const ANY: Places = Places { limit: u64::MAX, taken: 0, kept: 0 };
/// One, which is taken.
const FULL: Places = Places { limit: 1, taken: 1, kept: 0 };

fn free(of_source: u64) -> Free {
    Free { source: of_source, network: ANY, total: ANY, rate: u64::MAX, is_refused: false }
}

fn turns(line: &Line, now_ns: u64, places: u64) -> Vec<Flow> {
    let turns = line.turns(Among::All, now_ns, |_| WAIT_NS, |_| Some(free(places)));
    turns.into_iter().map(|(flow, act)| (act == Act::Grant).then_some(flow).unwrap()).collect()
}

#[test]
fn who_may_have_no_place_any_more_is_told_and_takes_nobodys_turn() {
    let line = line(&[(flow(1, 1), State::Waiting, 1), (flow(2, 1), State::Waiting, 2)]);
    let denied = |of: &Asked<'_>| Some(Free { is_refused: of.flow.remote == flow(1, 1).remote, ..free(1) });
    let turns = line.turns(Among::All, 3, |_| WAIT_NS, denied);
    assert_eq!(turns, [(flow(1, 1), Act::Tell), (flow(2, 1), Act::Grant)]);
}

#[test]
fn who_came_first_goes_first_and_no_more_than_there_are_places() {
    let of = |port| flow(1, port);
    let mut line =
        line(&[(of(3), State::Waiting, 30), (of(1), State::Waiting, 10), (of(2), State::Waiting, 20)]);
    assert_eq!(turns(&line, 100, 2), [of(1), of(2)]);
    line.done(&of(1), Act::Grant, 100);
    assert_eq!(turns(&line, 100, 1), [], "the place that was granted is not free");
    assert_eq!(turns(&line, 100, 2), [of(2)]);
    // It has not answered: the others go first.
    line.done(&of(1), Act::Revoke, 200);
    assert_eq!(turns(&line, 300, 3), [of(2), of(3), of(1)]);
}

#[test]
fn who_does_not_answer_loses_its_turn_after_two_round_trips_and_not_before() {
    for (rtt_us, turn_ms) in [(1_000, 200), (300_000, 600), (60_000_000, 3_000)] {
        let mut line = Line::default();
        let slow = Waiter { rtt_us, ..waiter(&flow(1, 1), State::Waiting, 1, Reason::Concurrency) };
        line.update(&flow(1, 1), &slow, 1);
        line.done(&flow(1, 1), Act::Grant, 100 * MS);
        let end = (100 + turn_ms) * MS;
        assert_eq!(line.due(end - 1, |_| WAIT_NS), [], "{rtt_us}");
        assert_eq!(line.due(end, |_| WAIT_NS), [(flow(1, 1), Act::Revoke)], "{rtt_us}");
        assert_eq!(line.next_due_ns(|_| WAIT_NS), Some(end));
    }
}

#[test]
fn who_has_waited_long_enough_is_told_and_gets_no_further_turn() {
    let line = line(&[(flow(1, 1), State::Waiting, 10)]);
    let end = 10 + WAIT_NS;
    assert_eq!(line.due(end - 1, |_| WAIT_NS), []);
    assert_eq!(turns(&line, end - 1, 1), [flow(1, 1)]);
    assert_eq!(line.due(end, |_| WAIT_NS), [(flow(1, 1), Act::Tell)]);
    assert_eq!(turns(&line, end, 1), []);
    assert_eq!(line.due(11, |_| 0), [(flow(1, 1), Act::Tell)], "where nobody waits, at once");
}

#[test]
fn a_turn_that_was_given_is_not_prolonged_by_what_is_read_again() {
    let of = flow(1, 1);
    let mut line = line(&[(of, State::Waiting, 10)]);
    line.done(&of, Act::Grant, 100 * MS);
    line.update(&of, &waiter(&of, State::Granted, 10, Reason::Concurrency), 250 * MS);
    assert_eq!(line.due(300 * MS, |_| WAIT_NS), [(of, Act::Revoke)]);
}

#[test]
fn another_record_of_the_same_addresses_begins_anew() {
    let of = flow(1, 1);
    let mut line = line(&[(of, State::Waiting, 10)]);
    line.done(&of, Act::Revoke, 999);
    line.update(&of, &waiter(&of, State::Waiting, 500, Reason::Concurrency), 500);
    assert_eq!(line.number(&of), Some(500));
    line.update(&flow(1, 2), &waiter(&flow(1, 2), State::Waiting, 600, Reason::Concurrency), 600);
    assert_eq!(turns(&line, 700, 1), [of]);
}

#[test]
fn where_the_room_is_full_the_newest_of_the_source_with_the_most_makes_room() {
    let crowded = |of: &[(Flow, State, u64)]| line(of).due(100, |_| WAIT_NS);
    let largest = [
        (flow(1, 1), State::Waiting, 1),
        (flow(1, 2), State::Waiting, 2),
        (flow(1, 3), State::Waiting, 3),
        (flow(2, 1), State::Waiting, 4),
    ];
    let with = |new: Flow| crowded(&[&largest[..], &[(new, State::Crowded, 9)]].concat());
    assert_eq!(with(flow(3, 1)), [(flow(1, 3), Act::Tell), (flow(3, 1), Act::Admit)]);
    assert_eq!(with(flow(1, 4)), [(flow(1, 4), Act::Tell)], "the newest of the largest is itself");
    assert_eq!(with(flow(2, 2)), [(flow(1, 3), Act::Tell), (flow(2, 2), Act::Admit)]);
    // Most of them wait at a listener with more room: one less would be no help.
    let elsewhere: Vec<_> = (1..=60).map(|port| (flow(1, port), State::Waiting, u64::from(port))).collect();
    assert_eq!(
        crowded(&[&elsewhere[..], &[(flow(3, 1), State::Crowded, 90)]].concat()),
        [(flow(3, 1), Act::Tell)]
    );
    // As many as the largest: who comes last goes.
    let even = [(flow(1, 1), State::Waiting, 1), (flow(3, 1), State::Crowded, 9)];
    assert_eq!(crowded(&even), [(flow(3, 1), Act::Tell)]);
}

#[test]
fn who_is_beaten_to_the_room_that_was_made_for_it_is_let_in_all_the_same() {
    let (new, beats) = (flow(3, 1), flow(4, 1));
    // As many as there is room for.
    let mut waiting: Vec<_> = (1..=50).map(|port| (flow(1, port), State::Waiting, u64::from(port))).collect();
    waiting.push((new, State::Crowded, 90));
    let mut line = line(&waiting);
    let due = |line: &Line| line.due(100, |_| WAIT_NS);
    assert_eq!(due(&line), [(flow(1, 50), Act::Tell), (new, Act::Admit)]);
    line.done(&flow(1, 50), Act::Tell, 101);
    line.remove(&flow(1, 50));
    // The kernel says no, and who came first is not known yet.
    line.was_not_admitted(&new);
    assert_eq!(due(&line), [(new, Act::Admit)], "nobody has to go for it");
    line.was_not_admitted(&new);
    line.update(&beats, &waiter(&beats, State::Waiting, 95, Reason::Concurrency), 102);
    assert_eq!(due(&line), [(flow(1, 49), Act::Tell), (new, Act::Admit)]);
    line.done(&new, Act::Admit, 103);
    line.remove(&flow(1, 49));
    assert_eq!(due(&line), []);
}

#[test]
fn who_cannot_be_let_in_is_told_in_the_end() {
    let new = flow(3, 1);
    let mut line =
        line(&[(flow(1, 1), State::Waiting, 1), (flow(1, 2), State::Waiting, 2), (new, State::Crowded, 9)]);
    let mut tries = 0;
    while line.due(100, |_| WAIT_NS) != [(new, Act::Tell)] {
        line.was_not_admitted(&new);
        tries += 1;
        assert!(tries <= 8, "after {tries} tries it is not told");
    }
    assert_eq!(line.waiting().count(), 2, "and nobody had to go for it more than once");
}

#[test]
fn what_one_waits_for_is_marked_where_it_is() {
    let of = flow(1, 1);
    let mut line = line(&[(of, State::Waiting, 1)]);
    let acts = |line: &Line, free| line.turns(Among::All, 2, |_| WAIT_NS, |_| Some(free));
    let wait_on = |reason| Act::WaitOn(reason, WaitMarks::of(reason));
    let full = Free { total: FULL, ..free(1) };
    assert_eq!(acts(&line, full), [(of, wait_on(Reason::Total))]);
    line.done(&of, wait_on(Reason::Total), 3);
    assert_eq!(acts(&line, full), []);
    // Places of its own source come first: one of the service is of no use to it without.
    assert_eq!(acts(&line, Free { total: FULL, ..free(0) }), [(of, wait_on(Reason::Concurrency))]);
    line.done(&of, wait_on(Reason::Concurrency), 4);
    // Marked in the same counts, and told something else.
    assert_eq!(acts(&line, Free { rate: 0, ..free(1) }), [(of, wait_on(Reason::Rate))]);
    line.done(&of, wait_on(Reason::Rate), 5);
    assert_eq!(acts(&line, Free { rate: 0, ..free(1) }), []);
    assert_eq!(acts(&line, free(1)), [(of, Act::Grant)]);
}

#[test]
fn for_one_that_has_missed_its_turn_no_place_of_others_is_kept_until_it_has_answered() {
    let of = flow(1, 1);
    let mut line = Line::default();
    let record = waiter(&of, State::Waiting, 1, Reason::Total);
    line.update(&of, &record, 1);
    line.done(&of, Act::Grant, 10 * MS);
    assert_eq!(line.due(210 * MS, |_| WAIT_NS), [(of, Act::Revoke)]);
    line.done(&of, Act::Revoke, 210 * MS);
    let acts = |line: &Line, free| line.turns(Among::All, 400 * MS, |_| WAIT_NS, |_| Some(free));
    assert_eq!(acts(&line, Free { total: FULL, ..free(1) }), [], "it is marked nowhere else");
    // What is kept for others is not for it, and what is free is.
    let places = |kept| Free { total: Places { limit: 2, taken: 0, kept }, ..free(1) };
    assert_eq!(acts(&line, places(2)), []);
    assert_eq!(acts(&line, places(1)), [(of, Act::Grant)]);
    // A place that is granted to it is granted to the next one as well.
    line.done(&of, Act::Grant, 400 * MS);
    let next = flow(2, 1);
    line.update(&next, &waiter(&next, State::Waiting, 3, Reason::Concurrency), 400 * MS);
    assert_eq!(acts(&line, Free { total: Places { limit: 1, ..ANY }, ..free(1) }), [(next, Act::Grant)]);
    // It has answered, in vain.
    let answered = Waiter { marks: WaitMarks::IN_SOURCE.0, ..record };
    line.update(&of, &answered, 410 * MS);
    line.remove(&next);
    let acts = line.turns(Among::All, 600 * MS, |_| WAIT_NS, |_| Some(Free { total: FULL, ..free(1) }));
    assert_eq!(acts, [(of, Act::WaitOn(Reason::Total, WaitMarks::of(Reason::Total)))]);
}

#[test]
fn no_more_are_marked_in_a_count_than_it_has_places_the_first_in_line() {
    let of = |source| flow(source, 1);
    let line = line(&[1, 2, 3].map(|source| (of(source), State::Waiting, u64::from(source))));
    let full = Places { limit: 2, taken: 2, kept: 0 };
    for reason in [Reason::Total, Reason::Network] {
        let free = |_: &Asked<'_>| {
            let (network, total) = if reason == Reason::Total { (ANY, full) } else { (full, ANY) };
            Some(Free { network, total, ..free(1) })
        };
        let [all, own] = [WaitMarks::of(reason), WaitMarks::IN_SOURCE];
        let marks = [(of(1), all), (of(2), all), (of(3), own)];
        // In networks, of which there is none here, each is the first.
        let marks = if reason == Reason::Total { marks } else { marks.map(|(of, _)| (of, all)) };
        let expected = marks.map(|(of, marks)| (of, Act::WaitOn(reason, marks)));
        assert_eq!(line.turns(Among::All, 4, |_| WAIT_NS, free), expected, "{reason:?}");
    }
}

#[test]
fn who_found_no_place_in_its_turn_rests_before_the_next() {
    let of = flow(1, 1);
    let mut line = line(&[(of, State::Waiting, 1)]);
    line.done(&of, Act::Grant, 10 * MS);
    line.update(&of, &waiter(&of, State::Waiting, 1, Reason::Total), 20 * MS);
    assert_eq!(turns(&line, 119 * MS, 1), []);
    assert_eq!(turns(&line, 120 * MS, 1), [of]);
}

#[test]
fn a_place_is_kept_for_half_a_second_for_who_does_not_answer() {
    let (far, next) = (flow(1, 1), flow(1, 2));
    let mut line = Line::default();
    line.update(
        &far,
        &Waiter { rtt_us: 1_600_000, ..waiter(&far, State::Waiting, 1, Reason::Concurrency) },
        1,
    );
    line.update(&next, &waiter(&next, State::Waiting, 2, Reason::Concurrency), 2);
    line.done(&far, Act::Grant, 0);
    assert_eq!(turns(&line, 499 * MS, 1), []);
    assert_eq!(turns(&line, 500 * MS, 1), [next], "who is faster gets it");
    assert_eq!(line.due(2_999 * MS, |_| WAIT_NS), []);
}

#[test]
fn as_many_of_a_source_are_granted_a_place_as_its_rate_allows() {
    let of = |port| flow(1, port);
    let line = line(&[(of(1), State::Waiting, 1), (of(2), State::Waiting, 2), (of(3), State::Waiting, 3)]);
    let paced = |_: &Asked<'_>| Some(Free { rate: 2, ..free(9) });
    let turns = line.turns(Among::All, 4, |_| WAIT_NS, paced);
    assert_eq!(turns, [(of(1), Act::Grant), (of(2), Act::Grant)]);
}

#[test]
fn of_a_source_with_one_place_only_the_first_waits_for_one_of_the_service() {
    let of = |port| flow(1, port);
    let line = line(&[(of(1), State::Waiting, 1), (of(2), State::Waiting, 2), (of(3), State::Waiting, 3)]);
    let full = |_: &Asked<'_>| Some(Free { total: FULL, ..free(1) });
    let wait_on = Act::WaitOn(Reason::Total, WaitMarks::of(Reason::Total));
    assert_eq!(line.turns(Among::All, 4, |_| WAIT_NS, full), [(of(1), wait_on)]);
}

#[test]
fn one_that_is_not_due_for_its_rate_keeps_no_other_source_waiting() {
    let line = line(&[(flow(1, 1), State::Waiting, 1), (flow(2, 1), State::Waiting, 2)]);
    let slow =
        |of: &Asked<'_>| Some(Free { rate: u64::from(of.flow.remote != flow(1, 1).remote), ..free(1) });
    let turns = line.turns(Among::All, 3, |_| WAIT_NS, slow);
    assert_eq!(
        turns,
        [(flow(1, 1), Act::WaitOn(Reason::Rate, WaitMarks::IN_SOURCE)), (flow(2, 1), Act::Grant)]
    );
}

/// A source, when it came, and whether it answers in its turn.
fn any_crowd() -> impl Strategy<Value = Vec<(u8, u64, bool)>> {
    prop::collection::vec((1u8..4, 0u64..2_000, any::<bool>()), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A line that is served: everyone comes to an end within `wait` and one turn, no source ever has more places
    /// than it may, and of those of a source that answer nobody gets in before one that came earlier.
    #[test]
    fn everyone_gets_in_in_order_or_is_told(crowd in any_crowd(), limit in 1u64..4, stay_ms in 1u64..3_000) {
        let mut line = Line::default();
        let mut records: HashMap<Flow, (State, u64, bool)> = HashMap::new();
        for (port, (source, at_ms, answers)) in (1u16..).zip(&crowd) {
            let since_ns = (at_ms * 100 + u64::from(port)) * 10_000;
            records.insert(flow(*source, port), (State::Waiting, since_ns, *answers));
        }
        let mut held: HashMap<Addr, Vec<u64>> = HashMap::new();
        let mut came_in: Vec<(Flow, u64)> = Vec::new();
        let mut ended: HashMap<Flow, u64> = HashMap::new();
        for now_ms in 0..9_000 {
            let now_ns = now_ms * MS;
            for (flow, (state, since_ns, _)) in &records {
                if *since_ns / MS == now_ms {
                    line.update(flow, &waiter(flow, *state, *since_ns, Reason::Concurrency), now_ns);
                }
            }
            for places in held.values_mut() {
                places.retain(|until| *until > now_ms);
            }
            for (flow, act) in line.due(now_ns, |_| WAIT_NS) {
                line.done(&flow, act, now_ns);
                if act == Act::Tell {
                    line.remove(&flow);
                    ended.insert(flow, now_ms);
                }
            }
            let turns = line.turns(Among::All, now_ns, |_| WAIT_NS, |asked| {
                let taken = held.get(&asked.flow.remote).map_or(0, Vec::len) as u64;
                Some(free(limit.saturating_sub(taken)))
            });
            for (flow, _) in turns {
                line.done(&flow, Act::Grant, now_ns);
                let (_, since_ns, answers) = records[&flow];
                if answers {
                    let places = held.entry(flow.remote).or_default();
                    places.push(now_ms + stay_ms);
                    prop_assert!(places.len() as u64 <= limit);
                    line.remove(&flow);
                    came_in.push((flow, since_ns));
                    ended.insert(flow, now_ms);
                }
            }
        }
        prop_assert!(line.is_empty());
        for (flow, (_, since_ns, _)) in &records {
            let waited_ms = ended[flow] - since_ns / MS;
            prop_assert!(waited_ms <= 5_000 + 201, "{waited_ms} ms");
        }
        for source in 1..4 {
            let of_it: Vec<u64> =
                came_in.iter().filter(|(f, _)| f.remote == flow(source, 1).remote).map(|(_, since)| *since).collect();
            prop_assert!(of_it.is_sorted(), "{of_it:?}");
        }
    }

    /// Sources of two networks that wait at a service, in every way, while connections come and go: what is kept for them is
    /// never more than their source, their network and the service could have beside its connections, however it was
    /// marked before; and who is marked is so in order.
    #[test]
    fn what_is_kept_for_who_waits_is_what_it_could_have(
        (of_source, of_network, of_total) in (1u32..4, 1u32..6, 1u32..8),
        crowd in prop::collection::vec((1u8..7, 0u8..3, any::<bool>()), 1..24),
        held in prop::collection::vec(1u8..7, 0..12),
    ) {
        let mut served = Served::new(Limits {
            source: of_source, network: of_network, total: of_total, ..Limits::NONE
        });
        for source in held {
            served.connects(source);
        }
        for (port, (source, reason, has_missed)) in (1u16..).zip(crowd) {
            let reason = [Reason::Concurrency, Reason::Network, Reason::Total][usize::from(reason)];
            served.waits(&flow(source, port), reason, has_missed);
        }
        // Others have what is left of the service, so nobody has a turn.
        while Count(served.total.load()).taken() < of_total.into() {
            prop_assert!(count::count(&served.total).is_some());
        }
        // Each takes some marks from others: at last nothing is to be changed.
        let mut passes = 0;
        while served.pass() {
            passes += 1;
            prop_assert!(passes < 8, "{:?}", served.line);
        }
        let in_order = served.line.0.values().filter(|queued| !queued.marks.has_missed());
        let (mut in_order, is_in) = (in_order.collect::<Vec<_>>(), |of: &Queued| of.is_in(Tier::Total));
        in_order.sort_by_key(|queued| queued.order);
        for (source, words) in &served.sources {
            let mine: Vec<_> = in_order.iter().filter(|of| of.count_keys.source.addr == flow(*source, 1).remote).collect();
            let kept = mine.iter().filter(|of| is_in(of)).count() as u64;
            let taken = Count(words.load()).taken();
            prop_assert!(kept == 0 || taken + kept <= of_source.into(), "{kept} beside {taken} of {source}");
            let first_without = mine.iter().position(|of| !is_in(of)).unwrap_or(mine.len());
            prop_assert!(mine[first_without..].iter().all(|of| !is_in(of)), "{:?}", served.line);
        }
        for words in &served.networks {
            let count = Count(words.load());
            prop_assert!(count.waiting() <= of_network);
        }
        let total = Count(served.total.load());
        prop_assert!(total.waiting() <= of_total);
    }
}

/// A word that nobody shares.
#[derive(Default, Debug)]
struct Number(Cell<u64>);

impl Word for Number {
    fn load(&self) -> u64 {
        self.0.get()
    }

    fn fetch_add(&self, value: u64) -> u64 {
        self.0.replace(self.0.get().wrapping_add(value))
    }

    fn compare_exchange(&self, old: u64, new: u64) -> u64 {
        let before = self.0.get();
        if before == old {
            self.0.set(new);
        }
        before
    }
}

/// A service with its counts, which are those of the kernel, and a line.
struct Served {
    limits: Limits,
    line: Line,
    sources: HashMap<u8, Number>,
    networks: [Number; 2],
    total: Number,
    waiting: Number,
    due: Number,
}

impl Served {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            line: Line::default(),
            sources: (1..7).map(|source| (source, Number::default())).collect(),
            networks: Default::default(),
            total: Number::default(),
            waiting: Number::default(),
            due: Number::default(),
        }
    }

    fn words(&self, source: u8) -> CountWords<'_, Number> {
        CountWords {
            source: &self.sources[&source],
            network: Some(&self.networks[usize::from(source) % 2]),
            total: &self.total,
            waiting: &self.waiting,
            due: &self.due,
        }
    }

    fn connects(&self, source: u8) {
        let words = self.words(source);
        if reservation::reserve(&words, &self.limits, 0, Arrival::NEW) == Outcome::Taken {
            let _connections = reservation::commit(&words);
        }
    }

    fn waits(&mut self, flow: &Flow, reason: Reason, has_missed: bool) {
        let words = self.words(source(flow));
        let Wait::Waits(mut marks) = reservation::wait(&words, &self.limits, reason, 9, 99) else { return };
        if has_missed {
            marks = reservation::miss(&words, marks);
        }
        let since_ns = u64::from(flow.remote_port);
        let waiter = waiter(flow, State::Waiting, since_ns, reason);
        self.line.update(flow, &Waiter { marks: marks.0, ..waiter }, since_ns);
        // Every second source is of the same network.
        let mut policy = policy();
        policy.network_max_connections = self.limits.network;
        (policy.network.ipv4, policy.network.ipv6) = (24, 48);
        let neighbour = Addr::from(IpAddr::V4(Ipv4Addr::new(198, 51, source(flow) % 2, 1)));
        let of_network = CountKeys::new(SERVICE, &policy, limiter_common::Scope::SERVICES, &neighbour);
        if let Some(queued) = self.line.0.get_mut(flow) {
            queued.count_keys.network = of_network.network;
        }
    }

    /// What the daemon does once; whether it has changed a mark.
    fn pass(&mut self) -> bool {
        let count = |word: &Number| Count(word.load());
        let turns = self.line.turns(
            Among::All,
            MS,
            |_| WAIT_NS,
            |asked| {
                let words = self.words(source(asked.flow));
                let taken = count(words.source).taken();
                Some(Free {
                    source: u64::from(self.limits.source).saturating_sub(taken),
                    network: Places::of(self.limits.network, count(words.network?)),
                    total: Places::of(self.limits.total, count(words.total)),
                    ..free(0)
                })
            },
        );
        let mut has_changed = false;
        for (flow, act) in turns {
            let Act::WaitOn(reason, to) = act else { continue };
            let from = self.line.0[&flow].marks;
            let marks = if from.has_missed() {
                from
            } else {
                reservation::wait_on(&self.words(source(&flow)), &self.limits, from, to)
            };
            has_changed |= marks != from;
            self.line.done(&flow, Act::WaitOn(reason, marks), MS);
        }
        has_changed
    }
}

fn source(flow: &Flow) -> u8 {
    flow.remote.0[3].to_ne_bytes()[3]
}
