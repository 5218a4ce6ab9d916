// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemons' programs printed, held against the configuration that is made of it.
//!
//! The texts in tests/import are what the real programs printed; `expected.toml` beside each is written
//! anew with `UPDATE_EXPECTED=1 cargo test import`, to be read before it is committed.

mod debian_13;
mod not_known;
mod table;

use std::{fs, path::PathBuf};

use limiter_common::rule::Action;
use proptest::prelude::*;

use super::{model::Limit, *};
use crate::config::{self, Config};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(fixture(path)).unwrap()
}

/// The configuration for what these readers find in these files, and its text.
fn imported(of: &[(&Reader, &str)]) -> (Config, String) {
    let daemons = of.iter().map(|(reader, path)| (reader.read)(&text(path)).unwrap()).collect();
    let toml = Import::new(daemons, Vec::new()).to_string();
    let config = config::parse(&toml, "imported").unwrap_or_else(|error| panic!("{error}\n{toml}"));
    (config, toml)
}

/// Holds it against the file of that name.
fn holds(of: &[(&Reader, &str)], expected: &str) -> Config {
    let (config, toml) = imported(of);
    let file = fixture(expected);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&file, &toml).unwrap();
    }
    assert_eq!(toml, fs::read_to_string(&file).unwrap_or_default(), "{expected}");
    config
}

/// Ports, connections of a source, total and reserve.
fn limits(config: &Config, name: &str) -> (Vec<u16>, u32, Option<u32>, u32) {
    let service = config.services.iter().find(|service| service.name == name).unwrap();
    (service.ports.clone(), service.max_connections, service.max_total, service.reserve)
}

fn rules(config: &Config) -> Vec<(String, Action)> {
    config.rules.iter().map(|rule| (rule.network.to_string(), rule.action)).collect()
}

fn rate(config: &Config, name: &str) -> Option<(String, u32)> {
    let service = config.services.iter().find(|service| service.name == name).unwrap();
    service.rate.map(|rate| (rate.spec.to_string(), rate.burst))
}

fn prefixes(config: &Config, name: &str) -> (u8, u8) {
    let service = config.services.iter().find(|service| service.name == name).unwrap();
    (service.ipv4_prefix, service.ipv6_prefix)
}

#[test]
fn postfix_as_debian_installs_it() {
    let config = holds(&[(&POSTFIX, "postfix/default/output.txt")], "postfix/default/expected.toml");
    assert_eq!(limits(&config, "smtp"), (vec![25], 50, Some(100), 0));
    assert_eq!(config.hostname.as_deref(), Some("mail.example.org"));
}

#[test]
fn postfix_of_a_busy_mx() {
    let config = holds(&[(&POSTFIX, "postfix/mx/output.txt")], "postfix/mx/expected.toml");
    assert_eq!(limits(&config, "smtp"), (vec![25], 20, Some(150), 0));
    let allowed = ["192.0.2.0/24", "198.51.100.25/32", "2001:db8:10::/48"];
    assert_eq!(rules(&config), allowed.map(|network| (network.to_owned(), Action::Allow)));
    assert_eq!(rate(&config, "smtp"), Some(("1/s".to_owned(), 30)));
}

#[test]
fn postfix_with_limits_of_single_services() {
    let config = holds(&[(&POSTFIX, "postfix/submission/output.txt")], "postfix/submission/expected.toml");
    assert_eq!(limits(&config, "submission"), (vec![587], 40, Some(40), 0));
    assert_eq!(limits(&config, "submissions"), (vec![465], 1_000_000, None, 0));
    assert_eq!(limits(&config, "smtp-2525"), (vec![2525], 50, Some(100), 0));
    assert_eq!(rate(&config, "submission"), None);
    assert_eq!(rate(&config, "smtp-2525"), Some(("5/h".to_owned(), 100)));
}

#[test]
fn postfix_behind_postscreen() {
    let config = holds(&[(&POSTFIX, "postfix/postscreen/output.txt")], "postfix/postscreen/expected.toml");
    assert_eq!(limits(&config, "smtp"), (vec![25], 15, None, 0));
    assert_eq!(rate(&config, "smtp"), None);
}

#[test]
fn exim_as_debian_installs_it() {
    let config = holds(&[(&EXIM, "exim/default/output.txt")], "exim/default/expected.toml");
    assert_eq!(limits(&config, "smtp"), (vec![25], 20, Some(20), 0));
}

#[test]
fn exim_counts_all_of_its_ports_together() {
    let config = holds(&[(&EXIM, "exim/busy/output.txt")], "exim/busy/expected.toml");
    assert_eq!(limits(&config, "smtp"), (vec![25, 465, 587], 10, Some(180), 20));
    assert_eq!(limits(&config, "submission").0, Vec::<u16>::new());
}

#[test]
fn exim_with_an_expansion_and_lists_in_lists() {
    let config = holds(&[(&EXIM, "exim/lists/output.txt")], "exim/lists/expected.toml");
    // The limiter's default: what the expansion gives is not known.
    assert_eq!(limits(&config, "smtp"), (vec![25], 20, Some(90), 10));
    let said = [
        ("198.51.100.0/24", Action::Allow),
        ("203.0.113.7/32", Action::Allow),
        ("203.0.113.128/25", Action::Deny),
        ("2001:db8:20::/48", Action::Allow),
    ];
    assert_eq!(rules(&config), said.map(|(network, action)| (network.to_owned(), action)));
}

#[test]
fn exim_without_limits_on_many_interfaces() {
    let config = holds(&[(&EXIM, "exim/open/output.txt")], "exim/open/expected.toml");
    assert_eq!(limits(&config, "smtp"), (vec![25, 465, 587, 2525], 1_000_000, None, 0));
}

#[test]
fn exim_is_asked_for_the_lists_it_refers_to_until_all_are_there() {
    let all = text("exim/lists/output.txt");
    let without = |name: &str| {
        let lines = all.lines().filter(|line| !line.starts_with(&format!("hostlist {name} ")));
        lines.collect::<Vec<_>>().join("\n")
    };
    let asked = |text: &str| (EXIM.more)(text).into_iter().map(|run| run.join(" ")).collect::<Vec<_>>();
    assert_eq!(asked(&without("friends")), ["-bP +friends", "-bP +lost"]);
    assert_eq!(asked(&without("office")), ["-bP +lost", "-bP +office"]);
    assert_eq!(asked(&all), ["-bP +lost"]);
}

#[test]
fn dovecot_as_debian_installs_it() {
    let config = holds(&[(&DOVECOT, "dovecot/default/output.txt")], "dovecot/default/expected.toml");
    assert_eq!(limits(&config, "imap"), (vec![143, 993], 100, Some(100), 0));
    assert_eq!(limits(&config, "pop3"), (vec![110, 995], 100, Some(100), 0));
    assert_eq!(limits(&config, "sieve"), (vec![4190], 100, Some(100), 0));
}

#[test]
fn dovecot_with_many_connections_a_process() {
    let config = holds(&[(&DOVECOT, "dovecot/performance/output.txt")], "dovecot/performance/expected.toml");
    assert_eq!(limits(&config, "imap"), (vec![143, 993], 1600, Some(1600), 0));
    assert_eq!(limits(&config, "pop3"), (vec![110, 995], 300, Some(300), 0));
}

#[test]
fn dovecot_without_tls_and_partly_on_loopback() {
    let config = holds(&[(&DOVECOT, "dovecot/plain/output.txt")], "dovecot/plain/expected.toml");
    assert_eq!(limits(&config, "imap"), (vec![1143], 150, Some(150), 0));
}

#[test]
fn dovecot_behind_a_proxy_with_submission() {
    let config = holds(&[(&DOVECOT, "dovecot/proxies/output.txt")], "dovecot/proxies/expected.toml");
    assert_eq!(limits(&config, "submission"), (vec![465, 587], 50, Some(50), 0));
    assert_eq!(limits(&config, "submissions").0, Vec::<u16>::new());
}

#[test]
fn dovecot_as_2_4_says_it() {
    let text = "# 2.4.1 (7d8c0e5759): /etc/dovecot/dovecot.conf\ndovecot_config_version = 2.4.0\nprotocols {\n  imap = yes\n  \
                pop3 = no\n}\nservice imap-login {\n  restart_request_count = unlimited\n  process_limit = 3\n}\n";
    let import = Import::new(vec![(DOVECOT.read)(text).unwrap()], Vec::new());
    let config = config::parse(&import.to_string(), "imported").unwrap();
    assert_eq!(limits(&config, "imap"), (vec![143, 993], 1024, Some(1024), 0));
    assert_eq!(import.services.len(), 1);
    assert_eq!(import.daemons[0].version.as_deref(), Some("2.4.1"));
}

#[test]
fn several_daemons_make_one_configuration_and_a_port_taken_twice_is_named() {
    let all = [
        (&POSTFIX, "postfix/submission/output.txt"),
        (&EXIM, "exim/busy/output.txt"),
        (&DOVECOT, "dovecot/proxies/output.txt"),
    ];
    let (config, toml) = imported(&all);
    // Postfix has 40 of one client there, and Exim 10.
    assert_eq!(limits(&config, "submission"), (vec![587], 10, Some(40), 0));
    assert_eq!(limits(&config, "imap").0, [993, 10143]);
    let named = "port 25 already belongs to [service.smtp]";
    assert!(toml.split_whitespace().collect::<Vec<_>>().join(" ").contains(named), "{toml}");
}

#[test]
fn postfix_by_what_differs_from_its_defaults() {
    let text =
        "mynetworks = 192.0.2.0/24, [2001:db8::]/32\nmyhostname=mx.example.org\nsmtp inet n - y - - smtpd\n";
    let daemon = (POSTFIX.read)(text).unwrap();
    assert_eq!(daemon.rules.len(), 2);
    assert_eq!(daemon.services[0].max_total.value, Limit::Of(100));
    let text = "myhostname = mx.example.org\n";
    assert_eq!((POSTFIX.read)(text).unwrap().services.len(), 1);
}

#[test]
fn postfix_has_the_options_of_its_services_in_either_output() {
    let line =
        "smtp inet n - y - - smtpd -v -o { smtpd_client_connection_count_limit = 5 } -osyslog_name=mx\n";
    for more in ["", "smtp/inet/smtpd_client_connection_count_limit = 5\n"] {
        let daemon = (POSTFIX.read)(&format!("myhostname = mx.example.com\n{line}{more}")).unwrap();
        assert_eq!(daemon.services[0].max_connections.value, Limit::Of(5));
    }
    let line = "smtp inet n - y - - smtpd -o smtpd_client_connection_count_limit = 5\n";
    let daemon = (POSTFIX.read)(&format!("myhostname = mx.example.com\n{line}")).unwrap();
    assert!(daemon.left_out.iter().any(|left| left.why.contains("postconf -P")), "{daemon:?}");
    assert_eq!(daemon.services[0].max_connections.value, Limit::Unknown);
}

#[test]
fn parameters_that_refer_to_each_other_without_end_are_left_out() {
    let many = "$a".repeat(1000);
    for value in
        ["$smtpd_client_connection_count_limit", "${a:${b}}", "${", "$", "${a?{1}:{2}}", many.as_str()]
    {
        let text = format!(
            "a = $b$b$b$b\nb = $a$a$a$a\nsmtpd_client_connection_count_limit = {value}\nsmtp inet n - y - - smtpd\n"
        );
        let daemon = (POSTFIX.read)(&text).unwrap();
        assert_eq!(daemon.services[0].max_connections.value, Limit::Unknown, "{value}");
        assert!(!daemon.left_out.is_empty(), "{value}");
    }
}

#[test]
fn the_text_of_another_program_is_none() {
    for (reader, path) in [
        (&POSTFIX, "exim/default/output.txt"),
        (&POSTFIX, "dovecot/default/output.txt"),
        (&EXIM, "postfix/default/output.txt"),
        (&EXIM, "dovecot/default/output.txt"),
        (&DOVECOT, "postfix/default/output.txt"),
        (&DOVECOT, "exim/default/output.txt"),
    ] {
        assert_eq!((reader.read)(&text(path)), Err(Unread::Other), "{} {path}", reader.name);
    }
    for reader in [&POSTFIX, &EXIM, &DOVECOT] {
        assert_eq!((reader.read)(""), Err(Unread::Other), "{}", reader.name);
    }
}

/// Lines of the real texts that matter, some with other values, among lines of anything.
fn lines(paths: &[&str]) -> impl Strategy<Value = String> {
    let matter = [
        "limit", "smtp", "network", "port", "host", "inet", "service", "reserve", "count", "}", "{",
        "protocol",
    ];
    let real: Vec<String> = paths
        .iter()
        .flat_map(|path| text(path).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| matter.iter().any(|word| line.contains(word)))
        .collect();
    let changed = (prop::sample::select(real.clone()), "[-+0-9a-z.:/{}$!@*<;\\[\\]\" ]{0,30}").prop_map(
        |(line, value)| {
            let (name, _) = line.split_once('=').unwrap_or((&line, ""));
            format!("{name}= {value}")
        },
    );
    let number = (prop::sample::select(real.clone()), any::<u64>()).prop_map(|(line, number)| {
        let (name, _) = line.split_once('=').unwrap_or((&line, ""));
        format!("{name}= {number}")
    });
    let line = prop_oneof![4 => prop::sample::select(real), 2 => changed, 2 => number, 1 => any::<String>()];
    prop::collection::vec(line, 0..200).prop_map(|lines| lines.join("\n"))
}

fn no_panic_and_a_configuration_that_parses(reader: &Reader, text: &str) {
    let _runs = (reader.more)(text);
    if let Ok(daemon) = (reader.read)(text) {
        let toml = Import::new(vec![daemon], vec![text.to_owned()]).to_string();
        config::parse(&toml, "imported").unwrap_or_else(|error| panic!("{error}\n{text}\n{toml}"));
    }
}

proptest! {
    #[test]
    fn any_text_for_postfix(text in lines(&["postfix/mx/output.txt", "postfix/submission/changed-3.10.txt"])) {
        no_panic_and_a_configuration_that_parses(&POSTFIX, &text);
    }

    #[test]
    fn any_text_for_exim(text in lines(&["exim/lists/output.txt", "exim/open/output.txt"])) {
        no_panic_and_a_configuration_that_parses(&EXIM, &text);
    }

    #[test]
    fn any_text_for_dovecot(text in lines(&["dovecot/proxies/output.txt", "dovecot/proxies/changed-2.4.txt", "dovecot/performance/changed-2.4.txt"])) {
        no_panic_and_a_configuration_that_parses(&DOVECOT, &text);
    }

    #[test]
    fn what_is_no_number_is_never_no_limit_and_no_number(value in "[-+0-9a-z .:/{}!@*<;#=]{0,20}") {
        prop_assume!(value.trim().parse::<u64>().is_err());
        let texts = [
            (&POSTFIX, "smtp", 100, format!(
                "myhostname = mx.example.com\nsmtp inet n - y - - smtpd\nsmtpd_client_connection_count_limit = x{value}\n"
            )),
            (&EXIM, "smtp", 30, format!("smtp_accept_max = 30\nsmtp_accept_max_per_host = x{value}\n")),
        ];
        for (reader, service, total, text) in texts {
            let daemon = (reader.read)(&text).unwrap();
            prop_assert!(!daemon.left_out.is_empty());
            let toml = Import::new(vec![daemon], Vec::new()).to_string();
            let config = config::parse(&toml, "imported").unwrap();
            prop_assert_eq!(limits(&config, service).1, 20, "{}", toml);
            prop_assert_eq!(limits(&config, service).2, Some(total), "{}", toml);
        }
    }

    #[test]
    fn any_text_at_all(text: String) {
        for reader in [&POSTFIX, &EXIM, &DOVECOT] {
            no_panic_and_a_configuration_that_parses(reader, &text);
        }
    }
}
