mod fuzz;
mod malformed;
mod settings;

use std::{fs, io::Write};

use limiter_common::{MAX_SERVICES, Rate, ServicePolicy};
use proptest::prelude::*;

use super::*;

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
    assert_eq!(keys, 12, "{uncommented}");
    let mut expected = Config { hostname: Some("mail.example.org".into()), ..Config::default() };
    let smtp = expected.services.iter_mut().find(|service| service.name == "smtp").unwrap();
    (smtp.max_total, smtp.reserve) = (Some(400), 20);
    smtp.rate = Some(BurstingPace { pace: Pace { count: 60, period_s: 60 }, burst: 30 });
    smtp.network = Some(Network { ipv4_prefix: 24, ipv6_prefix: 48, max_connections: 100 });
    smtp.keepalive = Some(600);
    smtp.wait = 10;
    assert_eq!(parse(&uncommented, "limiter.toml").unwrap(), expected);
}

#[test]
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
            [service.smtp]
            ports = [2525, 25]
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
    let smtp = Service {
        name: "smtp".into(),
        ports: vec![25, 2525],
        protocol: Protocol::Imap,
        max_connections: 1_000_000,
        ipv4_prefix: 1,
        ipv6_prefix: 128,
        response: Response::Reply,
        rate: Some(BurstingPace { pace: Pace { count: 60, period_s: 60 }, burst: 30 }),
        network: None,
        max_total: Some(1_000_000),
        reserve: 20,
        mode: Mode::Enforce,
        keepalive: Some(150),
        wait: 0,
    };
    assert_eq!(service(&config, "smtp"), &smtp);
    let by_default = |name: &str, ports: &[u16], protocol| Service {
        name: name.into(),
        ports: ports.into(),
        protocol,
        max_connections: 7,
        ipv4_prefix: 24,
        ipv6_prefix: 56,
        response: Response::Reset,
        rate: Some(BurstingPace { pace: Pace { count: 100, period_s: 3600 }, burst: 100 }),
        network: Some(Network { ipv4_prefix: 16, ipv6_prefix: 48, max_connections: 9 }),
        max_total: None,
        reserve: 0,
        mode: Mode::Observe,
        keepalive: Some(86_400),
        wait: 60,
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
        "x:172:10: this service is one more than the 63 there can be; put ports with the same limit into one service"
    );
}

#[test]
fn a_policy_holds_what_the_service_says() {
    for service in Config::default().services {
        let policy = service.policy();
        assert_eq!(policy.name(), service.name);
        assert_eq!(policy.max_connections, service.max_connections);
        assert_eq!((policy.narrow.ipv4, policy.narrow.ipv6), (service.ipv4_prefix, service.ipv6_prefix));
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
    assert_eq!((policy.network_max_connections, policy.wide.ipv4, policy.wide.ipv6), (50, 24, 40));
}

#[test]
fn a_service_may_say_its_part_of_a_rate_and_a_network_no_smaller_than_a_source() {
    let rate = |text: &str, name: &str| {
        service(&parse(text, "x").unwrap(), name).rate.map(|rate| (rate.pace.to_string(), rate.burst))
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
        "[service.smtp]\nwait = '6s'",
        "[defaults]\nwait = '6s'",
        "interfaces = []",
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

const FINGERPRINT_OF_THE_DEFAULTS: u64 = 0xb111_887f_309d_02c8;

#[test]
fn a_file_is_loaded() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(SAMPLE.as_bytes()).unwrap();
    assert_eq!(load(file.path()).unwrap(), Config::default());
}

#[test]
fn what_is_no_readable_file_is_refused_in_one_sentence() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mode = |name: &str, mode| fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    fs::write(path("large"), vec![b'#'; 8 << 20 | 1]).unwrap();
    fs::write(path("largest"), vec![b'#'; 8 << 20]).unwrap();
    fs::write(path("latin1"), b"# gr\xfc\xdfe").unwrap();
    fs::write(path("late"), b"hostname = 'a'\n# \xc3\xa4\xc3\xb6\xff").unwrap();
    fs::write(path("nul"), b"[defaults]\nmax\0").unwrap();
    fs::write(path("anyone"), "").unwrap();
    mode("anyone", 0o666);
    for open in ["open", "sticky"] {
        fs::create_dir(path(open)).unwrap();
        fs::write(path(open).join("file"), "").unwrap();
    }
    mode("open", 0o777);
    mode("sticky", 0o1777);
    symlink(path("open/file"), path("link to open")).unwrap();
    symlink(path("largest"), path("open/link")).unwrap();
    symlink(path("circle"), path("circle")).unwrap();
    symlink("/dev/zero", path("zero")).unwrap();
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    load(&path("largest")).unwrap();
    load(&path("sticky/file")).unwrap();
    let open = format!(
        ": anyone may put another file in its place, and root would do what it says; run `chmod o-w {}`, or move it",
        path("open").display()
    );
    let anyone = format!(
        ": anyone may write to this file, and root would do what they write; run `chmod o-w {}`",
        path("anyone").display()
    );
    let table = [
        ("none", ": there is no such file; put it there, or give the path of another with --config"),
        ("", ": this is a directory; give the path of the configuration file in it"),
        ("nul/x", ": cannot be read, Not a directory (os error 20); let the limiter read it"),
        ("large", ": larger than 8 MiB, so this is no configuration; give the path of the right file"),
        ("latin1", ":1:5: this is not UTF-8; save the file as UTF-8 text"),
        ("late", ":2:5: this is not UTF-8; save the file as UTF-8 text"),
        ("nul", ":2:4: there is a NUL character here; remove it"),
        ("circle", ": the symbolic links here lead in a circle; give the path of the file itself"),
        ("zero", ": this is a device and no file; give the path of the configuration file"),
        ("pipe", ": this is a pipe and no file; give the path of the configuration file"),
        ("socket", ": this is a socket and no file; give the path of the configuration file"),
        ("anyone", &anyone),
        ("open/file", &open),
        ("link to open", &open),
        ("open/link", &open),
    ];
    for (name, expected) in table {
        let path = path(name);
        let error = load(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{}{expected}", path.display()));
    }
}

prop_compose! {
    fn any_service()(
        name in "[a-z0-9_-]{1,15}",
        protocol in 0..check::PROTOCOLS.len(),
        max_connections in 1..=ServicePolicy::MAX_LIMIT,
        ipv4_prefix in 1u8..=32,
        ipv6_prefix in 1u8..=128,
        (reset, observe) in any::<(bool, bool)>(),
        rate in proptest::option::of((1..=Rate::MAX_COUNT, 0usize..3, 1..=Rate::MAX_COUNT)),
        network in proptest::option::of((1u8..=32, 1u8..=128, 0u32..1000)),
        total in proptest::option::of((0u32..1000, 0..=ServicePolicy::MAX_LIMIT)),
        keepalive in proptest::option::of(30u32..=86_400),
        wait in 0..=ServicePolicy::MAX_WAIT_S,
    ) -> Service {
        let protocol = check::PROTOCOLS[protocol].1;
        let response = if reset { Response::Reset } else { Response::Reply };
        let above = |more: u32| (max_connections + more).min(ServicePolicy::MAX_LIMIT);
        Service {
            name,
            ports: Vec::new(),
            protocol,
            max_connections,
            ipv4_prefix,
            ipv6_prefix,
            response,
            rate: rate.map(|(count, unit, burst)| BurstingPace {
                pace: Pace { count, period_s: [1, 60, 3600][unit] },
                burst,
            }),
            network: network.map(|(ipv4, ipv6, more)| Network {
                ipv4_prefix: ipv4.min(ipv4_prefix),
                ipv6_prefix: ipv6.min(ipv6_prefix),
                max_connections: above(more),
            }),
            mode: if observe { Mode::Observe } else { Mode::Enforce },
            max_total: total.map(|(more, _)| above(more)),
            reserve: total.map_or(0, |(_, reserve)| reserve),
            keepalive,
            wait,
        }
    }
}

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

/// For all services, for single ones, for both, or not said.
fn per_service<T: Clone + std::fmt::Debug + 'static>(
    one: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = PerService<T>> {
    let services = proptest::collection::btree_map("imap|smtp|pop3", one.clone(), 0..3);
    (proptest::option::of(one), services).prop_map(|(all, services)| PerService { all, services })
}

type AnyLimits = (PerService<u32>, PerService<Option<BurstingPace>>, PerService<Option<u32>>);

fn any_limits() -> impl Strategy<Value = AnyLimits> {
    let pace = (1u32..=Rate::MAX_COUNT, proptest::sample::select(&[1u32, 60, 3600]), 1u32..=Rate::MAX_COUNT);
    let rate =
        pace.prop_map(|(count, period_s, burst)| BurstingPace { pace: Pace { count, period_s }, burst });
    let network = 10u32..=ServicePolicy::MAX_LIMIT;
    (
        per_service(1u32..=10),
        per_service(proptest::option::of(rate)),
        per_service(proptest::option::of(network)),
    )
}

proptest! {
    #[test]
    fn rules_survive_being_written_and_read(
        rules in proptest::collection::btree_map(
            any::<std::net::IpAddr>(), (0u8..=128, 0u8..4, ".{0,20}", any_limits()), 0..9,
        ),
    ) {
        let mut config = Config::default();
        for (address, (prefix, kind, comment, limits)) in rules {
            let prefix = if address.is_ipv4() { prefix.min(32) } else { prefix };
            let network = ipnet::IpNet::new(address, prefix).unwrap().trunc();
            let is_mapped = matches!(network, ipnet::IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some());
            let is_translated = limiter_common::Addr::from(network.addr()).is_translated();
            if is_mapped || config.rules.iter().any(|rule| rule.network == network) {
                continue;
            }
            let action = limiter_common::Action::from_u8(kind);
            let mut rule = Rule::new(network, action);
            rule.comment = (!comment.is_empty()).then_some(comment);
            if action == limiter_common::Action::Limit {
                let (max_connections, rate, network_max_connections) = limits;
                let said = !max_connections.is_empty() || !rate.is_empty() || !network_max_connections.is_empty();
                let has_prefix = prefix > 0 && !is_translated;
                if !said && !has_prefix {
                    continue;
                }
                rule.source_prefix = has_prefix.then_some(prefix);
                rule = Rule { max_connections, rate, network_max_connections, ..rule };
            }
            config.rules.push(rule);
        }
        config.rules.sort_by_key(|rule| rule.network);
        prop_assert_eq!(parse(&config.to_string(), "x").unwrap(), config);
    }

    #[test]
    fn a_configuration_survives_being_written_and_read(
        hostname in proptest::option::of("[a-z0-9.-]{1,20}"),
        max_sources in 1024u32..=16_777_216,
        remember_seconds in 1u32..=86_400,
        reconcile_seconds in 5u32..=86_400,
        services in proptest::collection::btree_map("[a-z0-9_-]{1,15}", any_service(), 0..9),
        ports in proptest::collection::btree_set(5000u16.., 0..20),
    ) {
        let mut config = Config { hostname, max_sources, remember_seconds, reconcile_seconds, ..Config::default() };
        for (name, service) in services {
            config.services.retain(|known| known.name != name);
            config.services.push(Service { name, ..service });
        }
        config.services.sort_by(|a, b| a.name.cmp(&b.name));
        let count = config.services.len();
        for (i, port) in ports.into_iter().enumerate() {
            config.services[i % count].ports.push(port);
        }
        config.services.iter_mut().for_each(|service| service.ports.sort_unstable());
        prop_assert_eq!(parse(&config.to_string(), "x").unwrap(), config);
    }

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
        ("network = '2001:db8::/48'\nsource_prefix = 47", "beyond the network 2001:db8::/48"),
        ("network = '192.0.2.0/24'\nsource_prefix = 23", "beyond the network 192.0.2.0/24"),
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
