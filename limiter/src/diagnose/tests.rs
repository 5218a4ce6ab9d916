// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Each cause: a typical case of it, and the borders. What must not be named in mixtures is in `mixtures`, what holds of
//! every case in `properties`.

mod borders;
pub mod mixtures;
mod properties;
pub mod scene;

use limiter_common::Reason;

use self::scene::{MINUTE, Scene, Seen};
use super::{Cause, Confidence, Diagnosis, Excluded, diagnose};
use crate::evidence::{State, case::AddressKind};

/// The likeliest cause, and how sure it is.
fn first(scene: &Scene) -> Option<(Cause, Confidence)> {
    diagnose(&scene.case).first().map(|first| (first.cause, first.confidence))
}

/// What is said of a cause.
fn of(diagnosis: &Diagnosis, cause: Cause) -> Option<Confidence> {
    diagnosis.findings.iter().find(|finding| finding.cause == cause).map(|finding| finding.confidence)
}

fn facts(scene: &Scene) -> Vec<(&'static str, u64)> {
    let diagnosis = diagnose(&scene.case);
    let first = diagnosis.first().expect("a finding");
    first.evidence.iter().map(|fact| (fact.name, fact.value)).collect()
}

/// Ten sessions that one program opened within three seconds at nine o'clock, and keeps.
pub fn one_program() -> Scene {
    Scene::imap().sessions(10, |n| Seen::resting(3 * 3600 + n / 3, 2 * 3600)).users(&[("anna", 10)])
}

/// Nine people, ten sessions.
pub fn an_office() -> Scene {
    let users: Vec<(String, u32)> = (0..9).map(|n| (format!("user{n}"), 1 + u32::from(n == 0))).collect();
    let users: Vec<(&str, u32)> = users.iter().map(|(name, sessions)| (name.as_str(), *sessions)).collect();
    Scene::imap().sessions(10, |n| Seen::resting(400 * (n + 1), 70 + n)).users(&users)
}

/// One look for mail every ten seconds.
pub fn a_nervous_program() -> Scene {
    Scene::imap().sessions(1, |_| Seen::busy(1)).users(&[("anna", 1)]).watched(
        60,
        (0..6).map(|n| 10 * n).collect(),
        &[1; 6],
        (1, 1),
    )
}

/// Back at once, more than once a second.
pub fn a_loop() -> Scene {
    Scene::smtp().sessions(2, |_| Seen::busy(1)).watched(
        60,
        (0..72).map(|n| n * 5 / 6).collect(),
        &[1; 72],
        (2, 2),
    )
}

/// A session more every ten minutes, and none is used again.
pub fn a_leak() -> Scene {
    Scene::imap()
        .sessions(10, |n| Seen::resting(600 * (n + 1), 600 * (n + 1) - 2))
        .users(&[("anna", 10)])
        .watched(60, vec![3, 20, 44], &[], (10, 13))
}

/// Eight sessions of a phone that fell off the network, and two after it came back.
pub fn a_vanished_phone() -> Scene {
    Scene::imap()
        .sessions(8, |n| Seen { probes: 5, heard_ago: 40 * MINUTE, ..Seen::resting(3600 + n, 45 * MINUTE) })
        .sessions(2, |n| Seen::resting(90 + n, 70))
        .users(&[("anna", 10)])
}

/// A webmail in the same network, for twelve users.
pub fn a_webmail() -> Scene {
    let users: Vec<String> = (0..12).map(|n| format!("user{n}")).collect();
    let users: Vec<(&str, u32)> = users.iter().map(|name| (name.as_str(), 1)).collect();
    Scene::imap()
        .at("10.1.2.3", AddressKind::Private)
        .sessions(12, |n| Seen::busy(n + 1))
        .users(&users)
        .whole(|whole| (whole.connections, whole.sources) = (20, 6))
        .with(|case| case.limit = Some(12))
}

/// A mail server that empties its queue.
pub fn a_sender() -> Scene {
    Scene::smtp()
        .sessions(20, |n| Seen { received: 40_000, ..Seen::busy(n + 1) })
        .watched(60, (0..90).map(|n| n * 2 / 3).collect(), &[12; 88], (20, 20))
        .with(|case| case.limit = Some(20))
}

/// One of sixteen sources of a hundred that are at the limit.
pub fn a_low_limit() -> Scene {
    Scene::imap()
        .sessions(4, |n| Seen::resting(1000 * (n + 1), 100 + 400 * n))
        .whole(|whole| (whole.sources, whole.sources_at_limit) = (100, 16))
        .with(|case| case.limit = Some(4))
}

/// Nobody is greeted any more.
pub fn a_slow_server() -> Scene {
    Scene::smtp()
        .sessions(5, |n| Seen { sent_bytes: 0, ..Seen::resting(70 + n, 70) })
        .server(|server| {
            (server.not_greeted, server.accept_queue) = (40, Some((99, 100)));
            server.longest_not_greeted = std::time::Duration::from_secs(75);
        })
        .with(|case| case.limit = Some(5))
}

/// The service is full of others.
pub fn a_full_service() -> Scene {
    Scene::smtp().sessions(1, |_| Seen::busy(5)).reason(Reason::Total).whole(|whole| {
        (whole.connections, whole.max_total) = (400, Some(400));
        whole.refused_lately = 61;
        whole.largest = vec![("203.0.113.0/24".parse().expect("a network"), 188)];
    })
}

/// Each cause, made as it is.
pub fn typical() -> Vec<(Cause, Scene)> {
    vec![
        (Cause::FullAround, a_full_service()),
        (Cause::Overloaded, a_slow_server()),
        (Cause::InFront, a_webmail()),
        (Cause::Ghosts, a_vanished_phone()),
        (Cause::Looping, a_loop()),
        (Cause::Looping, a_leak()),
        (Cause::ChecksTooOften, a_nervous_program()),
        (Cause::ManyUsers, an_office()),
        (Cause::OneUser, one_program()),
        (Cause::Sender, a_sender()),
        (Cause::LimitTooLow, a_low_limit()),
    ]
}

#[test]
fn each_cause_is_named_first_where_it_is_the_cause_and_surely() {
    for (cause, scene) in typical() {
        assert_eq!(first(&scene), Some((cause, Confidence::High)), "{:#?}", diagnose(&scene.case));
    }
    let named: std::collections::BTreeSet<Cause> = typical().into_iter().map(|(cause, _)| cause).collect();
    assert_eq!(named.len(), super::RULES.len());
}

#[test]
fn the_evidence_is_what_was_there() {
    assert_eq!(
        facts(&one_program()),
        [
            ("sessions_of_first_user", 10),
            ("resting", 10),
            ("opened_together", 10),
            ("oldest_seconds", 10_803)
        ]
    );
    assert_eq!(facts(&an_office()), [("users", 9), ("sessions_of_first_user", 2)]);
    assert_eq!(facts(&a_vanished_phone()), [("gone", 8)]);
    assert_eq!(facts(&a_leak()), [("grown", 3), ("left_behind", 10), ("sessions_of_first_user", 10)]);
    assert_eq!(facts(&a_sender()), [("sending", 20), ("begun_per_minute_milli", 90_000)]);
    assert_eq!(
        facts(&a_full_service()),
        [
            ("service_connections", 400),
            ("source_connections", 1),
            ("other_sources_refused", 61),
            ("largest_holder_connections", 188)
        ]
    );
}

#[test]
fn what_speaks_against_a_cause_is_said_with_the_figure() {
    let scene = one_program().watched(60, vec![30], &[], (9, 10));
    let excluded: Vec<String> = diagnose(&scene.case)
        .excluded
        .into_iter()
        .map(|Excluded { cause, why }| format!("{cause:?}: {why}"))
        .collect();
    assert_eq!(
        excluded,
        [
            "Overloaded: all are greeted",
            "InFront: a public address, 5 % of the service",
            "Ghosts: 0 of 10 silent",
            "Looping: 1.0 a minute",
            "ManyUsers: one user",
            "LimitTooLow: 2 of 60 sources are at their limit",
        ]
    );
}

#[test]
fn where_nothing_is_known_nothing_is_named_and_what_would_tell_is() {
    let scene = Scene::imap().sessions(10, |n| Seen::resting(700 * (n + 1) + n * n * 37, 70 + 31 * n));
    let diagnosis = diagnose(&scene.case);
    assert!(diagnosis.cannot_tell(), "{diagnosis:#?}");
    let unknown: Vec<(&str, Option<&str>)> =
        diagnosis.unknown.iter().map(|one| (one.what.as_str(), one.would_tell.as_deref())).collect();
    assert_eq!(
        unknown,
        [
            ("whose sessions these are is not known: doveadm is not installed", None),
            (
                "how its connections come and go is not known: no history is kept",
                Some("explain 203.0.113.7 --service imap --watch 60s")
            ),
        ]
    );
    let nobody = diagnose(&Scene::imap().case);
    assert_eq!(nobody.unknown, [], "of a source without connections nothing is asked");
}

#[test]
fn sessions_of_which_the_kernel_says_nothing_are_said_to_be_unknown() {
    let scene = Scene::imap().sessions(4, |_| Seen { is_blind: true, ..Seen::resting(100, 100) });
    let unknown = diagnose(&scene.case).unknown;
    assert_eq!(
        unknown.last().map(|one| one.what.as_str()),
        Some("of all 4 it is not known what goes through them")
    );
}

#[test]
fn a_dead_connection_is_a_ghost_and_no_command_claims_to_close_it() {
    let scene = Scene::imap().sessions(6, |n| Seen { state: State::Dead, ..Seen::resting(900 + n, 0) });
    assert_eq!(first(&scene), Some((Cause::Ghosts, Confidence::High)));
    let commands = diagnose(&scene.case).findings.swap_remove(0).remedies;
    assert!(commands.iter().all(|remedy| !format!("{remedy:?}").contains("close ")), "{commands:?}");
}
