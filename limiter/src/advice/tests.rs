// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Advice for seven simulated days of which everything is known.

use std::collections::BTreeMap;

use ipnet::IpNet;
use limiter_common::Reason;
use proptest::prelude::*;

use super::{Advice, Look, OwnRule, Past, Would};
use crate::history::{Day, Durations, Quarter};

const DAY_S: i64 = 86_400;
/// Midnight of 2026-11-23, UTC, a Monday.
const MONDAY: i64 = 1_795_392_000;
const DAYS: usize = 7;
/// The limit that was in force.
const LIMIT: u32 = 20;

/// A source of the replay.
#[derive(Clone, Debug)]
struct Actor {
    source: IpNet,
    /// The most connections that it holds at one time, day by day.
    peaks: [u32; DAYS],
    /// Whether its connections last for hours.
    stays: bool,
    users: Option<u32>,
    /// Whether it is refused for its number of connections.
    is_refused: bool,
    /// Whether a rule allows it.
    is_allowed: bool,
}

impl Actor {
    fn new(source: &str, peaks: [u32; DAYS]) -> Self {
        let source = source.parse().unwrap_or_else(|_| panic!("{source}"));
        Self { source, peaks, stays: true, users: None, is_refused: false, is_allowed: false }
    }

    /// Somebody whom nobody wants to refuse.
    const fn is_honest(&self) -> bool {
        self.stays || matches!(self.users, Some(1..))
    }

    /// Its rows: one for each day, in the quarter of an hour of its peak.
    fn rows(&self, service: &str) -> Vec<Quarter> {
        let rows = self.peaks.iter().enumerate().filter(|(_, peak)| **peak > 0);
        rows.map(|(day, &peak)| {
            let start_s = MONDAY + day as i64 * DAY_S + 9 * 3600;
            let mut row = Quarter::new(start_s, 900, service, self.source);
            (row.peak, row.accepted, row.users) = (peak, u64::from(peak) * 3, self.users);
            row.limit = (!self.is_allowed).then_some(LIMIT);
            let ended = u64::from(peak);
            row.durations = Some(if self.stays {
                Durations { under_8_h: ended, ..Durations::default() }
            } else {
                Durations { under_1_min: ended, ..Durations::default() }
            });
            if self.is_refused {
                row.refused = 7;
                row.refused_for[Reason::Concurrency as usize] = 7;
            }
            row
        })
        .collect()
    }
}

/// What the history has of them.
fn past(actors: &[Actor], observes: bool) -> Past {
    let mut days: Vec<Day> = (0..DAYS)
        .map(|day| Day {
            start_s: MONDAY + day as i64 * DAY_S,
            service: "imap".to_owned(),
            sources_by_peak: BTreeMap::new(),
            is_complete: true,
        })
        .collect();
    for actor in actors {
        for (day, &peak) in days.iter_mut().zip(&actor.peaks).filter(|(_, peak)| **peak > 0) {
            *day.sources_by_peak.entry(peak).or_default() += 1;
        }
    }
    let rows = |is_asked_for: fn(&Actor) -> bool| -> Vec<Quarter> {
        actors.iter().filter(|actor| is_asked_for(actor)).flat_map(|actor| actor.rows("imap")).collect()
    };
    Past {
        service: "imap".to_owned(),
        max_connections: LIMIT,
        observes,
        days,
        notable: rows(|_| true).into_iter().filter(Quarter::is_notable).collect(),
        ruled: rows(|actor| actor.is_allowed),
        mail: Vec::new(),
    }
}

/// A week of a small provider: people at home, people with many devices, offices, an office network, webmail, and hosts
/// that guess passwords.
fn week() -> Vec<Actor> {
    let mut actors = Vec::new();
    for n in 0..300_u32 {
        actors.push(Actor::new(&format!("192.0.{}.{}/32", n / 250, n % 250), [2; DAYS]));
    }
    for n in 0..20 {
        let several = Actor::new(&format!("2001:db8:{n:x}::/64"), [10, 8, 9, 10, 8, 9, 10]);
        actors.push(Actor { users: Some(1), ..several });
    }
    let office = Actor::new("203.0.113.7/32", [31, 31, 31, 31, 31, 6, 6]);
    actors.push(Actor { users: Some(9), ..office });
    for (host, peak) in [(1, 24), (2, 26), (3, 28)] {
        let campus = Actor::new(&format!("198.51.100.{host}/32"), [peak; DAYS]);
        actors.push(Actor { users: Some(12), ..campus });
    }
    for n in 0..12 {
        let guesser = Actor::new(&format!("192.0.2.{n}/32"), [40, 0, 40, 0, 40, 0, 40]);
        actors.push(Actor { stays: false, users: Some(0), ..guesser });
    }
    actors.push(Actor { is_allowed: true, ..Actor::new("10.0.0.5/32", [120; DAYS]) });
    actors
}

#[test]
fn seven_known_days_give_exactly_the_known_numbers() {
    let advice = Advice::of(&past(&week(), true));
    assert_eq!((advice.days, advice.is_complete, advice.ruled), (7, true, 1));
    // 300 at home; 20 with many devices: 2 days of 8, 2 of 9, 3 of 10; the offices; 12 guessers on 4 days.
    let known = [(2, 2100), (6, 2), (8, 40), (9, 40), (10, 60), (24, 7), (26, 7), (28, 7), (31, 5), (40, 48)];
    assert_eq!(advice.source_days_by_peak, BTreeMap::from(known));
    let offices = 5 + 21;
    let would = |limit, source_days, connections, honest, dubious| Would {
        limit,
        source_days,
        connections,
        honest,
        dubious,
        unknown: source_days - honest - dubious,
    };
    assert_eq!(
        advice.limits,
        [
            // Of those with less than half of the limit nothing is known but how many there were.
            would(4, 2 + 140 + offices + 48, 4 + 160 + 200 + 360 + 135 + 462 + 1728, 60 + offices, 48),
            would(8, 100 + offices + 48, 40 + 120 + 115 + 378 + 1536, 60 + offices, 48),
            would(10, offices + 48, 105 + 336 + 1440, offices, 48),
            would(12, offices + 48, 95 + 294 + 1344, offices, 48),
            would(20, offices + 48, 55 + 126 + 960, offices, 48),
            would(50, 0, 0, 0, 0),
            would(100, 0, 0, 0, 0),
        ]
    );
    let suggestion = advice.suggestion.expect("there is something to say");
    assert_eq!(suggestion.max_connections, 12);
    let rules: Vec<(String, u32)> =
        suggestion.rules.iter().map(|rule| (rule.network.to_string(), rule.max_connections)).collect();
    assert_eq!(rules, [("198.51.100.0/24".to_owned(), 40), ("203.0.113.7/32".to_owned(), 40)]);
    assert_eq!(
        suggestion.reasons[2],
        "it would have refused 1344 connections at least on 48 source-days, all of sources that come and go and have \
         no known user"
    );
    assert_eq!(suggestion.doubts, Vec::<String>::new());
}

#[test]
fn nobody_whom_the_replay_calls_honest_is_refused() {
    let week = week();
    let suggestion = Advice::of(&past(&week, true)).suggestion.unwrap();
    for actor in week.iter().filter(|actor| actor.is_honest() && !actor.is_allowed) {
        let most = actor.peaks.iter().max().unwrap();
        assert!(suggestion.of(&actor.source) >= *most, "{actor:?}: {suggestion:?}");
    }
}

#[test]
fn without_the_offices_the_guessers_alone_would_have_been_refused() {
    let mut actors = week();
    actors.retain(|actor| actor.peaks[0] <= 10 || !actor.is_honest());
    let advice = Advice::of(&past(&actors, true));
    let suggestion = advice.suggestion.unwrap();
    assert_eq!((suggestion.max_connections, suggestion.rules.len()), (12, 0));
    let of_12 = advice.limits.iter().find(|would| would.limit == 12).unwrap();
    assert_eq!((of_12.source_days, of_12.dubious, of_12.honest), (48, 48, 0));
}

#[test]
fn who_was_refused_at_the_limit_may_want_twice_as_many_and_that_is_a_doubt() {
    let refused = Actor { users: Some(3), is_refused: true, ..Actor::new("203.0.113.7/32", [20; DAYS]) };
    let home = Actor::new("192.0.2.1/32", [2; DAYS]);
    let advice = Advice::of(&past(&[refused, home], false));
    let suggestion = advice.suggestion.unwrap();
    assert_eq!(suggestion.max_connections, 10);
    let rule = OwnRule {
        network: "203.0.113.7/32".parse().unwrap(),
        max_connections: 50,
        why: "it held 20 connections at one time and was refused there, several users are known".to_owned(),
    };
    assert_eq!(suggestion.rules, [rule]);
    assert!(suggestion.doubts[0].starts_with("one source that looks honest was refused"), "{suggestion:?}");
}

#[test]
fn a_few_days_and_days_that_are_not_whole_are_doubts() {
    let mut past = past(&[Actor::new("192.0.2.1/32", [2; DAYS])], true);
    past.days.truncate(2);
    past.days[0].is_complete = false;
    let suggestion = Advice::of(&past).suggestion.unwrap();
    assert_eq!(suggestion.doubts.len(), 2, "{suggestion:?}");
    assert!(suggestion.doubts[0].starts_with("the history has 2 days"), "{suggestion:?}");
    past.days.truncate(1);
    let advice = Advice::of(&past);
    assert_eq!(advice.suggestion, None);
    let why = "not enough history: it has connections of one day only at imap; a suggestion takes 2 days, and a week is \
               better";
    assert_eq!(advice.not_suggested.as_deref(), Some(why));
}

#[test]
fn where_nobody_is_known_nothing_is_suggested() {
    assert_eq!(Advice::of(&past(&[], true)).suggestion, None);
    let guesser = Actor { stays: false, ..Actor::new("192.0.2.1/32", [40; DAYS]) };
    let webmail = Actor { is_allowed: true, users: Some(80), ..Actor::new("10.0.0.5/32", [120; DAYS]) };
    let advice = Advice::of(&past(&[guesser, webmail], true));
    assert_eq!(advice.suggestion, None, "who guesses passwords is no measure");
    assert_eq!(advice.sources[0].look, Look::Dubious);
}

/// As at port 25: nobody logs in, and each connection is short.
#[test]
fn where_nobody_logs_in_short_connections_make_nobody_dubious() {
    let sender =
        |host: u8, peak| Actor { stays: false, ..Actor::new(&format!("192.0.2.{host}/32"), [peak; DAYS]) };
    let mut actors: Vec<Actor> = (0..9).map(|host| sender(host, 14)).collect();
    let advice = Advice::of(&past(&actors, true));
    assert!(advice.sources.iter().all(|source| source.look == Look::Unknown));
    let suggestion = advice.suggestion.unwrap();
    assert_eq!((suggestion.max_connections, suggestion.undecided.len()), (15, 0));
    assert!(suggestion.reasons[0].contains("nothing says whether it is honest"), "{suggestion:?}");
    // One that holds far more gets no rule by itself, and does not raise the limit of all.
    actors.push(sender(99, 400));
    let advice = Advice::of(&past(&actors, true));
    let suggestion = advice.suggestion.unwrap();
    assert_eq!((suggestion.max_connections, suggestion.rules.len()), (15, 0));
    assert_eq!(suggestion.undecided[0].peak, 400);
    let said = "it would have refused 2695 connections at least: on 0 source-days of sources that come and go and have no \
                known user, on 7 of those that are undecided";
    assert_eq!(suggestion.reasons[1], said);
}

/// A limit that was reached once is no reason for a higher one, week after week.
#[test]
fn who_is_not_known_does_not_raise_the_limit_at_which_it_was_refused() {
    let at_limit = |host: u8| {
        let sender = Actor::new(&format!("192.0.2.{host}/32"), [LIMIT; DAYS]);
        Actor { stays: false, is_refused: true, ..sender }
    };
    let actors: Vec<Actor> = (0..30).map(at_limit).collect();
    let suggestion = Advice::of(&past(&actors, false)).suggestion.unwrap();
    assert_eq!((suggestion.max_connections, suggestion.rules.len()), (LIMIT, 0));
}

fn actor() -> impl Strategy<Value = Actor> {
    let source = prop_oneof![
        (0_u8..4, 0_u8..=255).prop_map(|(net, host)| format!("203.0.{net}.{host}/32")),
        (0_u16..4, 0_u16..64).prop_map(|(net, site)| format!("2001:db8:{net:x}:{site:x}::/64")),
    ];
    let users = prop_oneof![Just(None), (0_u32..4).prop_map(Some)];
    let peaks = prop::array::uniform7(prop_oneof![3 => 0_u32..4, 2 => 4_u32..30, 1 => 0_u32..2000]);
    (source, peaks, any::<bool>(), users, prop::bool::weighted(0.1), prop::bool::weighted(0.1)).prop_map(
        |(source, peaks, stays, users, is_refused, is_allowed)| Actor {
            stays,
            users,
            is_refused,
            is_allowed,
            ..Actor::new(&source, peaks)
        },
    )
}

proptest! {
    /// Whoever connects how often: nobody honest is refused, and nobody of whom nothing is known.
    #[test]
    fn a_suggestion_refuses_only_who_comes_and_goes_without_a_user(
        actors in prop::collection::vec(actor(), 0..40),
    ) {
        let mut by_source: BTreeMap<IpNet, Actor> = BTreeMap::new();
        for actor in actors {
            by_source.insert(actor.source, actor);
        }
        let actors: Vec<Actor> = by_source.into_values().collect();
        let advice = Advice::of(&past(&actors, true));
        let Some(suggestion) = &advice.suggestion else {
            let is_nobody = |actor: &Actor| {
                actor.is_allowed || !actor.is_honest() || actor.peaks.iter().all(|peak| *peak == 0)
            };
            // A suggestion takes two days, too.
            let is_unknown = actors.iter().all(is_nobody) || advice.days < 2;
            prop_assert!(is_unknown, "{:?}", advice);
            return Ok(());
        };
        for actor in actors.iter().filter(|actor| !actor.is_allowed) {
            let most = actor.peaks.iter().copied().max().unwrap_or(0);
            let is_known = actor.rows("imap").iter().any(Quarter::is_notable);
            if actor.is_honest() || !is_known {
                prop_assert!(suggestion.of(&actor.source) >= most, "{actor:?}: {suggestion:?}");
            }
        }
        // What is counted is all there is, each once.
        let all: u64 = advice.source_days_by_peak.values().sum();
        let days = |actor: &Actor| actor.peaks.iter().filter(|peak| **peak > 0).count() as u64;
        prop_assert_eq!(all, actors.iter().filter(|actor| !actor.is_allowed).map(days).sum::<u64>());
        for would in &advice.limits {
            prop_assert_eq!(would.source_days, would.honest + would.dubious + would.unknown);
        }
    }
}
