// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A file of bans: whole or not at all, whatever it says and however it was cut.

use proptest::prelude::*;

use super::*;

const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;

fn who(nth: u8) -> Who {
    Who { service: "smtp".to_owned(), source: format!("192.0.2.{nth}/32").parse().unwrap() }
}

fn ban(nth: u8, since_ns: u64, until_ns: u64) -> Ban {
    Ban { who: who(nth), since_ns, until_ns, bans: 0, by: "admin".to_owned() }
}

fn journal(dir: &tempfile::TempDir) -> Journal {
    Journal { path: dir.path().join("x.bans"), boot: "this".to_owned() }
}

fn is_banned(journal: &Journal) -> Vec<Who> {
    journal.read().unwrap().bans.into_keys().collect()
}

proptest! {
    /// Each step bans some and ends others, as one command does.
    #[test]
    fn a_file_that_was_cut_anywhere_has_each_command_as_a_whole_or_not_at_all(
        steps in prop::collection::vec((prop::collection::vec(0u8..20, 0..5), prop::collection::vec(0u8..20, 0..5)), 1..12),
        cut in 0u64..1000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir);
        journal.write(vec![ban(200, 1, 2)]).unwrap();
        let mut model = std::collections::BTreeSet::from([who(200)]);
        let mut states = vec![(fs::metadata(journal.path()).unwrap().len(), model.clone())];
        for (banned, ended) in steps {
            let line = Line::now(banned.iter().map(|nth| ban(*nth, 1, 2)).collect(), ended.iter().map(|nth| who(*nth)).collect());
            prop_assert!(journal.append(&line.unwrap(), || Ok(100)).unwrap());
            for nth in &ended { model.remove(&who(*nth)); }
            model.extend(banned.iter().map(|nth| who(*nth)));
            states.push((fs::metadata(journal.path()).unwrap().len(), model.clone()));
        }
        prop_assert_eq!(is_banned(&journal), model.iter().cloned().collect::<Vec<_>>());
        let (first, last) = (states[0].0, states[states.len() - 1].0);
        let len = first + (last - first) * cut / 1000;
        File::options().write(true).open(journal.path()).unwrap().set_len(len).unwrap();
        let (_, expected) = states.iter().rev().find(|(end, _)| *end <= len).unwrap();
        let contents = journal.read().unwrap();
        prop_assert_eq!(contents.bans.keys().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        prop_assert_eq!(contents.is_torn, !states.iter().any(|(end, _)| *end == len));
        // What is torn is not appended to.
        let line = Line::now(vec![ban(100, 1, 2)], Vec::new()).unwrap();
        prop_assert_eq!(journal.append(&line, || Ok(100)).unwrap(), !contents.is_torn);
    }

    #[test]
    fn time_goes_on_by_the_clock_on_the_wall_and_never_back(at_ns: u64, then: i64, now: i64, boot_ns: u64) {
        let contents = Contents { boot: "before".to_owned(), clock: Some(Clock { at_ns, unix_ms: then }), ..Contents::default() };
        let now = Clock { at_ns: boot_ns, unix_ms: now };
        prop_assert_eq!(contents.now_ns("before", now), boot_ns, "the host still runs");
        let continued = contents.now_ns("this", now);
        prop_assert!(continued >= at_ns);
        if now.unix_ms <= then {
            prop_assert_eq!(continued, at_ns);
        }
    }

    #[test]
    fn nothing_a_file_says_makes_the_reader_panic(text: Vec<u8>, numbers: [u64; 6], old: bool) {
        let [a, b, c, d, e, f] = numbers;
        let plausible = if old {
            format!("{{\"bans\": [{{\"service\":\"smtp\",\"source\":\"192.0.2.1/32\",\"since\":{a},\"until\":{b},\"bans\":{c},\"reason\":\"admin\"}}]}}")
        } else {
            format!("{{\"limiter_bans\":2,\"boot\":\"x\"}}\n{{\"at_ns\":{a},\"unix_ms\":{},\"ban\":[{{\"service\":\"smtp\",\
                     \"source\":\"192.0.2.1/32\",\"since_ns\":{c},\"until_ns\":{d},\"bans\":{e},\"by\":\"admin\"}}]}}\n", b as i64)
        };
        for text in [text.as_slice(), plausible.as_bytes()] {
            let now = Clock { at_ns: f, unix_ms: YEAR_MS * 50 };
            let contents = Contents::read(text, now);
            for ban in contents.bans.values() {
                let left_ns = ban.until_ns.saturating_sub(contents.now_ns("this", now));
                prop_assert!(left_ns <= u64::from(Ladder::MAX_BAN_S) * SECOND_NS, "{left_ns}");
            }
        }
    }
}

#[test]
fn what_is_over_is_written_out_of_the_file_and_what_holds_stays() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir);
    journal.write(Vec::new()).unwrap();
    let mut rewritten = 0;
    for nth in 0..3000_u64 {
        let line = Line::now(vec![ban(7, nth, nth + 5)], Vec::new()).unwrap();
        if !journal.append(&line, || Ok(1)).unwrap() {
            journal.write(vec![ban(7, nth, nth + 5)]).unwrap();
            rewritten += 1;
        }
    }
    assert!((1..10).contains(&rewritten), "{rewritten}");
    assert!(fs::metadata(journal.path()).unwrap().len() < SMALL + 2 * BAN_SIZE);
    let contents = journal.read().unwrap();
    assert_eq!(contents.bans.values().collect::<Vec<_>>(), [&ban(7, 2999, 3004)]);
}

#[test]
fn only_what_has_come_is_read_and_another_file_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir);
    let (News::All(contents), None) = journal.news(None).unwrap() else { panic!("there is none") };
    assert!(contents.bans.is_empty());
    journal.write(vec![ban(1, 1, 2)]).unwrap();
    let seen = journal.extent().unwrap();
    assert!(matches!(journal.news(seen).unwrap(), (News::Nothing, _)));
    let line = Line::now(vec![ban(2, 1, 2)], vec![who(1)]).unwrap();
    assert!(journal.append(&line, || Ok(2)).unwrap());
    let (News::Lines(lines), now) = journal.news(seen).unwrap() else { panic!("a line has come") };
    assert_eq!((&lines[0].ban, &lines[0].end), (&vec![ban(2, 1, 2)], &vec![who(1)]));
    journal.write(vec![ban(3, 1, 2)]).unwrap();
    let (News::All(contents), _) = journal.news(now).unwrap() else { panic!("it is another") };
    assert_eq!(contents.bans.into_keys().collect::<Vec<_>>(), [who(3)]);
}

#[test]
fn a_file_of_another_run_of_the_host_is_not_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir);
    let line = || Line::now(vec![ban(1, 1, 2)], Vec::new()).unwrap();
    assert!(!journal.append(&line(), || Ok(1)).unwrap(), "there is none");
    journal.write(Vec::new()).unwrap();
    assert!(journal.append(&line(), || Ok(1)).unwrap());
    let later = Journal { boot: "another".to_owned(), ..journal };
    assert!(!later.append(&line(), || Ok(1)).unwrap());
}

#[test]
fn a_line_that_is_damaged_takes_no_other_along() {
    let header = "{\"limiter_bans\":2,\"boot\":\"this\"}\n";
    let line = |nth| serde_json::to_string(&Line::now(vec![ban(nth, 1, 2)], Vec::new()).unwrap()).unwrap();
    let text = format!("{header}{}\n\0\0\0\n{}\n", line(1), line(2));
    let contents = Contents::read(text.as_bytes(), Clock::now().unwrap());
    assert_eq!((contents.bans.len(), contents.damaged, contents.is_torn), (2, 1, false));
}

#[test]
fn the_clock_on_the_wall_is_seen_to_be_set() {
    let before = Clock { at_ns: 5_000_000_000, unix_ms: 1000 };
    assert_eq!(before.step_ms(Clock { at_ns: 65_000_000_000, unix_ms: 61_000 }), 0);
    assert_eq!(before.step_ms(Clock { at_ns: 65_000_000_000, unix_ms: 61_000 - YEAR_MS }), YEAR_MS as u64);
}
