// SPDX-License-Identifier: GPL-2.0-only OR MIT
mod files;
mod fuzz;
mod malformed;
mod reference;
mod round_trip;
mod settings;
mod wording;

use limiter_common::{MAX_SERVICES, Mode, Protocol, Rate, Response};
use proptest::prelude::*;

use super::*;
use crate::wording::Wording;

const SAMPLE: &str = include_str!("../../../dist/limiter.toml");

fn service<'c>(config: &'c Config, name: &str) -> &'c Service {
    config.services.iter().find(|service| service.name == name).unwrap()
}

#[test]
fn without_a_file_the_services_of_the_design_hold_twenty_connections_a_source() {
    let config = Config::default();
    let found: Vec<_> =
        config.services.iter().map(|s| (s.name.as_str(), s.ports.as_slice(), s.protocol)).collect();
    let expected: [(&str, &[u16], Protocol); 6] = [
        ("imap", &[143, 993], Protocol::Imap),
        ("pop3", &[110, 995], Protocol::Pop3),
        ("sieve", &[4190], Protocol::Sieve),
        ("smtp", &[25], Protocol::Smtp),
        ("submission", &[587], Protocol::Smtp),
        ("submissions", &[465], Protocol::Smtp),
    ];
    assert_eq!(found, expected);
    for service in &config.services {
        assert_eq!((service.max_connections, service.response), (20, Response::Reply));
        assert_eq!((service.ipv4_prefix, service.ipv6_prefix), (32, 64));
        assert_eq!((service.rate, service.network, service.keepalive), (None, None, None));
        assert_eq!(service.wait, 5);
        assert_eq!((service.max_total, service.reserve), (None, 0));
    }
    assert_eq!((config.hostname, config.max_sources), (None, 262_144));
    assert_eq!(parse("", "empty").unwrap(), Config::default());
}

#[test]
fn the_sample_file_says_exactly_the_defaults() {
    assert_eq!(parse(SAMPLE, "limiter.toml").unwrap(), Config::default());
}

#[test]
fn the_keys_the_sample_file_comments_out_are_right_too() {
    let is_key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', '`']));
    let mut keys = 0;
    let uncommented: String = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ").filter(|rest| is_key(rest)) {
            Some(key) => {
                keys += 1;
                format!("{key}\n")
            }
            None => format!("{line}\n"),
        })
        .collect();
    assert_eq!(keys, 13, "{uncommented}");
    let mut expected = Config { hostname: Some("mail.example.org".into()), ..Config::default() };
    let smtp = expected.services.iter_mut().find(|service| service.name == "smtp").unwrap();
    (smtp.max_total, smtp.reserve) = (Some(400), 20);
    smtp.rate = Some(RateWithBurst { spec: RateSpec { count: 60, period_s: 60 }, burst: 30 });
    smtp.network = Some(Network { ipv4_prefix: 24, ipv6_prefix: 48, max_connections: 100 });
    smtp.keepalive = Some(600);
    smtp.tls = vec![CertificateFiles {
        certificate: "/etc/letsencrypt/live/smtp.example.org/fullchain.pem".into(),
        key: "/etc/letsencrypt/live/smtp.example.org/privkey.pem".into(),
    }];
    smtp.wait = 10;
    assert_eq!(parse(&uncommented, "limiter.toml").unwrap(), expected);
}

#[test]
#[expect(clippy::too_many_lines, reason = "there are many keys")]
fn every_key_works() {
    let config = parse(
        r#"
            hostname = "mail.example.org"
            max_sources = 1024
            remember_seconds = 60
            reconcile_seconds = 5
            mode = "observe"
            [defaults]
            max_connections = 7
            ipv4_prefix = 24
            ipv6_prefix = 56
            response = "reset"
            rate = "100/h"
            network = { max_connections = 9, ipv4_prefix = 16 }
            keepalive = "24h"
            wait = "1m"
            tls = { certificate = "/etc/ssl/all.pem", key = "/etc/ssl/all.key" }
            [service.smtp]
            ports = [2525, 25]
            tls_ports = [2525]
            tls = [
                { certificate = "/etc/ssl/\"a\".pem", key = '/etc/ssl/a.key' },
                { key = "/etc/ssl/b.pem", certificate = "/etc/ssl/b.pem" },
            ]
            protocol = "imap"
            max_connections = 1_000_000
            ipv4_prefix = 1
            ipv6_prefix = 128
            response = "reply"
            rate = "60/min"
            burst = 30
            network = "none"
            max_total = 1_000_000
            reserve = 20
            mode = "enforce"
            keepalive = "2m 30s"
            wait = 0
            [service.lmtp]
            ports = [24]
            protocol = "sieve"
            [[rule]]
            network = "2001:db8::/32"
            deny = true
            [[rule]]
            network = "203.0.113.0/24"
            comment = "Graz office, \"40\" people"
            max_connections = { imap = 200, lmtp = 40 }
            [[rule]]
            network = "198.51.100.7"
            allow = true
            [[rule]]
            network = "10.0.0.0/8"
            max_connections = 50
        "#,
        "limiter.toml",
    )
    .unwrap();
    assert_eq!((config.hostname.as_deref(), config.max_sources), (Some("mail.example.org"), 1024));
    assert_eq!((config.remember_seconds, config.reconcile_seconds), (60, 5));
    let files =
        |certificate: &str, key: &str| CertificateFiles { certificate: certificate.into(), key: key.into() };
    let smtp = Service {
        name: "smtp".into(),
        ports: vec![25, 2525],
        tls_ports: vec![2525],
        tls: vec![files("/etc/ssl/\"a\".pem", "/etc/ssl/a.key"), files("/etc/ssl/b.pem", "/etc/ssl/b.pem")],
        protocol: Protocol::Imap,
        max_connections: 1_000_000,
        ipv4_prefix: 1,
        ipv6_prefix: 128,
        response: Response::Reply,
        rate: Some(RateWithBurst { spec: RateSpec { count: 60, period_s: 60 }, burst: 30 }),
        network: None,
        max_total: Some(1_000_000),
        reserve: 20,
        mode: Mode::Enforce,
        keepalive: Some(150),
        wait: 0,
        wording: Wording::default(),
    };
    assert_eq!(service(&config, "smtp"), &smtp);
    let by_default = |name: &str, ports: &[u16], protocol| Service {
        name: name.into(),
        ports: ports.into(),
        tls_ports: ports.iter().copied().filter(|port| *port == 995).collect(),
        tls: vec![files("/etc/ssl/all.pem", "/etc/ssl/all.key")],
        protocol,
        max_connections: 7,
        ipv4_prefix: 24,
        ipv6_prefix: 56,
        response: Response::Reset,
        rate: Some(RateWithBurst { spec: RateSpec { count: 100, period_s: 3600 }, burst: 100 }),
        network: Some(Network { ipv4_prefix: 16, ipv6_prefix: 48, max_connections: 9 }),
        max_total: None,
        reserve: 0,
        mode: Mode::Observe,
        keepalive: Some(86_400),
        wait: 60,
        wording: Wording::default(),
    };
    assert_eq!(service(&config, "lmtp"), &by_default("lmtp", &[24], Protocol::Sieve));
    assert_eq!(service(&config, "pop3"), &by_default("pop3", &[110, 995], Protocol::Pop3));
    let rules: Vec<String> = config.rules.iter().map(|rule| rule.to_string().replace('\n', " ")).collect();
    assert_eq!(
        rules,
        [
            "[[rule]] network = \"10.0.0.0/8\" max_connections = 50 ",
            "[[rule]] network = \"198.51.100.7/32\" allow = true ",
            "[[rule]] network = \"203.0.113.0/24\" comment = \"Graz office, \\\"40\\\" people\" \
             max_connections = { imap = 200, lmtp = 40 } ",
            "[[rule]] network = \"2001:db8::/32\" deny = true ",
        ]
    );
    assert!(config.services.len() == 7 && config.services.is_sorted_by_key(|service| &service.name));
}

#[test]
fn defaults_hold_wherever_they_stand_in_the_file() {
    let config = parse("[service.smtp]\nmax_connections = 3\n[defaults]\nmax_connections = 5", "x").unwrap();
    assert_eq!((service(&config, "smtp").max_connections, service(&config, "imap").max_connections), (3, 5));
}

#[test]
fn a_service_without_ports_is_kept_and_not_limited() {
    let config =
        parse("[service.sieve]\nports = []\n[service.mine]\nports = [4190]\nprotocol = 'sieve'", "x");
    let config = config.unwrap();
    assert!(service(&config, "sieve").ports.is_empty());
    assert_eq!(service(&config, "mine").ports, [4190]);
}

#[test]
fn ports_can_be_moved_from_one_built_in_service_to_another_one_in_any_order() {
    let apart = "[service.imaps]\nports = [993]\nprotocol = 'imap'\n[service.imap]\nports = [143]";
    assert_eq!(service(&parse(apart, "x").unwrap(), "imap").ports, [143]);
    let swapped = "[service.submission]\nports = [465]\n[service.submissions]\nports = [587]";
    assert_eq!(service(&parse(swapped, "x").unwrap(), "submission").ports, [465]);
}

#[test]
fn a_byte_order_mark_and_crlf_are_no_mistakes() {
    let config = parse("\u{feff}max_sources = 2048\r\n[defaults]\r\nmax_connections = 4\r\n", "x").unwrap();
    assert_eq!((config.max_sources, config.services[0].max_connections), (2048, 4));
}

#[test]
fn the_table_takes_as_many_services_as_the_kernel() {
    let more = |count: u32| {
        let service = |i| format!("[service.s{i}]\nports = [{}]\nprotocol = 'smtp'\n", 10_000 + i);
        (0..count).map(service).collect::<Vec<_>>().concat()
    };
    let room = MAX_SERVICES - 1 - 6;
    assert_eq!(parse(&more(room), "x").unwrap().services.len(), 63);
    let error = parse(&more(room + 1), "x").unwrap_err();
    assert_eq!(
        error.to_string(),
        "x:172:10: too many services: at most 63 are possible; put ports with the same limit into one service"
    );
}

#[test]
fn a_policy_holds_what_the_service_says() {
    for service in Config::default().services {
        let policy = service.policy();
        assert_eq!(policy.name(), service.name);
        assert_eq!(policy.max_connections, service.max_connections);
        assert_eq!((policy.source.ipv4, policy.source.ipv6), (service.ipv4_prefix, service.ipv6_prefix));
        assert_eq!(Protocol::from_u8(policy.protocol), Some(service.protocol));
        assert_eq!(Response::from_u8(policy.response), service.response);
        assert_eq!(
            (policy.rate, policy.keepalive.seconds(), policy.has_network()),
            (Rate::default(), 0, false)
        );
        assert_eq!(policy.wait_s, 5);
    }
    let text = "[service.smtp]\nrate = '6/min'\nburst = 2\nkeepalive = '1m'\nmax_total = 99\nreserve = 3\n\
                wait = '12s'\nnetwork = { max_connections = 50, ipv6_prefix = 40 }";
    let policy = service(&parse(text, "x").unwrap(), "smtp").policy();
    assert_eq!(policy.rate, Rate::new(6, 60, 2));
    assert_eq!((policy.keepalive.seconds(), policy.max_total, policy.reserve), (60, 99, 3));
    assert_eq!(policy.wait_s, 12);
    assert_eq!((policy.network_max_connections, policy.network.ipv4, policy.network.ipv6), (50, 24, 40));
}

#[test]
fn a_service_may_say_its_part_of_a_rate_and_a_network_no_smaller_than_a_source() {
    let rate = |text: &str, name: &str| {
        service(&parse(text, "x").unwrap(), name).rate.map(|rate| (rate.spec.to_string(), rate.burst))
    };
    let inherited = "[defaults]\nrate = '60/min'\nburst = 9\n[service.smtp]\nburst = 5\n[service.imap]\nrate = '10/s'\n\
                     [service.pop3]\nrate = 'none'";
    assert_eq!(rate(inherited, "smtp"), Some(("60/min".to_owned(), 5)));
    assert_eq!(rate(inherited, "imap"), Some(("10/s".to_owned(), 9)));
    assert_eq!(rate(inherited, "pop3"), None);
    let total = parse("[service.smtp]\nmax_total = 'none'\nreserve = 0", "x").unwrap();
    assert_eq!(service(&total, "smtp").max_total, None);
    // Where nothing is said of the network's prefixes, they are no longer than the source's.
    let short = "[service.smtp]\nipv4_prefix = 16\nipv6_prefix = 32\nnetwork = { max_connections = 20 }";
    let network = service(&parse(short, "x").unwrap(), "smtp").network.unwrap();
    assert_eq!((network.ipv4_prefix, network.ipv6_prefix), (16, 32));
}

#[test]
fn the_fingerprint_is_the_same_in_every_build_and_differs_for_every_key() {
    // If this fails, daemons will believe after an upgrade that the file has changed.
    assert_eq!(Config::default().fingerprint(), FINGERPRINT_OF_THE_DEFAULTS);
    let other = [
        "hostname = 'a'",
        "max_sources = 262145",
        "remember_seconds = 601",
        "reconcile_seconds = 31",
        "mode = 'observe'",
        "[service.smtp]\nmode = 'observe'",
        "[service.smtp]\nports = []",
        "[service.smtp]\nports = [26]",
        "[service.smtp]\nprotocol = 'imap'",
        "[service.smtp]\nmax_connections = 21",
        "[service.smtp]\nipv4_prefix = 31",
        "[service.smtp]\nipv6_prefix = 63",
        "[service.smtp]\nresponse = 'reset'",
        "[service.smtp]\nrate = '60/min'",
        "[service.smtp]\nrate = '61/min'",
        "[service.smtp]\nrate = '60/h'",
        "[service.smtp]\nrate = '60/min'\nburst = 59",
        "[service.smtp]\nmax_total = 99",
        "[service.smtp]\nmax_total = 99\nreserve = 1",
        "[service.smtp]\nnetwork = { max_connections = 20 }",
        "[service.smtp]\nnetwork = { max_connections = 21 }",
        "[service.smtp]\nnetwork = { max_connections = 20, ipv4_prefix = 23 }",
        "[service.smtp]\nnetwork = { max_connections = 20, ipv6_prefix = 47 }",
        "[service.smtp]\nkeepalive = '10m'",
        "[service.smtp]\nwait = 0",
        "[service.smtp]\ntls = { certificate = '/a', key = '/b' }",
        "[service.smtp]\ntls = { certificate = '/b', key = '/a' }",
        "[service.imap]\ntls_ports = []",
        "[service.imap]\ntls_ports = [143, 993]",
        "[service.smtp]\nwait = '6s'",
        "[defaults]\nwait = '6s'",
        "[service.smtp]\nmessage = 'a'",
        "[service.smtp]\nmessage = { rate = 'a' }",
        "[defaults]\nmessage = { rate = 'a' }",
        "[service.smtp]\nurl = 'https://a'",
        "interfaces = []",
        "history = false",
        "[history]\nusers = false",
        "[history]\ndays = 31",
        "[history]\nmax_mib = 255",
        "interfaces = ['eth0']",
        "[ladder]\nreplies = '21/min'",
        "[ladder]\nreplies = 'none'",
        "[ladder]\nban_after = '100 in 10min'",
        "[ladder]\nban_after = '100 in 11min'",
        "[ladder]\nban = '11m'",
        "[ladder]\nban_max = '25h'",
        "[ladder]\nmax_bans = 65537",
        "[[rule]]\nnetwork = '10.0.0.0/8'\nallow = true",
        "[[rule]]\nnetwork = '10.0.0.0/8'\ndeny = true",
        "[[rule]]\nnetwork = '10.0.0.0/9'\nallow = true",
        "[[rule]]\nnetwork = '10.0.0.0/8'\nmax_connections = 5",
        "[[rule]]\nnetwork = '10.0.0.0/8'\nmax_connections = { smtp = 5 }",
        "[[rule]]\nnetwork = '10.0.0.0/8'\nmax_connections = { smtp = 5, '*' = 5 }",
        "[[rule]]\nnetwork = '10.0.0.0/8'\nrate = '60/min'",
        "[[rule]]\nnetwork = '10.0.0.0/8'\nrate = '60/min'\nburst = 5",
        "[[rule]]\nnetwork = '10.0.0.0/8'\nrate = { imap = '60/min' }",
        "[[rule]]\nnetwork = '10.0.0.0/8'\nrate = 'none'",
        "[[rule]]\nnetwork = '10.0.0.0/8'\nnetwork_max_connections = 5",
        "[[rule]]\nnetwork = '10.0.0.0/8'\nnetwork_max_connections = 'none'",
    ];
    let mut seen: Vec<_> = other.iter().map(|text| parse(text, "x").unwrap().fingerprint()).collect();
    seen.push(FINGERPRINT_OF_THE_DEFAULTS);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), other.len() + 1);
    let commented = parse("# nothing\n[service.smtp]\n\nmax_connections = 20", "x").unwrap();
    assert_eq!(commented.fingerprint(), FINGERPRINT_OF_THE_DEFAULTS);
}

const FINGERPRINT_OF_THE_DEFAULTS: u64 = 4_709_952_465_120_350_806;

#[test]
fn a_service_has_the_wait_of_the_defaults_unless_it_says_its_own_whatever_its_response() {
    let text = "[defaults]\nwait = '20s'\nresponse = 'drop'\n[service.smtp]\nwait = '0s'\n\
                [service.imap]\nresponse = 'reset'\n[service.lmtp]\nports = [24]\nprotocol = 'smtp'";
    let config = parse(text, "x").unwrap();
    let found = |name: &str| (service(&config, name).wait, service(&config, name).response);
    assert_eq!(found("smtp"), (0, Response::Drop));
    assert_eq!(found("imap"), (20, Response::Reset));
    assert_eq!((found("lmtp"), found("pop3")), ((20, Response::Drop), (20, Response::Drop)));
}

#[test]
fn a_wait_is_any_whole_second_up_to_a_minute_and_only_0_needs_no_unit() {
    for seconds in 0..=60 {
        let text = check::shown_duration(seconds);
        assert_eq!(check::wait(&check::Value::Text(&text)).map(u32::from), Ok(seconds));
    }
    for (text, seconds) in [("wait=0", 0), ("wait=0s", 0), ("wait=60s", 60), ("wait=1m", 60)] {
        assert_eq!(parse_setting(text), Ok(Setting::Wait(seconds)), "{text}");
    }
    assert_eq!(check::shown_duration(0), "0s");
}

#[test]
fn a_time_is_shown_as_it_is_given() {
    for (text, seconds) in [
        ("30s", 30),
        ("10m", 600),
        ("2m 30s", 150),
        ("1h 30m", 5400),
        ("24h", 86_400),
        ("23h 59m 59s", 86_399),
    ] {
        assert_eq!(check::keepalive(&check::Value::Text(text)), Ok(Some(seconds)));
        assert_eq!(check::shown_duration(seconds), text);
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text, "x").map_err(|error| one_sentence(&error.to_string()));
        let _ = parse(&String::from_utf8_lossy(&bytes), "x").map_err(|error| one_sentence(&error.to_string()));
        let _ = parse_setting(&text).map_err(|error| one_sentence(&error.to_string()));
    }

    #[test]
    fn no_change_of_the_sample_file_makes_it_panic(
        at in 0..SAMPLE.len(), length in 0usize..30, instead in "[\\[\\]\"'#=.,{}0-9a-z\\\\ \n\r\u{0}-\u{ff}-]{0,5}",
    ) {
        let mut text = SAMPLE.to_owned();
        text.replace_range(at..(at + length).min(SAMPLE.len()), &instead);
        let _ = parse(&text, "x").map_err(|error| one_sentence(&error.to_string()));
    }

    #[test]
    fn any_number_is_taken_exactly_when_it_is_in_range(number: i64) {
        let fits = (1..=1_000_000).contains(&number);
        prop_assert_eq!(parse_setting(&format!("max_connections={number}")).is_ok(), fits);
        prop_assert_eq!(parse(&format!("[defaults]\nmax_connections = {number}"), "x").is_ok(), fits);
    }
}

fn one_sentence(error: &str) {
    assert!(!error.contains(['\n', '\r', '\0']) && error.contains("; "), "{error:?}");
}

#[test]
fn what_makes_a_source_in_a_network_lies_within_it() {
    let says =
        |words: &str| parse(&format!("[[rule]]\n{words}\n"), "x").map(|config| config.rules[0].source_prefix);
    for (words, prefix) in [
        ("network = '64:ff9b:1::/48'\nsource_prefix = 128", 128),
        ("network = '2001:db8::/48'\nsource_prefix = 48\nmax_connections = 5", 48),
        ("network = '192.0.2.0/24'\nsource_prefix = 32", 32),
        ("network = '192.0.2.1'\nsource_prefix = 32", 32),
        ("network = '2000::/3'\nsource_prefix = 56", 56),
    ] {
        assert_eq!(says(words).unwrap(), Some(prefix), "{words}");
    }
    for (words, complaint) in [
        ("network = '2001:db8::/48'\nsource_prefix = 47", "shorter than the prefix of 2001:db8::/48"),
        ("network = '192.0.2.0/24'\nsource_prefix = 23", "shorter than the prefix of 192.0.2.0/24"),
        ("network = '192.0.2.0/24'\nsource_prefix = 33", "fewer than 33 bits"),
        ("network = '::/0'\nsource_prefix = 0", "source_prefix"),
        ("network = '2001:db8::/48'\nsource_prefix = 129", "source_prefix"),
        ("network = '2001:db8::/48'\nsource_prefix = 'all'", "source_prefix"),
        ("network = '2001:db8::/48'\nsource_prefix = 64\nallow = true", "no source in it has a limit"),
        ("network = '2001:db8::/48'\nsource_prefix = 64\ndeny = true", "no source in it has a limit"),
        ("network = '64:ff9b::/96'\nsource_prefix = 128", "its IPv4 host"),
        ("network = '2002:c000:201::/48'\nsource_prefix = 64", "its IPv4 host"),
    ] {
        let error = says(words).unwrap_err().to_string();
        assert!(error.contains(complaint) && error.starts_with("x:"), "{words}: {error}");
    }
}
