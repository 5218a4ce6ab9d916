// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where a cause begins: just below it, and just at it.

use limiter_common::{Protocol, Reason};

use super::{
    super::{Cause, Command, Confidence, diagnose, nearer},
    an_office, first, of, one_program,
    scene::{MINUTE, Scene, Seen},
};
use crate::evidence::case::{AddressKind, LimitScope};

const HIGH: Option<Confidence> = Some(Confidence::High);
const MEDIUM: Option<Confidence> = Some(Confidence::Medium);
const LOW: Option<Confidence> = Some(Confidence::Low);

/// What is said of a cause, in several scenes.
#[track_caller]
fn said(cause: Cause, scenes: impl IntoIterator<Item = (Scene, Option<Confidence>)>) {
    for (number, (scene, expected)) in scenes.into_iter().enumerate() {
        let diagnosis = diagnose(&scene.case);
        assert_eq!(of(&diagnosis, cause), expected, "scene {number}: {diagnosis:#?}");
    }
}

#[test]
fn one_user_needs_four_sessions_and_two_thirds_of_all() {
    let sessions = |count: u64, users: &[(&str, u32)]| {
        Scene::imap().sessions(count, |n| Seen::resting(500 * (n + 1) + n * n * 90, 70)).users(users)
    };
    said(
        Cause::OneUser,
        [
            (sessions(3, &[("anna", 3)]), None),
            (sessions(4, &[("anna", 4)]), HIGH),
            (sessions(9, &[("anna", 6), ("ben", 3)]), None),
            (sessions(10, &[("anna", 7), ("ben", 3)]), MEDIUM),
            (sessions(10, &[("anna", 4)]).with(|case| case.connections = 10), MEDIUM),
        ],
    );
}

#[test]
fn users_that_are_not_known_make_one_user_a_guess_at_most() {
    let unknown = Scene::imap().sessions(10, |n| Seen::resting(3 * 3600 + n / 3, 7200));
    let apart = Scene::imap().sessions(10, |n| Seen::resting(3600 + 700 * n + n * n * 90, 7200));
    said(Cause::OneUser, [(unknown, LOW), (apart, None)]);
}

#[test]
fn many_users_are_two_and_surely_four_of_whom_none_stands_out() {
    let users = |users: &[(&str, u32)]| {
        let all = users.iter().map(|(_, sessions)| u64::from(*sessions)).sum();
        Scene::imap().sessions(all, |n| Seen::resting(500 * (n + 1), 70)).users(users)
    };
    said(
        Cause::ManyUsers,
        [
            (users(&[("anna", 10)]), None),
            (users(&[("anna", 5), ("ben", 5)]), MEDIUM),
            (users(&[("anna", 4), ("ben", 3), ("cleo", 3)]), MEDIUM),
            (users(&[("anna", 5), ("ben", 2), ("cleo", 2), ("dora", 1)]), HIGH),
            (users(&[("anna", 6), ("ben", 2), ("cleo", 1), ("dora", 1)]), MEDIUM),
            (users(&[("anna", 8), ("ben", 1), ("cleo", 1), ("dora", 1)]), LOW),
        ],
    );
}

#[test]
fn users_of_the_past_count_where_nobody_says_who_is_there_now() {
    let past = |users: u32| {
        Scene::imap().sessions(10, |n| Seen::resting(500 * (n + 1), 70)).history(&[(10, 3, 2, 0)]).with(
            |case| {
                if let crate::evidence::case::Known::Is(periods) = &mut case.history {
                    for period in periods {
                        period.users = Some(users);
                    }
                }
            },
        )
    };
    said(Cause::ManyUsers, [(past(1), None), (past(2), LOW), (past(4), MEDIUM)]);
    let carrier =
        Scene::imap().at("100.64.3.4", AddressKind::CarrierNat).sessions(10, |n| Seen::resting(n, 0));
    said(Cause::ManyUsers, [(carrier, LOW)]);
}

#[test]
fn ghosts_are_two_and_a_quarter_of_all_and_surely_half() {
    let with = |gone: u64, there: u64| {
        Scene::imap()
            .sessions(gone, |n| Seen { probes: 3, heard_ago: 300, ..Seen::resting(4000 + 90 * n, 300) })
            .sessions(there, |n| Seen::resting(4000 + 77 * n, 70))
    };
    let silent = |silent: u64, there: u64, seconds: u64| {
        Scene::imap()
            .sessions(silent, |n| Seen { heard_ago: seconds, ..Seen::resting(4000 + 90 * n, seconds) })
            .sessions(there, |n| Seen::resting(4000 + 77 * n, 70))
    };
    said(
        Cause::Ghosts,
        [
            (with(1, 1), None),
            (with(2, 7), None),
            (with(2, 6), LOW),
            (with(4, 6), LOW),
            (with(5, 5), HIGH),
            (silent(5, 5, 31 * MINUTE), MEDIUM),
            (silent(5, 5, 31 * MINUTE - 1), None),
            (silent(3, 7, 31 * MINUTE), LOW),
        ],
    );
}

#[test]
fn a_lost_segment_or_two_make_no_ghost() {
    let with = |probes: u8, heard_ago: u64| {
        Scene::imap().sessions(6, |n| Seen { heard_ago, probes, ..Seen::resting(4000 + n, heard_ago) })
    };
    said(Cause::Ghosts, [(with(2, 300), None), (with(3, 59), None), (with(3, 60), HIGH)]);
}

#[test]
fn ghosts_are_closed_by_a_silence_that_no_client_has_that_is_there() {
    let close = |of_others: u64| {
        let scene = Scene::imap()
            .sessions(6, |n| Seen { probes: 4, heard_ago: 400 + n, ..Seen::resting(4000, 400 + n) })
            .sessions(4, |_| Seen { heard_ago: of_others, ..Seen::resting(4000, of_others) });
        let first = diagnose(&scene.case).findings.swap_remove(0);
        first.remedies.iter().find_map(|remedy| match &remedy.command {
            Command::Limiter(words) if words.starts_with("close ") => Some(words.clone()),
            _ => None,
        })
    };
    assert_eq!(close(100).as_deref(), Some("close 203.0.113.7 --service imap --silent 6m"));
    assert_eq!(close(359).as_deref(), Some("close 203.0.113.7 --service imap --silent 6m"));
    assert_eq!(close(360), None, "a client that is there has been silent as long");
}

#[test]
fn a_loop_is_twelve_a_minute_for_each_user_and_nearly_all_short() {
    let looping = |begun: u64, short: usize, long: usize, users: &[(&str, u32)]| {
        let mut ages = vec![2; short];
        ages.extend(vec![90; long]);
        Scene::imap().sessions(2, |_| Seen::busy(1)).users(users).watched(
            60,
            (0..begun).map(|n| n * 60 / begun).collect(),
            &ages,
            (2, 2),
        )
    };
    said(
        Cause::Looping,
        [
            (looping(11, 11, 0, &[("anna", 1)]), None),
            (looping(12, 12, 0, &[("anna", 1)]), HIGH),
            (looping(12, 7, 3, &[("anna", 1)]), None),
            (looping(12, 8, 2, &[("anna", 1)]), HIGH),
            (looping(23, 23, 0, &[("anna", 1), ("ben", 1)]), None),
            (looping(24, 24, 0, &[("anna", 1), ("ben", 1)]), LOW),
        ],
    );
    let unknown = |begun: u64| {
        Scene::imap().sessions(2, |_| Seen::busy(1)).watched(
            60,
            (0..begun).map(|n| n * 60 / begun).collect(),
            &[1; 9],
            (2, 2),
        )
    };
    said(Cause::Looping, [(unknown(59), LOW), (unknown(60), MEDIUM)]);
}

#[test]
fn a_leak_is_three_more_than_before_that_came_one_by_one_and_none_less() {
    let grows = |begun: Vec<u64>, ended: &[u64], after: u32| {
        Scene::imap().sessions(8, |n| Seen::resting(300 + n * n * 200, 70)).users(&[("anna", 8)]).watched(
            60,
            begun,
            ended,
            (8, after),
        )
    };
    said(
        Cause::Looping,
        [
            (grows(vec![3, 30], &[], 10), None),
            (grows(vec![3, 25, 50], &[], 11), HIGH),
            (grows(vec![3, 25, 50, 55], &[80], 11), None),
            (grows(vec![3, 4, 5, 6], &[], 12), None),
        ],
    );
}

#[test]
fn what_the_history_says_is_less_sure_than_what_was_watched() {
    let quarters = [(2, 200, 200, 195); 4];
    let scene = Scene::imap().sessions(1, |_| Seen::busy(1)).users(&[("anna", 1)]).history(&quarters);
    said(Cause::Looping, [(scene.clone(), MEDIUM)]);
    let long_ago = scene.with(|case| case.now_s += 3 * 3600);
    said(Cause::Looping, [(long_ago, None)]);
    let one_quarter =
        Scene::imap().sessions(1, |_| Seen::busy(1)).users(&[("anna", 1)]).history(&quarters[..1]);
    said(Cause::Looping, [(one_quarter, None)]);
    let grows = [(3, 4, 0, 0), (6, 4, 0, 0), (9, 4, 0, 0), (10, 2, 0, 0)];
    let scene =
        Scene::imap().sessions(10, |n| Seen::resting(n * n * 50, 0)).users(&[("anna", 10)]).history(&grows);
    said(Cause::Looping, [(scene, MEDIUM)]);
}

#[test]
fn checking_too_often_is_every_two_minutes_for_each_user() {
    let checks = |quarters: &[(u32, u64, u64, u64)], users: &[(&str, u32)]| {
        Scene::imap().sessions(1, |_| Seen::busy(1)).users(users).history(quarters)
    };
    let anna: &[(&str, u32)] = &[("anna", 1)];
    said(
        Cause::ChecksTooOften,
        [
            (checks(&[(1, 7, 7, 7); 4], anna), None),
            (checks(&[(1, 8, 8, 8); 4], anna), HIGH),
            (checks(&[(1, 8, 8, 6); 4], anna), None),
            (checks(&[(1, 2, 2, 2), (1, 40, 40, 40), (1, 9, 9, 9)], anna), MEDIUM),
            (checks(&[(1, 12, 12, 12); 4], &[("anna", 1), ("ben", 1)]), None),
            (checks(&[(1, 16, 16, 16); 4], &[("anna", 1), ("ben", 1)]), MEDIUM),
        ],
    );
    let unknown = Scene::imap().sessions(1, |_| Seen::busy(1)).history(&[(1, 30, 30, 30); 4]);
    said(Cause::ChecksTooOften, [(unknown, MEDIUM)]);
}

#[test]
fn what_is_in_front_has_an_inside_address_and_several_users_or_most_of_the_service() {
    let inside = |address: &str, users: Option<&[(&str, u32)]>, of_service: u32| {
        let scene = Scene::imap().at(address, AddressKind::Private).sessions(10, |n| Seen::busy(n + 1));
        let scene = scene.whole(|whole| whole.connections = of_service);
        match users {
            Some(users) => scene.users(users),
            None => scene,
        }
    };
    let three: &[(&str, u32)] = &[("anna", 4), ("ben", 3), ("cleo", 3)];
    said(
        Cause::InFront,
        [
            (inside("10.0.0.9", Some(&[("anna", 10)]), 200), None),
            (inside("10.0.0.9", Some(&[("anna", 10)]), 20), LOW),
            (inside("10.0.0.9", Some(&[("anna", 5), ("ben", 5)]), 200), MEDIUM),
            (inside("10.0.0.9", Some(three), 200), MEDIUM),
            (inside("10.0.0.9", Some(three), 40), HIGH),
            (inside("10.0.0.9", None, 200), None),
            (inside("10.0.0.9", None, 20), MEDIUM),
            (inside("172.17.0.1", None, 200), MEDIUM),
            (inside("172.17.0.2", None, 200), None),
            (an_office(), None),
        ],
    );
    let own = Scene::imap().at("192.0.2.25", AddressKind::Local).sessions(9, |n| Seen::busy(n + 1));
    said(Cause::InFront, [(own.clone(), MEDIUM), (own.whole(|whole| whole.connections = 18), HIGH)]);
}

#[test]
fn a_sender_has_four_connections_of_which_half_carry_mail() {
    let sends = |with_mail: u64, without: u64| {
        Scene::smtp()
            .sessions(with_mail, |n| Seen { received: 1024, ..Seen::busy(n + 1) })
            .sessions(without, |n| Seen { received: 1023, ..Seen::busy(n + 1) })
    };
    said(
        Cause::Sender,
        [
            (sends(3, 0), None),
            (sends(4, 0), MEDIUM),
            (sends(2, 2), MEDIUM),
            (sends(2, 3), LOW),
            (sends(1, 3), LOW),
            (sends(1, 4), None),
            (sends(4, 0).with(|case| case.protocol = Protocol::Imap), None),
        ],
    );
}

#[test]
fn a_limit_is_too_low_where_one_source_in_twenty_is_at_it_and_surely_one_in_ten() {
    let at_limit = |at_limit: u32, sources: u32, limit: u32| {
        Scene::imap()
            .sessions(10, |n| Seen::resting(500 * (n + 1) + n * n * 90, 70))
            .whole(|whole| (whole.sources, whole.sources_at_limit) = (sources, at_limit))
            .with(|case| case.limit = Some(limit))
    };
    said(
        Cause::LimitTooLow,
        [
            (at_limit(2, 9, 10), None),
            (at_limit(2, 10, 10), None),
            (at_limit(3, 61, 10), None),
            (at_limit(3, 60, 10), MEDIUM),
            (at_limit(5, 51, 10), MEDIUM),
            (at_limit(5, 50, 10), HIGH),
            (at_limit(0, 5, 5), LOW),
            (at_limit(0, 5, 6), None),
            (at_limit(30, 100, 10).with(|case| case.reason = None), HIGH),
            (at_limit(30, 100, 10).with(|case| (case.reason, case.last_refused) = (None, None)), None),
            (at_limit(30, 100, 10).server(|server| server.not_greeted = 3), MEDIUM),
        ],
    );
}

#[test]
fn a_server_is_slow_by_two_signs_or_by_one_less_surely() {
    let slow = |not_greeted: u32, queue: u32| {
        Scene::smtp()
            .sessions(3, |n| Seen::resting(100 + n, 90))
            .server(|server| (server.not_greeted, server.accept_queue) = (not_greeted, Some((queue, 100))))
    };
    said(
        Cause::Overloaded,
        [
            (slow(2, 79), None),
            (slow(3, 0), MEDIUM),
            (slow(0, 80), MEDIUM),
            (slow(3, 80), HIGH),
            (slow(10, 0), HIGH),
            (slow(10, 0).whole(|whole| whole.connections = 6), MEDIUM),
            (slow(0, 0).daemon_limit("default_process_limit", 200, LimitScope::Service), MEDIUM),
            (slow(0, 0).daemon_limit("default_process_limit", 201, LimitScope::Service), None),
        ],
    );
    let closed = |count: u64| {
        let closed = |n| Seen { state: crate::evidence::State::ClientClosed, ..Seen::resting(100 + n, 90) };
        Scene::smtp().sessions(count, closed).sessions(12 - count, |n| Seen::resting(100 + n, 90))
    };
    said(Cause::Overloaded, [(closed(2), None), (closed(3), MEDIUM)]);
}

#[test]
fn what_is_full_around_is_not_the_sources_fault_unless_it_holds_half_of_it() {
    let total = |own: u64| {
        let scene = Scene::smtp().sessions(own, |n| Seen { received: 5000, ..Seen::busy(n + 1) });
        scene.reason(Reason::Total).whole(|whole| (whole.connections, whole.max_total) = (20, Some(20)))
    };
    let network = |own: u64| {
        let network = "203.0.113.0/24".parse().expect("a network");
        let scene = Scene::smtp().sessions(own, |n| Seen { received: 5000, ..Seen::busy(n + 1) });
        scene.reason(Reason::Network).whole(|whole| whole.network = Some((network, 20, Some(20))))
    };
    said(Cause::FullAround, [(total(9), HIGH), (total(10), None), (network(9), HIGH), (network(10), None)]);
    assert_eq!(first(&total(12)).map(|(cause, _)| cause), Some(Cause::Sender));
}

#[test]
fn the_service_gets_no_more_room_than_the_mail_daemon_has() {
    let first_set = |limit: u64| {
        let scene = super::a_full_service().daemon_limit("default_process_limit", limit, LimitScope::Service);
        let first = diagnose(&scene.case).findings.swap_remove(0);
        first.remedies.into_iter().map(|remedy| remedy.command).nth(1)
    };
    assert_eq!(first_set(500), Some(Command::Limiter("set smtp max_total=480".to_owned())));
    let raise = "raise default_process_limit in /etc/postfix/main.cf, then `postfix reload`";
    assert_eq!(first_set(401), Some(Command::ByHand(raise.to_owned())));
}

#[test]
fn a_limit_of_the_mail_daemon_is_told_where_it_is_nearer() {
    let names =
        |scene: Scene| nearer(&scene.case).into_iter().map(|limit| limit.setting.clone()).collect::<Vec<_>>();
    let with = |value, scope| one_program().daemon_limit("it", value, scope);
    assert_eq!(names(with(9, LimitScope::Source)), ["it"]);
    assert_eq!(names(with(10, LimitScope::Source)), [""; 0]);
    assert_eq!(names(with(9, LimitScope::UserAtSource)), ["it"]);
    assert_eq!(names(with(9, LimitScope::UserAtSource).users(&[("a", 5), ("b", 5)])), [""; 0]);
    assert_eq!(names(with(250, LimitScope::Service)), ["it"], "200 of 250 are used");
    assert_eq!(names(with(251, LimitScope::Service)), [""; 0]);
    let capped = with(300, LimitScope::Service).whole(|whole| whole.max_total = Some(400));
    assert_eq!(names(capped), ["it"]);
}
