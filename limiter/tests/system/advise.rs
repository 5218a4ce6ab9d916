// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter advise`: from a week that is known to limits that are in force. What follows from which past is tested by
//! `limiter/src/advice`.

use rusqlite::{Connection, params};

use limiter_lab::{Lab, Limiter};

use crate::history::watches;
use crate::support::schema::is_as_its_schema_says;

const DAY_S: i64 = 86_400;

/// Puts a week into the history, up to yesterday: at imap 20 homes with 2 connections each, an office whose 31 connections
/// stay and have users, and somebody with 40 who comes and goes.
fn put_week(limiter: &Limiter) {
    let mut conn = Connection::open(limiter.history_path()).unwrap();
    let batch = conn.transaction().unwrap();
    batch.execute("INSERT OR IGNORE INTO services (name) VALUES ('imap')", []).unwrap();
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let today = now_s - now_s % DAY_S;
    let homes = (101..=120).map(|host| (format!("192.0.2.{host}/32"), 3600, 2, (0, 0), None));
    let office = ("203.0.113.7/32".to_owned(), 900, 31, (0, 31), Some(9));
    let guesser = ("198.51.100.66/32".to_owned(), 900, 40, (400, 0), None);
    for (source, seconds, peak, (short, long), users) in homes.chain([office, guesser]) {
        batch.execute("INSERT OR IGNORE INTO sources (source) VALUES (?1)", [&source]).unwrap();
        for day in 1..=7 {
            let start = today - day * DAY_S + 9 * 3600;
            batch
                .execute(
                    "INSERT INTO rows (seconds, start, service, source, peak, max_connections, accepted, refused, denied, \
                     banned, total, network, concurrency, rate, would_refuse, held, waiting, under_1_min, under_10_min, \
                     under_1_h, under_8_h, longer, users) SELECT ?1, ?2, services.id, sources.id, ?3, 20, ?3, 0, 0, 0, 0, \
                     0, 0, 0, 0, 0, 0, ?4, 0, 0, ?5, 0, ?6 FROM services, sources WHERE name = 'imap' AND source = ?7",
                    params![seconds, start, peak, short, long, users, source],
                )
                .unwrap();
        }
    }
    batch.commit().unwrap();
}

#[test]
fn a_week_of_observing_becomes_limits_that_are_in_force() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let observes = "[service.imap]\nmode = \"observe\"\nmax_connections = 20\n";
    let limiter = Limiter::start_with(&lab, observes);
    watches(&limiter);
    let said = limiter.ok(&["advise"]);
    assert!(said.starts_with("not enough history: "), "{said}");
    let advice = limiter.json(&["advise", "--service", "imap"]);
    let said = advice["services"][0]["not_suggested"].as_str().unwrap_or_default();
    assert!(said.starts_with("not enough history: it has no connection at imap"), "{advice:#}");

    put_week(&limiter);
    let advice = limiter.json(&["advise"]);
    is_as_its_schema_says("advise", &advice);
    let imap = &advice["services"][0];
    assert_eq!((&imap["days"], &imap["observes"]), (&7.into(), &true.into()), "{imap:#}");
    let by_peak = serde_json::json!({ "2": 140, "31": 7, "40": 7 });
    assert_eq!(imap["source_days_by_peak"], by_peak);
    let of_20 = imap["limits"].as_array().unwrap().iter().find(|would| would["limit"] == 20).unwrap();
    let would = serde_json::json!({
        "limit": 20, "source_days": 14, "connections": 7 * 11 + 7 * 20, "honest": 7, "dubious": 7, "unknown": 0,
    });
    assert_eq!(*of_20, would);
    let suggestion = &imap["suggestion"];
    assert_eq!(suggestion["max_connections"], 10, "{suggestion:#}");
    assert_eq!(suggestion["rules"][0]["network"], "203.0.113.7/32", "{suggestion:#}");
    let said = limiter.ok(&["advise", "--toml"]);
    assert!(said.contains("[service.imap]\nmax_connections = 10\nmode = \"enforce\"\n"), "{said}");
    assert!(said.contains("network = \"203.0.113.7/32\"") && said.contains("{ imap = 40 }"), "{said}");

    // Nothing was changed so far; then all of it is, in the file as well.
    let file = || std::fs::read_to_string(limiter.config_path()).unwrap();
    assert!(file().contains(observes));
    let applied = limiter.json(&["advise", "--apply", "--enforce", "--save"]);
    is_as_its_schema_says("advise", &applied);
    assert_eq!(applied["applied"]["changed"], true, "{applied:#}");
    let status = limiter.json(&["status"]);
    let services = status["services"].as_array().unwrap();
    let imap = services.iter().find(|service| service["name"] == "imap").unwrap();
    assert_eq!((&imap["max_connections"], &imap["mode"]), (&10.into(), &"enforce".into()), "{imap:#}");
    assert!(limiter.ok(&["rules"]).contains("203.0.113.7/32"));
    assert!(file().contains("max_connections = 10") && file().contains("{ imap = 40 }"), "{}", file());
    // The office has a rule now, and is not spoken of any more.
    let advice = limiter.json(&["advise", "--service", "imap"]);
    assert_eq!(advice["services"][0]["ruled"], 1, "{advice:#}");
    assert_eq!(advice["services"][0]["suggestion"]["rules"], serde_json::json!([]));

    for (words, said) in [
        (&["advise", "--save"][..], "--save is for --apply"),
        (&["advise", "--enforce"], "--apply"),
        (&["advise", "--service", "nntp"], "unknown service nntp"),
        (&["advise", "--since", "yesterday"], "give a time from 1s to 3650days"),
        (&["advise", "--toml", "--json"], "cannot be used with"),
    ] {
        let outcome = limiter.cli(words);
        assert!(outcome.code == Some(2) && outcome.stderr.contains(said), "{words:?}: {outcome:?}");
    }
}

#[test]
fn without_a_history_there_is_no_advice_and_the_reason_is_said() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start_with(&lab, "history = false\n");
    let said = limiter.cli(&["advise"]);
    assert!(said.code == Some(1) && said.stderr.contains("has no history"), "{said:?}");
}
