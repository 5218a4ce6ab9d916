// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What holds of every case, whatever is in it.

use std::{collections::BTreeMap, time::Duration};

use limiter_common::{Protocol, Reason};
use proptest::prelude::*;

use super::{
    super::{Cause, Command, Confidence, Diagnosis, diagnose, nearer},
    of,
    scene::{NOW_S, Scene, Seen},
};
use crate::evidence::{
    State,
    case::{AddressKind, Case, Known, LimitScope, Period, Watched},
};

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..8000, 1 => any::<u32>().prop_map(u64::from), 1 => Just(u64::MAX)]
}

prop_compose! {
    fn seen()(
        age in prop::option::weighted(0.9, time()), received_ago in time(), heard_ago in time(),
        received in prop_oneof![0_u64..5000, any::<u64>()], probes in 0_u8..8, is_blind in prop::bool::weighted(0.1),
        state in prop::sample::select(vec![State::Open, State::Open, State::ClientClosed, State::ServerClosed, State::Dead]),
    ) -> Seen {
        Seen { age, received_ago, heard_ago, received, sent_bytes: received / 2, probes, state, is_blind }
    }
}

prop_compose! {
    fn period()(
        back in 0_u64..200_000, seconds in prop_oneof![Just(900_u32), Just(3600), any::<u32>()], peak in 0_u32..50,
        limit in prop::option::of(1_u32..50), accepted in prop_oneof![0_u64..500, any::<u64>()],
        ended in prop_oneof![0_u64..500, any::<u64>()], ended_within_minute in 0_u64..500, users in prop::option::of(0_u32..9),
    ) -> Period {
        Period {
            start_s: NOW_S - back, seconds, peak, limit, accepted, ended_within_minute, ended, users,
            refused: BTreeMap::new(),
        }
    }
}

prop_compose! {
    fn watched()(
        seconds in time(), begun in prop::collection::vec(time(), 0..80),
        ended in prop::collection::vec((time(), prop::option::of(time())), 0..80), connections: (u32, u32),
    ) -> Watched {
        let time = Duration::from_secs;
        Watched {
            time: time(seconds), begun: begun.into_iter().map(time).collect(),
            ended: ended.into_iter().map(|(at, age)| (time(at), age.map(time))).collect(),
            refused: 3, connections, bytes: 7,
        }
    }
}

prop_compose! {
    fn case()(
        protocol in prop::sample::select(Protocol::ALL.to_vec()),
        kind in prop::sample::select(vec![
            AddressKind::Public, AddressKind::Private, AddressKind::CarrierNat, AddressKind::Local,
        ]),
        seen in prop::collection::vec(seen(), 0..20),
        users in prop::option::of(prop::collection::btree_map("[a-e]", prop_oneof![0_u32..12, any::<u32>()], 0..5)),
        history in prop::option::of(prop::collection::vec(period(), 0..6)),
        watched in prop::option::of(watched()),
        (limit, reason) in (prop::option::of(prop_oneof![1_u32..30, any::<u32>()]), prop::option::of(prop::sample::select(Reason::ALL.to_vec()))),
        (counted, waiting, all, max_total, sources, at_limit) in
            (any::<u32>(), 0_u32..5, any::<u32>(), prop::option::of(any::<u32>()), 0_u32..300, any::<u32>()),
        (not_greeted, queue, daemon_limit) in
            (0_u32..20, prop::option::of(any::<(u32, u32)>()), prop::option::of(any::<u64>())),
        is_counted: bool,
    ) -> Case {
        let scene = Scene::of(protocol.name(), protocol).sessions(seen.len() as u64, |n| seen[n as usize].clone());
        let mut case = scene.whole(|whole| {
            (whole.connections, whole.max_total) = (all, max_total);
            (whole.sources, whole.sources_at_limit) = (sources, at_limit);
            whole.network = max_total.map(|max| ("203.0.113.0/24".parse().unwrap(), all, Some(max)));
        }).case;
        if is_counted {
            case.connections = counted;
        }
        (case.kind, case.limit, case.reason, case.waiting) = (kind, limit, reason, waiting);
        case.users = users.map_or_else(|| Known::Not("nobody says".to_owned()), Known::Is);
        case.history = history.map_or_else(|| Known::Not("there is none".to_owned()), Known::Is);
        case.watched = watched;
        (case.server.not_greeted, case.server.accept_queue) = (not_greeted, queue);
        let scene = Scene { case };
        match daemon_limit {
            Some(value) => scene.daemon_limit("a_limit", value, LimitScope::Service).case,
            None => scene.case,
        }
    }
}

/// One connection becomes silent: nothing answers any more.
fn silence(case: &mut Case, which: usize, dies: bool) {
    let Some(session) = case.sessions.get_mut(which) else { return };
    if dies {
        (session.connection.state, session.connection.socket) = (State::Dead, None);
    } else if let Some(tcp) = session.connection.socket.as_mut().and_then(|socket| socket.tcp.as_mut()) {
        tcp.heard_ago = tcp.heard_ago.max(Duration::from_secs(7200));
        tcp.probes = 9;
    }
}

fn is_sane(diagnosis: &Diagnosis) {
    for pair in diagnosis.findings.windows(2) {
        assert!(pair[0].confidence >= pair[1].confidence, "the surest first");
    }
    for finding in &diagnosis.findings {
        assert!(!finding.evidence.is_empty(), "{finding:?}");
        assert!(!finding.summary.is_empty() && !finding.for_user.is_empty());
        let is_excluded = diagnosis.excluded.iter().any(|excluded| excluded.cause == finding.cause);
        assert!(!is_excluded, "found and excluded: {:?}", finding.cause);
        for remedy in &finding.remedies {
            let (Command::Limiter(words) | Command::Shell(words) | Command::ByHand(words)) = &remedy.command;
            assert!(!words.is_empty() && !remedy.effect.is_empty());
        }
    }
}

proptest! {
    #[test]
    fn a_case_is_diagnosed_whatever_is_in_it(case in case()) {
        let diagnosis = diagnose(&case);
        is_sane(&diagnosis);
        prop_assert_eq!(&diagnosis, &diagnose(&case), "twice the same");
        let _any = nearer(&case);
    }

    #[test]
    fn silence_never_makes_a_loop_likelier(case in case(), which in 0_usize..20, dies: bool) {
        let mut silent = case.clone();
        silence(&mut silent, which, dies);
        prop_assert!(of(&diagnose(&silent), Cause::Looping) <= of(&diagnose(&case), Cause::Looping));
    }

    #[test]
    fn silence_never_makes_ghosts_less_likely(case in case(), which in 0_usize..20) {
        let mut silent = case.clone();
        silence(&mut silent, which, false);
        prop_assert!(of(&diagnose(&silent), Cause::Ghosts) >= of(&diagnose(&case), Cause::Ghosts));
    }

    #[test]
    fn users_that_nobody_knows_are_never_surely_one_or_many(case in case()) {
        let mut unknown = case;
        unknown.users = Known::Not("nobody says".to_owned());
        let diagnosis = diagnose(&unknown);
        prop_assert!(of(&diagnosis, Cause::OneUser) <= Some(Confidence::Low));
        prop_assert!(of(&diagnosis, Cause::ManyUsers) <= Some(Confidence::Medium));
        prop_assert!(diagnosis.excluded.iter().all(|one| !matches!(one.cause, Cause::OneUser | Cause::ManyUsers)
            || !one.why.contains("user")), "{:?}", diagnosis.excluded);
    }

    #[test]
    fn without_the_past_and_without_watching_nothing_is_said_of_how_connections_come(case in case()) {
        let mut still = case;
        (still.watched, still.history) = (None, Known::Not("there is none".to_owned()));
        let diagnosis = diagnose(&still);
        prop_assert_eq!(of(&diagnosis, Cause::ChecksTooOften), None);
        prop_assert!(of(&diagnosis, Cause::Looping) <= Some(Confidence::Medium));
        let is_of_loops = |cause| matches!(cause, Cause::Looping | Cause::ChecksTooOften);
        prop_assert!(diagnosis.excluded.iter().all(|one| !is_of_loops(one.cause)), "{:?}", diagnosis.excluded);
    }

    #[test]
    fn who_is_refused_for_what_others_hold_is_told_so_first(case in case()) {
        let mut full = case;
        full.reason = Some(Reason::Total);
        let connections = full.connections.max(u32::try_from(full.sessions.len()).unwrap());
        full.whole.connections = connections.saturating_mul(2).saturating_add(1);
        prop_assume!(connections < u32::MAX / 2);
        prop_assert_eq!(diagnose(&full).first().map(|first| first.cause), Some(Cause::FullAround));
    }
}
