// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Honest mixtures: what is named first, and what must not be named at all, or not surely.

use limiter_common::{Protocol, Reason};

use super::{
    super::{Cause, Confidence, diagnose},
    of,
    scene::{MINUTE, Scene, Seen},
};
use crate::evidence::case::AddressKind;

/// A mixture: what may be named first (none: nothing surely), and what must not be named with more than this.
struct Mixture {
    what: &'static str,
    scene: Scene,
    first: &'static [Cause],
    not: &'static [(Cause, Option<Confidence>)],
}

const NEVER: Option<Confidence> = None;
const HINT: Option<Confidence> = Some(Confidence::Low);

#[expect(clippy::too_many_lines, reason = "a table")]
fn mixtures() -> Vec<Mixture> {
    vec![
        Mixture {
            what: "an office in which one user has half of the sessions",
            scene: Scene::imap().sessions(12, |n| Seen::resting(900 * (n + 1) + n * n * 30, 80)).users(&[
                ("anna", 6),
                ("ben", 2),
                ("cleo", 2),
                ("dora", 1),
                ("emil", 1),
            ]),
            first: &[Cause::ManyUsers],
            not: &[(Cause::OneUser, NEVER), (Cause::Looping, NEVER), (Cause::InFront, NEVER)],
        },
        Mixture {
            what: "an office in which one user has nearly all sessions",
            scene: Scene::imap().sessions(20, |n| Seen::resting(900 * (n + 1) + n * n * 30, 80)).users(&[
                ("anna", 15),
                ("ben", 2),
                ("cleo", 2),
                ("dora", 1),
            ]),
            first: &[Cause::OneUser],
            not: &[(Cause::Looping, NEVER), (Cause::Ghosts, NEVER), (Cause::ManyUsers, HINT)],
        },
        Mixture {
            what: "a sender some of whose connections are ghosts",
            scene: Scene::smtp()
                .sessions(14, |n| Seen { received: 30_000, ..Seen::busy(n + 1) })
                .sessions(6, |n| Seen { probes: 4, heard_ago: 300, ..Seen::resting(900 + n, 300) })
                .with(|case| case.limit = Some(20)),
            first: &[Cause::Sender],
            not: &[(Cause::Ghosts, HINT), (Cause::Looping, NEVER)],
        },
        Mixture {
            what: "a webmail that two people use",
            scene: Scene::imap()
                .at("10.1.2.3", AddressKind::Private)
                .sessions(4, |n| Seen::busy(n + 1))
                .users(&[("anna", 3), ("ben", 1)])
                .whole(|whole| (whole.connections, whole.sources) = (9, 4))
                .watched(60, vec![2, 9, 11, 25, 40, 41, 55], &[1, 1, 2, 1, 1, 3, 1], (4, 4)),
            first: &[Cause::InFront],
            not: &[(Cause::OneUser, HINT), (Cause::Looping, NEVER), (Cause::ChecksTooOften, HINT)],
        },
        Mixture {
            what: "one user's twelve sessions, a minute after the server was started again",
            scene: Scene::imap()
                .sessions(12, |n| Seen::resting(75 + n / 4, 62))
                .users(&[("anna", 12)])
                .history(&[(12, 2, 1, 0), (12, 14, 12, 0)])
                .with(|case| case.limit = Some(12)),
            first: &[Cause::OneUser],
            not: &[(Cause::Looping, NEVER), (Cause::Ghosts, NEVER), (Cause::ChecksTooOften, NEVER)],
        },
        Mixture {
            what: "the same where nobody says whose they are",
            scene: Scene::imap().sessions(12, |n| Seen::resting(75 + n / 4, 62)),
            first: &[],
            not: &[(Cause::Looping, NEVER), (Cause::OneUser, HINT), (Cause::ManyUsers, HINT)],
        },
        Mixture {
            what: "an overloaded server, and a client in a loop that is not the reason",
            scene: Scene::smtp()
                .sessions(3, |_| Seen::busy(1))
                .watched(60, (0..30).map(|n| 2 * n).collect(), &[1; 30], (3, 3))
                .server(|server| (server.not_greeted, server.accept_queue) = (60, Some((100, 100)))),
            first: &[Cause::Overloaded],
            not: &[(Cause::Sender, NEVER), (Cause::Looping, Some(Confidence::Medium))],
        },
        Mixture {
            what: "a client in a loop that overloads the server",
            scene: Scene::smtp()
                .sessions(60, |_| Seen::busy(1))
                .watched(60, (0..900).map(|n| n / 15).collect(), &[4; 900], (60, 60))
                .server(|server| server.not_greeted = 12)
                .whole(|whole| whole.connections = 80),
            first: &[Cause::Looping],
            not: &[(Cause::Overloaded, Some(Confidence::Medium)), (Cause::Sender, NEVER)],
        },
        Mixture {
            what: "a machine of one user in the local network",
            scene: Scene::imap()
                .at("192.168.1.23", AddressKind::Private)
                .sessions(10, |n| Seen::resting(3000 + n / 4, 80))
                .users(&[("anna", 10)]),
            first: &[Cause::OneUser],
            not: &[(Cause::InFront, NEVER), (Cause::ManyUsers, NEVER)],
        },
        Mixture {
            what: "a family: two users, five sessions each",
            scene: Scene::imap()
                .sessions(10, |n| Seen::resting(1100 * (n + 1) + n * n * 41, 75))
                .users(&[("anna", 5), ("ben", 5)]),
            first: &[Cause::ManyUsers],
            not: &[(Cause::OneUser, NEVER), (Cause::Looping, NEVER)],
        },
        Mixture {
            what: "fifty people who look for mail by POP3, each every five minutes",
            scene: Scene::of("pop3", Protocol::Pop3)
                .sessions(3, |_| Seen::busy(1))
                .history(&[(5, 150, 150, 150), (6, 151, 151, 151), (5, 149, 149, 149), (5, 150, 150, 150)])
                .users(&[("anna", 1), ("ben", 1), ("cleo", 1)])
                .with(|case| {
                    let people = (0..50).map(|n| (format!("user{n}"), 1)).collect();
                    case.users = crate::evidence::case::Known::Is(people);
                }),
            first: &[Cause::ManyUsers],
            not: &[(Cause::ChecksTooOften, NEVER), (Cause::Looping, NEVER)],
        },
        Mixture {
            what: "a phone that has just changed its network: one ghost, and nine sessions that live",
            scene: Scene::imap()
                .sessions(1, |_| Seen { probes: 5, heard_ago: 9 * MINUTE, ..Seen::resting(4000, 9 * MINUTE) })
                .sessions(9, |n| Seen::resting(500 + n, 70))
                .users(&[("anna", 10)]),
            first: &[Cause::OneUser],
            not: &[(Cause::Ghosts, NEVER)],
        },
        Mixture {
            what: "a phone that leaves a ghost in every even quarter of an hour",
            scene: Scene::imap()
                .sessions(10, |n| Seen {
                    probes: 8,
                    heard_ago: 900 * (n + 1) - 2,
                    ..Seen::resting(900 * (n + 1), 900 * (n + 1) - 2)
                })
                .users(&[("anna", 10)]),
            first: &[Cause::Ghosts],
            not: &[(Cause::Looping, NEVER), (Cause::OneUser, NEVER)],
        },
        Mixture {
            what: "a mailing list server that delivers one message a connection, very fast",
            scene: Scene::smtp().sessions(15, |_| Seen { received: 9000, ..Seen::busy(1) }).watched(
                60,
                (0..600).map(|n| n / 10).collect(),
                &[1; 600],
                (15, 15),
            ),
            first: &[Cause::Sender],
            not: &[(Cause::Looping, NEVER)],
        },
        Mixture {
            what: "people who come to work: ten of them start their programs within a minute of watching",
            scene: Scene::imap()
                .sessions(18, |n| Seen::busy(3 * n + 1))
                .users(&[("anna", 3), ("ben", 3), ("cleo", 3), ("dora", 3), ("emil", 3), ("fred", 3)])
                .watched(60, (0..10).map(|n| 6 * n).collect(), &[], (8, 18)),
            first: &[Cause::ManyUsers],
            not: &[(Cause::Looping, NEVER), (Cause::OneUser, NEVER)],
        },
        Mixture {
            what: "a full service whose every client is patient",
            scene: Scene::imap()
                .sessions(2, |n| Seen::resting(800 + n, 80))
                .users(&[("anna", 2)])
                .reason(Reason::Total)
                .whole(|whole| (whole.connections, whole.max_total) = (500, Some(500))),
            first: &[Cause::FullAround],
            not: &[(Cause::OneUser, NEVER), (Cause::LimitTooLow, NEVER), (Cause::Ghosts, NEVER)],
        },
    ]
}

/// The scenes of them.
pub fn scenes() -> impl Iterator<Item = Scene> {
    mixtures().into_iter().map(|mixture| mixture.scene)
}

#[test]
fn in_mixtures_no_wrong_cause_is_named() {
    let mixtures = mixtures();
    assert!(mixtures.len() >= 10);
    for Mixture { what, scene, first, not } in mixtures {
        let diagnosis = diagnose(&scene.case);
        let named = diagnosis.first().filter(|_| !diagnosis.cannot_tell()).map(|first| first.cause);
        match named {
            Some(named) => assert!(first.contains(&named), "{what}: {named:?}: {diagnosis:#?}"),
            None => assert!(first.is_empty(), "{what}: nothing is named: {diagnosis:#?}"),
        }
        for (cause, most) in not {
            assert!(of(&diagnosis, *cause) <= *most, "{what}: {cause:?}: {diagnosis:#?}");
        }
    }
}
