// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Texts that nobody would write, by the thousand: a second of them in each run of the tests, as many as
//! `LIMITER_FUZZ_SECONDS` has room for in `cargo xtask fuzz`.
//!
//! A text is made from one that was of use by a few changes. It is of use when the parser had not said the
//! same before; so the corpus grows along the sentences of the parser, from one check to the next.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::{SAMPLE, one_sentence};
use crate::config::{
    Change, ConfigError, Limiting, OrNone, RateSpec, Ruling, edit, error::Complaint, parse, parse_network,
    parse_setting,
};

/// Longest text, in bytes.
const LONGEST: usize = 1 << 14;
/// Longest time for one text. It takes a thousandth of that, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the grammar and the parser know, and values at the ends of ranges.
const WORDS: &str = r#"
    hostname max_sources remember_seconds reconcile_seconds mode interfaces service rule [defaults] [ladder]
    [service.smtp] [service.imap] [service.x] [service.smtp.network] [[rule]] ports protocol max_connections
    ipv4_prefix ipv6_prefix response rate burst network keepalive wait tls tls_ports certificate key "/etc/a.pem" max_total reserve allow deny comment
    replies ban_after ban ban_max max_bans "smtp" "enforce" "observe" "reset" "drop" "none" "60/min" "10m" "60s" "*"
    "10.0.0.0/8" "10.0.0.1/8" "2001:db8::/32" "::/0" "::ffff:10.0.0.0/104" true false 0 1 -1 25 20 24 32 33 48
    64 128 143 587 65535 65536 1000000 1000001 4294967296 99999999999999999999 0x14 1_000 2.5 inf 1979-05-27
    [ ] { } = . , # " ' """ ''' \ \u0000 \ud800 ä 😀
"#;

/// The same, of what no list of words can hold.
const CHARACTERS: [&str; 9] = [" ", "\n", "\r\n", "\r", "\t", "\0", "\u{7f}", "\u{feff}", "\u{2028}"];

/// Small, and the same in every build: Sebastiano Vigna's `SplitMix64`.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ word >> 31) % end.max(1) as u64) as usize
    }

    fn of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len())]
    }

    /// Somewhere in `text`, between two characters.
    fn position(&mut self, text: &str) -> usize {
        let mut at = self.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn word(&mut self) -> &'static str {
        let words: Vec<&str> = WORDS.split_whitespace().chain(CHARACTERS).collect();
        self.of(&words)
    }

    fn change(&mut self, text: &mut String, corpus: &[String]) {
        let at = self.position(text);
        match self.below(8) {
            // Another character there, or none.
            0 => drop(text[at..].chars().next().map(|_| text.remove(at))),
            1 => text.insert(at, char::from_u32(self.below(0x300) as u32).unwrap_or(' ')),
            2 | 3 => text.insert_str(at, self.word()),
            // A word in the place of another.
            4 => {
                let end = text[at..].find(|char: char| !char.is_alphanumeric() && char != '_');
                text.replace_range(at..end.map_or(text.len(), |end| at + end), self.word());
            }
            // A line gone, or twice, or from another text.
            5 | 6 => {
                let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
                let end = text[at..].find('\n').map_or(text.len(), |end| at + end + 1);
                let line = match self.below(3) {
                    0 => String::new(),
                    1 => text[start..end].repeat(2),
                    _ => {
                        let lines: Vec<&str> =
                            corpus[self.below(corpus.len())].split_inclusive('\n').collect();
                        if lines.is_empty() { String::new() } else { self.of(&lines).to_owned() }
                    }
                };
                text.replace_range(start..end, &line);
            }
            // The rest from another text.
            _ => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.position(other);
                text.truncate(at);
                text.push_str(&other[from..]);
            }
        }
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

/// What the parser makes of `text`, and whether that is right; the sentence without what was given.
fn judge(text: &str, dice: &mut Dice) -> String {
    match parse(text, "limiter.toml") {
        Ok(config) => {
            let again = parse(&config.to_string(), "limiter.toml").expect("what is rendered can be read");
            assert_eq!(again, config, "rendered and read again it is the same");
            assert_eq!(again.fingerprint(), config.fingerprint());
            // `edit` itself sees to it that nothing else is another.
            let settings =
                dice.of(&["max_connections=7", "rate=7/s", "network_max_connections=70", "wait=7s"]);
            let settings = [parse_setting(settings).unwrap()];
            let network = dice.of(&["10.0.0.0/8", "2001:db8::/32"]);
            let network = parse_network(network).unwrap();
            let paced = Limiting {
                rate: Some(OrNone(RateSpec::parse("7/s"))),
                burst: dice.of(&[None, Some(3)]),
                network_max_connections: Some(OrNone(dice.of(&[None, Some(900)]))),
                ..Limiting::default()
            };
            let connections = Ruling::Limit(Limiting::connections(7), Some("imap"));
            let paced = Ruling::Limit(paced, dice.of(&[None, Some("smtp")]));
            let rulings = [Ruling::Allow, Ruling::Deny, connections, paced, Ruling::Forget];
            let service = dice.of(&["smtp", "imap"]);
            for change in [
                Change::Settings { service, settings: &settings },
                Change::Rule { network, ruling: dice.of(&rulings) },
            ] {
                match edit(text, "limiter.toml", &change) {
                    Ok(edited) => assert_eq!(parse(&edited.text, "limiter.toml").unwrap(), edited.config),
                    Err(error) => one_sentence(&error.to_string()),
                }
            }
            format!("{} services, {} rules", config.services.len(), config.rules.len().min(4))
        }
        Err(error) => {
            let given = error.to_string();
            one_sentence(&given);
            assert!(!given.contains(char::is_control) && given.len() < 1000, "{given:?}");
            let ConfigError::Invalid { line, column, complaint, .. } = error else {
                panic!("no place: {given}")
            };
            let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n');
            let characters = lines.nth(line - 1).map(|line| line.chars().count());
            assert!(characters.is_some_and(|end| (1..=end + 1).contains(&column)), "{given}");
            // Without what was given, or there would be as many answers as texts.
            match *complaint {
                Complaint::Syntax(words) => words.split(['`', '"']).next().unwrap_or_default().to_owned(),
                other => format!("{other:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
            }
        }
    }
}

#[test]
fn no_text_whatever_confuses_the_parser() {
    let seconds = std::env::var("LIMITER_FUZZ_SECONDS").ok().map_or(1, |text| text.parse().unwrap());
    let seed = std::env::var("LIMITER_FUZZ_SEED").ok().map_or(1, |text| text.parse().unwrap());
    let mut dice = Dice(seed);
    let mut corpus = vec![SAMPLE.to_owned(), String::new(), parse("", "").unwrap().to_string()];
    corpus.extend(SAMPLE.split("\n\n").map(|part| part.replace("\n# ", "\n")));
    corpus.extend(super::malformed::TEXTS.iter().map(|&text| text.to_owned()));
    corpus.push("[[rule]]\nnetwork = '10.0.0.0/8'\nmax_connections = { imap = 5, '*' = 7 }\n".to_owned());
    let (mut known, mut texts) = (HashSet::new(), 0_u64);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        let mut text = corpus[dice.below(corpus.len())].clone();
        for _ in 0..=dice.below(5) {
            dice.change(&mut text, &corpus);
        }
        let before = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| judge(&text, &mut dice)));
        assert!(outcome.is_ok(), "seed {seed}, text {texts}: {text:?}");
        assert!(before.elapsed() < PATIENCE, "{:?} for text {texts}: {text:?}", before.elapsed());
        if known.insert(outcome.unwrap()) {
            corpus.push(text);
        }
        texts += 1;
    }
    println!("{texts} texts, {} different answers", known.len());
    assert!(known.len() > 20, "{known:#?}");
}
