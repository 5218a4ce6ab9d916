// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is written, character by character.

use proptest::prelude::*;

use super::*;
use crate::config::{Limiting, OrNone, RateSpec, parse_network, parse_setting};

fn changed(text: &str, change: &Change<'_>) -> String {
    match edit(text, "limiter.toml", change) {
        Ok(edited) => {
            assert_eq!(parse(&edited.text, "limiter.toml").unwrap(), edited.config);
            let again = edit(&edited.text, "limiter.toml", change).unwrap();
            assert_eq!(again.text, edited.text, "it says so already");
            edited.text
        }
        Err(error) => panic!("{error}\n{text}"),
    }
}

fn set(text: &str, service: &str, words: &[&str]) -> String {
    let settings: Vec<_> = words.iter().map(|word| parse_setting(word).unwrap()).collect();
    changed(text, &Change::Settings { service, settings: &settings })
}

fn ruled(text: &str, network: &str, ruling: Ruling<'_>) -> String {
    changed(text, &Change::Rule { network: parse_network(network).unwrap(), ruling })
}

/// A file with a comment wherever one can stand.
const FILE: &str = r#"# limiter of mx1
hostname = "mx1.example.net" # as in DNS

[defaults] # for all
  # people have many devices
  max_connections = 30   # was 20

# ---- services ----

[service.smtp]
max_connections = 10 # spammers
rate   =   "60/min"
burst = 30

# webmail
[service.imap]
ports = [
  143, # STARTTLS
  993,
]

# ---- rules ----

# Graz
[[rule]]
network = "203.0.113.0/24" # forty people
comment = "Graz office"
max_connections = { imap = 200, submission = 40 } # until they have addresses

# bad
[[rule]]
network = "198.51.100.7"
deny = true

# the end
"#;

/// `FILE` with these lines in the place of others.
fn with(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(FILE.to_owned(), |text, (old, new)| {
        assert_eq!(text.matches(old).count(), 1, "{old}");
        text.replace(old, new)
    })
}

#[test]
fn a_value_changes_and_nothing_around_it() {
    assert_eq!(
        set(FILE, "smtp", &["max_connections=12"]),
        with(&[("max_connections = 10 # spammers", "max_connections = 12 # spammers")])
    );
    assert_eq!(
        set(FILE, "smtp", &["burst=5", "rate=10/s"]),
        with(&[("rate   =   \"60/min\"\nburst = 30", "rate   =   \"10/s\"\nburst = 5")])
    );
}

#[test]
fn a_wait_is_written_as_a_time_whatever_stood_there() {
    let number = "[service.smtp]\nwait = 0 # told at once\n";
    assert_eq!(set(number, "smtp", &["wait=10s"]), number.replace("= 0", "= \"10s\""));
    assert_eq!(set(number, "smtp", &["wait=0s"]), number, "it says so already");
    let of_defaults = "[defaults]\nwait = \"20s\"\n";
    assert_eq!(set(of_defaults, "smtp", &["wait=20s"]), of_defaults, "it says so already");
    assert_eq!(
        set(of_defaults, "smtp", &["wait=5s"]),
        format!("{of_defaults}\n[service.smtp]\nwait = \"5s\"\n"),
        "the default of all, where this file has another"
    );
}

#[test]
fn a_new_key_is_the_last_of_its_table() {
    assert_eq!(
        set(FILE, "imap", &["keepalive=10m", "max_total=100"]),
        with(&[("  993,\n]\n", "  993,\n]\nkeepalive = \"10m\"\nmax_total = 100\n")])
    );
    assert_eq!(set(FILE, "smtp", &["wait=0"]), with(&[("burst = 30\n", "burst = 30\nwait = \"0s\"\n")]));
    let indented = "[service.smtp]\n    # why\n    max_connections = 5 # so\n";
    assert_eq!(set(indented, "smtp", &["response=reset"]), format!("{indented}    response = \"reset\"\n"));
}

#[test]
fn a_new_service_stands_behind_the_last_one() {
    assert_eq!(
        set(FILE, "pop3", &["max_connections=5"]),
        with(&[("\n# ---- rules ----", "\n[service.pop3]\nmax_connections = 5\n\n# ---- rules ----")])
    );
    assert_eq!(set("", "smtp", &["max_connections=5"]), "[service.smtp]\nmax_connections = 5\n");
    assert_eq!(
        set("hostname = 'a' # b\n# c", "smtp", &["max_connections=5"]),
        "hostname = 'a' # b\n# c\n\n[service.smtp]\nmax_connections = 5\n"
    );
}

#[test]
fn a_rate_without_a_burst_brings_its_own_as_it_does_live() {
    assert_eq!(
        set(FILE, "smtp", &["rate=7/min"]),
        with(&[("\"60/min\"\nburst = 30", "\"7/min\"\nburst = 7")])
    );
    assert_eq!(set(FILE, "smtp", &["rate=none"]), with(&[("\"60/min\"\nburst = 30", "\"none\"")]));
    assert_eq!(
        set("[defaults]\nrate = \"1/s\"\nburst = 9\n", "smtp", &["rate=5/s"]),
        "[defaults]\nrate = \"1/s\"\nburst = 9\n\n[service.smtp]\nrate = \"5/s\"\nburst = 5\n"
    );
}

#[test]
fn a_network_limit_keeps_the_prefixes_there_are() {
    let own = "[service.smtp]\nnetwork = { ipv4_prefix = 20, max_connections = 50 } # eight\n";
    assert_eq!(set(own, "smtp", &["network_max_connections=60"]), own.replace("50", "60"));
    let below = "[service.smtp]\nreserve = 0\n[service.smtp.network] # of_network\nmax_connections = 50\n";
    assert_eq!(set(below, "smtp", &["network_max_connections=60"]), below.replace("50", "60"));
    let of_defaults = "[defaults]\nnetwork = { ipv6_prefix = 40, max_connections = 50 }\n";
    assert_eq!(
        set(of_defaults, "smtp", &["network_max_connections=60"]),
        format!("{of_defaults}\n[service.smtp]\nnetwork = {{ ipv6_prefix = 40, max_connections = 60 }}\n")
    );
    assert_eq!(
        set(below, "smtp", &["network_max_connections=none"]),
        "[service.smtp]\nreserve = 0\nnetwork = \"none\"\n"
    );
}

#[test]
fn tables_in_braces_and_dotted_keys_stay_what_they_are() {
    assert_eq!(
        set("service = { smtp = { burst = 5, rate = '1/s' } } # all\n", "smtp", &["max_connections=5"]),
        "service = { smtp = { burst = 5, rate = '1/s', max_connections = 5 } } # all\n"
    );
    assert_eq!(
        set("service = { smtp = { max_connections = 5 } } # all\n", "imap", &["max_connections=7"]),
        "service = { smtp = { max_connections = 5 }, imap = { max_connections = 7 } } # all\n"
    );
    assert_eq!(
        set("service.smtp.max_connections = 5 # a\n\n[defaults] # b\n", "smtp", &["response=reset"]),
        "service.smtp.max_connections = 5 # a\nservice.smtp.response = \"reset\"\n\n[defaults] # b\n"
    );
    assert_eq!(
        set("service.smtp.max_connections = 5 # a\n\n[defaults] # b\n", "imap", &["response=reset"]),
        "service.smtp.max_connections = 5 # a\nservice.imap.response = \"reset\"\n\n[defaults] # b\n"
    );
    assert_eq!(
        set("[service]\n# a\nsmtp.max_connections = 5 # b\n", "smtp", &["max_connections=6"]),
        "[service]\n# a\nsmtp.max_connections = 6 # b\n"
    );
    assert_eq!(
        ruled(
            "rule = [\n  { network = '10.0.0.0/8', deny = true }, # ten\n  # last\n  { network = '11.0.0.0/8', allow = true },\n]\n",
            "12.0.0.0/8",
            Ruling::Deny
        ),
        "rule = [\n  { network = '10.0.0.0/8', deny = true }, # ten\n  # last\n  { network = '11.0.0.0/8', allow = true },\n  { network = \"12.0.0.0/8\", deny = true },\n]\n"
    );
    assert_eq!(
        ruled(
            "rule = [{ network = '10.0.0.0/8', deny = true }]\n",
            "10.0.0.0/8",
            Ruling::Limit(Limiting::connections(5), Some("imap"))
        ),
        "rule = [{ network = '10.0.0.0/8', max_connections = { imap = 5 } }]\n"
    );
    assert_eq!(
        ruled("rule = [{ network = '10.0.0.0/8', deny = true }]\n", "10.0.0.0/8", Ruling::Forget),
        "rule = []\n"
    );
}

#[test]
fn a_rule_is_changed_where_it_stands() {
    assert_eq!(ruled(FILE, "198.51.100.7", Ruling::Allow), with(&[("deny = true", "allow = true")]));
    assert_eq!(
        ruled(FILE, "203.0.113.0/24", Ruling::Limit(Limiting::connections(250), Some("imap"))),
        with(&[("imap = 200", "imap = 250")])
    );
    assert_eq!(
        ruled(FILE, "203.0.113.0/24", Ruling::Limit(Limiting::connections(5), Some("smtp"))),
        with(&[("submission = 40 }", "submission = 40, smtp = 5 }")])
    );
    assert_eq!(
        ruled(FILE, "203.0.113.0/24", Ruling::Limit(Limiting::connections(50), None)),
        with(&[("{ imap = 200, submission = 40 }", "50")])
    );
    assert_eq!(
        ruled(FILE, "203.0.113.0/24", Ruling::Deny),
        with(&[("max_connections = { imap = 200, submission = 40 }", "deny = true")])
    );
    let both = ruled(
        "[[rule]]\nnetwork = '10.0.0.0/8'\nmax_connections = 5\n",
        "10.0.0.0/8",
        Ruling::Limit(Limiting::connections(9), Some("imap")),
    );
    assert_eq!(both, "[[rule]]\nnetwork = '10.0.0.0/8'\nmax_connections = { imap = 9, \"*\" = 5 }\n");
}

#[test]
fn what_makes_a_source_is_said_as_long_as_the_rule_has_limits() {
    let rule = "[[rule]]\nnetwork = \"2001:db8::/32\"\nsource_prefix = 48 # a customer\n";
    let limited = ruled(rule, "2001:db8::/32", Ruling::Limit(Limiting::connections(5), None));
    assert_eq!(limited, format!("{rule}max_connections = 5\n"));
    let other = ruled(&limited, "2001:db8::/32", Ruling::Limit(Limiting::connections(6), Some("smtp")));
    assert_eq!(other, format!("{rule}max_connections = {{ smtp = 6, \"*\" = 5 }}\n"));
    assert_eq!(
        ruled(rule, "2001:db8::/32", Ruling::Deny),
        "[[rule]]\nnetwork = \"2001:db8::/32\"\ndeny = true # a customer\n"
    );
    assert_eq!(
        ruled(&limited, "2001:db8::/32", Ruling::Allow),
        "[[rule]]\nnetwork = \"2001:db8::/32\"\nallow = true\n"
    );
}

#[test]
fn a_rate_and_a_network_limit_stay_as_long_as_the_rule_has_limits() {
    let rule = "[[rule]]\nnetwork = \"10.0.0.0/8\"\nrate = \"60/min\" # printers\nburst = { imap = 5 }\nnetwork_max_connections = 90\n";
    let limited = ruled(rule, "10.0.0.0/8", Ruling::Limit(Limiting::connections(5), None));
    assert_eq!(limited, format!("{rule}max_connections = 5\n"));
    let other = ruled(&limited, "10.0.0.0/8", Ruling::Limit(Limiting::connections(6), Some("smtp")));
    assert_eq!(other, format!("{rule}max_connections = {{ smtp = 6, \"*\" = 5 }}\n"));
    let denied = ruled(rule, "10.0.0.0/8", Ruling::Deny);
    assert_eq!(denied, "[[rule]]\nnetwork = \"10.0.0.0/8\"\ndeny = true # printers\n");
    let allowed = ruled(&other, "10.0.0.0/8", Ruling::Allow);
    assert_eq!(allowed, "[[rule]]\nnetwork = \"10.0.0.0/8\"\nallow = true\n");
}

#[test]
fn each_limit_is_put_beside_those_there_are() {
    let rule = "[[rule]]\nnetwork = \"10.0.0.0/8\"\nmax_connections = 5 # printers\n";
    let given =
        |text: &str, limiting: Limiting, service| ruled(text, "10.0.0.0/8", Ruling::Limit(limiting, service));
    let rate = |text| Limiting { rate: Some(OrNone(RateSpec::parse(text))), ..Limiting::default() };
    let burst = |burst| Limiting { burst: Some(burst), ..Limiting::default() };
    let network = |limit| Limiting { network_max_connections: Some(OrNone(limit)), ..Limiting::default() };
    let one = given(rule, rate("60/min"), None);
    assert_eq!(one, format!("{rule}rate = \"60/min\"\n"));
    assert_eq!(given(&one, burst(5), None), format!("{one}burst = 5\n"));
    let two = given(&one, rate("none"), Some("smtp"));
    assert_eq!(two, format!("{rule}rate = {{ smtp = \"none\", \"*\" = \"60/min\" }}\n"));
    let three = given(&two, burst(5), Some("imap"));
    let rates = "rate = { imap = \"60/min\", smtp = \"none\", \"*\" = \"60/min\" }\nburst = { imap = 5, \"*\" = 60 }\n";
    assert_eq!(three, format!("{rule}{rates}"));
    assert_eq!(given(&three, rate("none"), None), format!("{rule}rate = \"none\"\n"));
    let around = given(rule, network(Some(9)), None);
    assert_eq!(around, format!("{rule}network_max_connections = 9\n"));
    let around = given(&around, network(None), Some("imap"));
    assert_eq!(around, format!("{rule}network_max_connections = {{ imap = \"none\", \"*\" = 9 }}\n"));
    let denied = "[[rule]]\nnetwork = '10.0.0.0/8'\ndeny = true # no\n";
    assert_eq!(
        given(denied, rate("7/s"), Some("smtp")),
        "[[rule]]\nnetwork = '10.0.0.0/8'\nrate = { smtp = \"7/s\" } # no\n"
    );
    let refused = |limiting, words: &str| {
        let network = "10.0.0.0/8".parse().unwrap();
        let change = Change::Rule { network, ruling: Ruling::Limit(limiting, None) };
        let error = edit(rule, "x", &change).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    };
    refused(burst(5), "burst has no effect without a rate in the same rule");
    refused(network(Some(4)), "the rule for 10.0.0.0/8 lets the network around a source hold 4 connections");
}

#[test]
fn a_new_rule_comes_last_and_what_stands_at_the_end_stays_above_it() {
    assert_eq!(
        ruled(FILE, "2001:db8::/32", Ruling::Limit(Limiting::connections(4), Some("smtp"))),
        format!("{FILE}\n[[rule]]\nnetwork = \"2001:db8::/32\"\nmax_connections = {{ smtp = 4 }}\n")
    );
    assert_eq!(
        ruled(
            "[[rule]]\nnetwork = '10.0.0.0/8'\ndeny = true\n# of the defaults\n[defaults]\n",
            "10.1.0.0/16",
            Ruling::Allow
        ),
        "[[rule]]\nnetwork = '10.0.0.0/8'\ndeny = true\n\n[[rule]]\nnetwork = \"10.1.0.0/16\"\nallow = true\n# of the defaults\n[defaults]\n"
    );
    assert_eq!(ruled("", "192.0.2.1", Ruling::Deny), "[[rule]]\nnetwork = \"192.0.2.1\"\ndeny = true\n");
}

#[test]
fn a_forgotten_rule_takes_the_comment_above_it_along_and_no_other() {
    assert_eq!(
        ruled(FILE, "198.51.100.7", Ruling::Forget),
        with(&[("# bad\n[[rule]]\nnetwork = \"198.51.100.7\"\ndeny = true\n\n", "")])
    );
    let graz = FILE.find("# Graz").unwrap()..FILE.find("# bad").unwrap();
    let mut without = FILE.to_owned();
    without.replace_range(graz, "");
    assert_eq!(ruled(FILE, "203.0.113.0/24", Ruling::Forget), without);
    assert_eq!(ruled(&ruled(FILE, "10.0.0.0/8", Ruling::Deny), "10.0.0.0/8", Ruling::Forget), FILE);
    assert_eq!(ruled(FILE, "10.0.0.0/8", Ruling::Forget), FILE, "there is none");
}

#[test]
fn line_ends_and_the_mark_before_the_text_stay() {
    let windows = format!("\u{feff}{}", FILE.replace('\n', "\r\n"));
    let expected = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
    for (service, word) in [("smtp", "max_connections=12"), ("pop3", "max_total=300"), ("imap", "rate=5/s")] {
        assert_eq!(set(&windows, service, &[word]), expected(&set(FILE, service, &[word])));
    }
    assert_eq!(
        ruled(&windows, "10.0.0.0/8", Ruling::Deny),
        expected(&ruled(FILE, "10.0.0.0/8", Ruling::Deny))
    );
    let mixed = "# a\r\n[service.smtp]\nmax_connections = 5\r\n# b\n";
    assert_eq!(set(mixed, "smtp", &["max_connections=6"]), mixed.replace('5', "6"));
}

#[test]
fn what_cannot_be_written_is_refused_with_the_reason() {
    let refused = |text: &str, service: &str, word: &str| {
        let settings = [parse_setting(word).unwrap()];
        edit(text, "limiter.toml", &Change::Settings { service, settings: &settings })
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(
            "[service]\nsmtp.burst = 5\nimap.ports = [143]\nsmtp.rate = '1/s'\n",
            "smtp",
            "max_connections=5"
        ),
        "limiter.toml: this change would alter other parts of the file, so nothing was changed; edit the file, then run `limiter reload`"
    );
    assert_eq!(
        refused("[service.smtp]\nmax_total = 50\n", "smtp", "max_connections=51"),
        "max_total 50 of service smtp is less than the 51 connections one source may hold; raise it, or lower max_connections"
    );
    assert!(
        refused("[service.smtp]\nmax_total = no\n", "smtp", "max_connections=5")
            .starts_with("limiter.toml:2:")
    );
    assert_eq!(
        refused("", "smpt", "max_connections=5"),
        "unknown service smpt (known: imap, pop3, sieve, smtp, submission, submissions); name one of these"
    );
}

fn any_change() -> impl Strategy<Value = (usize, usize)> {
    (0usize..12, 0usize..6)
}

proptest! {
    /// Whatever is changed, in whatever order: every comment but those above a forgotten rule is still
    /// there, and the configuration is the one before with the changes.
    #[test]
    fn comments_survive_any_changes(changes in prop::collection::vec(any_change(), 1..12)) {
        let comments = |text: &str| text.matches('#').count();
        let mut text = FILE.to_owned();
        for (what, which) in changes {
            let service = ["smtp", "imap", "pop3", "sieve", "submission", "submissions"][which];
            let network = ["203.0.113.0/24", "10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "192.0.2.7", "::/0"][which];
            let before = comments(&text);
            text = match what {
                0 => set(&text, service, &["max_connections=7"]),
                1 => set(&text, service, &["rate=9/s"]),
                2 => set(&text, service, &["rate=9/s", "burst=100"]),
                3 => set(&text, service, &["network_max_connections=900", "mode=observe"]),
                4 => set(&text, service, &["network_max_connections=none", "max_total=none", "reserve=0"]),
                5 => set(&text, service, &["max_total=500", "reserve=9", "keepalive=none", "wait=9s"]),
                6 => ruled(&text, network, Ruling::Allow),
                7 => ruled(&text, network, Ruling::Deny),
                8 => ruled(&text, network, Ruling::Limit(Limiting::connections(8), None)),
                9 => ruled(&text, network, Ruling::Limit(Limiting::connections(9), Some(service))),
                10 => ruled(&text, network, Ruling::Limit(Limiting::connections(3), Some("imap"))),
                _ if which == 0 => continue,
                _ => ruled(&text, network, Ruling::Forget),
            };
            prop_assert_eq!(comments(&text), before, "{}", text);
        }
    }
}
