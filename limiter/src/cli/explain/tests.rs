// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is shown of each cause, at 80 and at 60 columns, against the files in `screens`; that each command can be typed; and
//! that the document is as its schema says. `LIMITER_SCREENS=renew cargo test -p limiter explain` writes the files anew.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use clap::Parser as _;
use limiter_common::Reason;

use super::{
    Document, Explanation, for_user, screen,
    view::{AtService, Network},
};
use crate::{
    cli::{Cli, schemas},
    diagnose::{
        Command,
        tests::{mixtures, scene::Scene, typical},
    },
    evidence::case::{Case, LimitScope},
    instance::Instance,
    ledger::Refusals,
    user_text::{Language, Texts},
};

const WIDTHS: [usize; 2] = [80, 60];

/// Where the source of a case stands, as far as the case says.
fn explanation(case: &Case) -> Explanation {
    let refused_for: BTreeMap<&'static str, u32> =
        case.refused.iter().map(|(reason, times)| (reason.name(), *times as u32)).collect();
    let at = AtService {
        service: case.service.clone(),
        source: case.source.to_string(),
        shared: false,
        connections: case.connections,
        limit: case.limit,
        network: case.whole.network.map(|(network, connections, limit)| Network {
            network: network.to_string(),
            connections,
            limit,
        }),
        total: case.whole.connections,
        max_total: case.whole.max_total,
        refused: case.refused.values().sum(),
        refusals: Refusals {
            refused_for,
            last_refused_for: case.refused.keys().next().copied(),
            last_refused_seconds: case.last_refused.map(|ago| ago.as_secs()),
        },
        would_refuse: 0,
        replies_left: Some(7),
        waiting: case.waiting,
        waiting_seconds: 0.0,
        observed: false,
        verdict: "refuse",
        reason: case.reason,
        banned_seconds: 0,
        wait_ms: 0,
        remedy: None,
        diagnosis: None,
        nearer_limits: Vec::new(),
        protocol: Some(case.protocol),
        change: None,
        response: None,
    };
    let explanation = Explanation {
        address: case.address.to_string(),
        asked: None,
        local: false,
        rule: None,
        services: vec![at],
        also: Vec::new(),
    };
    explanation.diagnosed(std::slice::from_ref(case))
}

fn instance() -> Instance {
    Instance::DEFAULT.parse().unwrap()
}

/// The scenes that are shown, by the names of their files.
fn shown() -> Vec<(String, Scene)> {
    let mut shown: Vec<(String, Scene)> = Vec::new();
    for (cause, scene) in typical() {
        let name = serde_json::to_value(cause).unwrap().as_str().unwrap().to_owned();
        let count = shown.iter().filter(|(known, _)| known.starts_with(&name)).count();
        shown.push((if count == 0 { name } else { format!("{name}-{}", count + 1) }, scene));
    }
    let unknown = Scene::imap().sessions(10, |n| {
        crate::diagnose::tests::scene::Seen::resting(700 * (n + 1) + n * n * 37, 70 + 31 * n)
    });
    shown.push(("cannot-tell".to_owned(), unknown));
    let nearer = crate::diagnose::tests::one_program().daemon_limit(
        "mail_max_userip_connections",
        8,
        LimitScope::UserAtSource,
    );
    shown.push(("nearer-limit".to_owned(), nearer));
    shown
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/cli/explain/screens").join(format!("{name}.txt"))
}

#[test]
fn what_is_shown_of_each_cause_is_as_it_was_and_fits() {
    let renew = std::env::var("LIMITER_SCREENS").is_ok_and(|word| word == "renew");
    let texts =
        [Language::En, Language::De].map(|language| Texts::load(language, "/nonexistent".as_ref()).unwrap());
    for (name, scene) in shown() {
        let explanation = explanation(&scene.case);
        let mut text = String::new();
        for width in WIDTHS {
            let screen = screen(&instance(), &explanation, Some(width)).text();
            for line in screen.lines() {
                assert!(line.chars().count() <= width, "{name}: {width} columns are not enough for {line:?}");
            }
            writeln!(text, "$ limiter explain {}    # {width} columns\n{screen}", explanation.address)
                .unwrap();
        }
        let languages = if name == "one-user" { &texts[..] } else { &texts[..1] };
        for texts in languages {
            let at = for_user::concern(&explanation).unwrap();
            let said = for_user::text(texts, &explanation, at, "mail.example.org");
            assert!(said.lines().all(|line| line.chars().count() <= 72), "{said}");
            writeln!(text, "$ limiter explain {} --for-user\n{said}", explanation.address).unwrap();
        }
        if renew {
            fs::create_dir_all(file("").parent().unwrap()).unwrap();
            fs::write(file(&name), &text).unwrap();
        }
        let before = fs::read_to_string(file(&name)).unwrap_or_default();
        assert!(before == text, "{name}: LIMITER_SCREENS=renew writes it anew; it would be\n{text}");
    }
    for left in fs::read_dir(file("").parent().unwrap()).unwrap().flatten() {
        let left = left.file_name().into_string().unwrap();
        let is_known = shown().iter().any(|(name, _)| left == format!("{name}.txt"));
        assert!(is_known, "{left} is of no scene any more: remove it");
    }
}

#[test]
fn each_command_that_is_advised_can_be_typed() {
    let scenes = typical().into_iter().map(|(_, scene)| scene).chain(mixtures::scenes());
    let mut count = 0;
    for scene in scenes {
        let diagnosis = crate::diagnose::diagnose(&scene.case);
        let advised = diagnosis.findings.iter().flat_map(|finding| &finding.remedies);
        let words = advised.filter_map(|remedy| match &remedy.command {
            Command::Limiter(words) => Some(words),
            Command::Shell(_) | Command::ByHand(_) => None,
        });
        for words in words.chain(diagnosis.unknown.iter().filter_map(|unknown| unknown.would_tell.as_ref())) {
            count += 1;
            let typed = Cli::try_parse_from(std::iter::once("limiter").chain(words.split(' ')));
            assert!(typed.is_ok(), "{words}: {}", typed.err().unwrap());
            if let Some(settings) = words.strip_prefix("set ") {
                let setting = settings.split(' ').nth(1).unwrap();
                assert!(crate::config::parse_setting(setting).is_ok(), "{words}");
            }
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn the_document_is_as_its_schema_says() {
    for (_, scene) in shown() {
        let mut explanation = explanation(&scene.case);
        schemas::check("explain", &serde_json::to_value(&explanation).unwrap());
        explanation.services[0].reason = Some(Reason::Rate);
        let document =
            Document::Here(Box::new(Explanation { asked: Some("a.example".to_owned()), ..explanation }));
        schemas::check("explain", &serde_json::to_value(&document).unwrap());
    }
}

#[test]
fn the_answer_is_one_sentence_that_says_where_and_why() {
    let first_line = |scene: Scene| {
        let text = screen(&instance(), &explanation(&scene.case), None).text();
        text.lines().next().unwrap().to_owned()
    };
    assert_eq!(
        first_line(crate::diagnose::tests::one_program()),
        "203.0.113.7 is refused at imap: anna holds all 10 connections, most of them unused for hours."
    );
    assert_eq!(
        first_line(crate::diagnose::tests::an_office()),
        "203.0.113.7 is refused at imap: 9 people share this address, and together they reach the limit of 10."
    );
    assert_eq!(
        first_line(crate::diagnose::tests::a_full_service()),
        "203.0.113.7 is refused at smtp: the service is full (400 of 400), through no fault of its own."
    );
    let quiet = Scene::imap().with(|case| case.reason = None);
    assert_eq!(first_line(quiet), "203.0.113.7 is admitted at every service.");
}
