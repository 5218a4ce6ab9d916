// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is not understood is said, and has no number; a text that is cut is refused.

use super::{
    model::{LeftOut, Limit},
    *,
};

/// What this text of a daemon gives, and its text with each run of white space as one blank.
fn of(reader: &Reader, text: &str) -> (Config, String) {
    let daemon = (reader.read)(text).unwrap_or_else(|unread| panic!("{unread:?}\n{text}"));
    let toml = Import::new(vec![daemon], Vec::new()).to_string();
    let config = config::parse(&toml, "imported").unwrap_or_else(|error| panic!("{error}\n{toml}"));
    let words: Vec<&str> = toml.split_whitespace().filter(|word| *word != "#").collect();
    (config, words.join(" "))
}

fn left_out(reader: &Reader, text: &str) -> Vec<LeftOut> {
    (reader.read)(text).unwrap().left_out
}

const SMTPD: &str = "smtp inet n - y - - smtpd\n";

fn main_cf(settings: &str) -> String {
    format!("myhostname = mx.example.com\n{settings}\n{SMTPD}")
}

#[test]
fn postfix_excepts_nobody_while_the_old_name_of_the_exceptions_is_set() {
    let text =
        main_cf("mynetworks = 198.51.100.0/26\nsmtpd_client_connection_limit_exceptions = 203.0.113.0/28");
    let (config, toml) = of(&POSTFIX, &text);
    assert_eq!(rules(&config), []);
    assert!(
        toml.contains("smtpd_client_connection_limit_exceptions = 203.0.113.0/28: the old name of"),
        "{toml}"
    );
    // The new name has its own value all the same; and without the old one, mynetworks is excepted.
    let both = main_cf(
        "smtpd_client_connection_limit_exceptions = 203.0.113.0/28\nsmtpd_client_event_limit_exceptions = 192.0.2.0/24",
    );
    assert_eq!(rules(&of(&POSTFIX, &both).0), [("192.0.2.0/24".to_owned(), Action::Allow)]);
    let neither = main_cf("mynetworks = 198.51.100.0/26");
    assert_eq!(rules(&of(&POSTFIX, &neither).0), [("198.51.100.0/26".to_owned(), Action::Allow)]);
}

#[test]
fn postfix_without_its_networks_in_the_text_excepts_nobody_and_says_so() {
    let (config, toml) = of(&POSTFIX, &main_cf(""));
    assert_eq!(rules(&config), []);
    assert!(toml.contains("$mynetworks} (its default): only Postfix can compute it"), "{toml}");
}

#[test]
fn postfix_does_not_except_what_it_does_not_take_for_a_network() {
    let (config, toml) = of(
        &POSTFIX,
        &main_cf("mynetworks = 198.51.100.7/26, [2001:db8::1]/64, 192.0.2.7/32, [2001:db8:1::]/48"),
    );
    let networks = ["192.0.2.7/32", "2001:db8:1::/48"];
    assert_eq!(rules(&config), networks.map(|network| (network.to_owned(), Action::Allow)));
    assert!(toml.contains("198.51.100.7/26: it has bits set after its prefix"), "{toml}");
}

#[test]
fn an_exception_in_a_list_keeps_what_it_is_in_from_a_rule_when_it_stands_before_it() {
    let allowed = |list: &str| {
        let text = main_cf(&format!("smtpd_client_event_limit_exceptions = {list}"));
        rules(&of(&POSTFIX, &text).0).into_iter().map(|(network, _)| network).collect::<Vec<_>>()
    };
    assert_eq!(allowed("!192.0.2.7, 192.0.2.0/24, 198.51.100.1"), ["198.51.100.1/32"]);
    assert_eq!(allowed("!192.0.2.0/24, 192.0.2.7, 198.51.100.1"), ["198.51.100.1/32"]);
    assert_eq!(allowed("192.0.2.0/24, !192.0.2.7, 198.51.100.1"), ["192.0.2.0/24", "198.51.100.1/32"]);
    assert_eq!(allowed("192.0.2.0/24, !/etc/postfix/not, 198.51.100.1"), ["192.0.2.0/24"]);
    let exim = "smtp_accept_max = 20\nhost_reject_connection = !192.0.2.7 : 192.0.2.0/24 : 198.51.100.1 : !203.0.113.1\n";
    let (config, toml) = of(&EXIM, exim);
    assert_eq!(rules(&config), [("198.51.100.1/32".to_owned(), Action::Deny)]);
    assert!(toml.contains("a list that ends with an exception also matches every other host"), "{toml}");
}

#[test]
fn postfix_with_what_is_no_number_has_no_number_and_not_no_limit() {
    for (value, why) in [
        ("12 other = 3", "this is not a number"),
        ("${stress?{5}:{25}}", "only Postfix can compute it"),
        ("${stress?5}${stress:25}", "without stress"),
        ("$unknown", "only Postfix can compute it"),
        ("${unknown:7}", "only Postfix can compute it"),
        ("", "this is not a number"),
        ("-1", "this is not a number"),
        ("99999999999999999999", "this is not a number"),
    ] {
        let setting = format!("smtpd_client_connection_count_limit = {value}");
        let (config, toml) = of(&POSTFIX, &main_cf(&setting));
        assert_eq!(limits(&config, "smtp"), (vec![25], 20, Some(100), 0), "{value}");
        assert!(toml.contains("Unknown, so there is no number here"), "{value}\n{toml}");
        assert!(toml.contains(why), "{value}\n{toml}");
        assert!(!toml.contains("max_connections =") && !toml.contains("no limit for one client"), "{toml}");
    }
    let known = main_cf("each = 12\nsmtpd_client_connection_count_limit = ${each?$each}");
    assert_eq!(limits(&of(&POSTFIX, &known).0, "smtp").1, 12);
}

#[test]
fn postfix_with_other_limits_that_are_no_numbers_says_so() {
    for (setting, says) in [
        ("default_process_limit = many", "default_process_limit = many: this is not a number"),
        (
            "smtpd_client_connection_rate_limit = 5 a",
            "smtpd_client_connection_rate_limit = 5 a: this is not a number",
        ),
        (
            "smtpd_client_connection_rate_limit = 5\nanvil_rate_time_unit = $unknown",
            "anvil_rate_time_unit = $unknown: only Postfix",
        ),
        ("smtpd_client_message_rate_limit = x", "smtpd_client_message_rate_limit = x: this is not a number"),
        ("smtpd_client_ipv6_prefix_length = x", "smtpd_client_ipv6_prefix_length = x: this is no"),
    ] {
        let (_, toml) = of(&POSTFIX, &main_cf(setting));
        assert!(toml.contains(says), "{setting}\n{toml}");
    }
    let text = "myhostname = mx.example.com\nsmtp inet n - y - 5x smtpd\n";
    let (config, toml) = of(&POSTFIX, text);
    assert_eq!(limits(&config, "smtp"), (vec![25], 50, None, 0));
    assert!(toml.contains("set max_total") && !toml.contains("max_total ="), "{toml}");
}

#[test]
fn a_source_may_not_hold_a_million_where_the_whole_of_the_service_is_not_known() {
    let text =
        "myhostname = mx.example.com\nsmtpd_client_connection_count_limit = 0\nsmtp inet n - y - x smtpd\n";
    let (config, toml) = of(&POSTFIX, text);
    assert_eq!(limits(&config, "smtp"), (vec![25], 20, None, 0));
    assert!(toml.contains("that number is unknown"), "{toml}");
}

#[test]
fn exim_with_what_is_no_number_or_is_missing_has_no_number() {
    for (setting, says) in [
        ("smtp_accept_max = 20\nsmtp_accept_max_per_host = 5 per host", "5 per host: this is not a number"),
        ("smtp_accept_max = 20\nsmtp_accept_max_per_host = <value not displayable>", "run this as root"),
        ("smtp_accept_max = 20", "smtp_accept_max_per_host: this is not in the text"),
    ] {
        let (config, toml) = of(&EXIM, setting);
        assert_eq!(limits(&config, "smtp").1, 20, "{setting}");
        assert!(toml.contains("set max_connections") && toml.contains(says), "{setting}\n{toml}");
    }
    let (config, toml) =
        of(&EXIM, "smtp_accept_max = twenty\nsmtp_accept_max_per_host =\nsmtp_accept_reserve = 5\n");
    assert_eq!(limits(&config, "smtp"), (vec![25], 20, None, 0));
    assert!(toml.contains("set max_total") && !toml.contains("max_total ="), "{toml}");
    assert!(!toml.contains("max_connections ="), "{toml}");
    // It takes no more than 4096, whatever is written.
    let (config, _) =
        of(&EXIM, "smtp_accept_max = 50000\nsmtp_accept_max_per_host =\nsmtp_accept_reserve = 0\n");
    assert_eq!(limits(&config, "smtp"), (vec![25], 4096, Some(4096), 0));
}

#[test]
fn dovecot_with_what_is_no_number_has_no_number() {
    for setting in [
        "service imap-login {\n process_limit = many\n}",
        "service imap-login {\n process_limit = $SET:unknown\n}",
        "service imap-login {\n restart_request_count = x\n}",
        "ssl = no\nservice imap {\n process_limit = 10 20\n}",
        "default_process_limit = x",
    ] {
        let text = format!("dovecot_config_version = 2.4.0\nprotocols = imap\n{setting}\n");
        let (config, toml) = of(&DOVECOT, &text);
        assert_eq!(limits(&config, "imap"), (vec![143, 993], 20, None, 0), "{setting}");
        assert!(toml.contains("this is not a valid number"), "{setting}\n{toml}");
        assert!(toml.contains("set max_total") && !toml.contains("max_total ="), "{toml}");
    }
    let text = "dovecot_config_version = 2.4.0\nprotocols = imap\nservice imap-login {\n inet_listener imap {\n port = 14x\n }\n}\n";
    let (config, toml) = of(&DOVECOT, text);
    assert_eq!(limits(&config, "imap").0, [993]);
    assert!(toml.contains("port = 14x } }: this is not a valid port"), "{toml}");
}

#[test]
fn dovecot_has_no_more_room_than_its_processes_serve_before_they_end() {
    let text = "dovecot_config_version = 2.4.0\nprotocols = imap\nservice imap-login {\n restart_request_count = 4\n process_limit = 10\n}\n";
    assert_eq!(limits(&of(&DOVECOT, text).0, "imap"), (vec![143, 993], 40, Some(40), 0));
}

#[test]
fn dovecot_cut_in_front_or_behind_is_refused() {
    let cut = |text: &str| match (DOVECOT.read)(text) {
        Err(Unread::Cut(where_it_shows)) => where_it_shows,
        other => panic!("{other:?}\n{text}"),
    };
    assert_eq!(cut("ssl = no\n}\n}\nprotocols = imap pop3\n"), "line 2 closes a block that no line opens");
    let front = "dovecot_config_version = 2.4.0\n  process_limit = 9\n  ssl = no\n}\nprotocols = imap pop3\n";
    assert_eq!(cut(front), "line 4 closes a block that no line opens");
    let behind = "protocols = imap\nservice imap-login {\n  inet_listener imap {\n    port = 143\n  }\n";
    assert_eq!(cut(behind), "no line closes the block of line 2");
    let heredoc = "protocols = imap\nssl_server_key = <<END\nservice imap {\n";
    assert_eq!(cut(heredoc), "line 2 begins a text, and no line with END ends it");
    let whole = "protocols = imap\nssl_server_key = <<END\n}\n}\nEND\nmail_max_userip_connections = 3\n";
    assert_eq!((DOVECOT.read)(whole).unwrap().services.len(), 1);
}

#[test]
fn every_text_of_dovecot_without_its_front_is_refused_or_says_what_it_lacks() {
    let whole = text("dovecot/performance/changed-2.4.txt");
    let lines: Vec<&str> = whole.lines().collect();
    let (config, _) = of(&DOVECOT, &whole);
    for start in 1..lines.len() {
        let Ok(daemon) = (DOVECOT.read)(&lines[start..].join("\n")) else { continue };
        let toml = Import::new(vec![daemon.clone()], Vec::new()).to_string();
        let said = daemon.left_out.iter().any(|left| left.why.contains("has no version"));
        let same = config::parse(&toml, "imported").is_ok_and(|cut| cut == config);
        assert!(said || same, "{}\n{toml}", lines[start..].join("\n"));
    }
}

#[test]
fn postfix_cut_in_front_is_refused() {
    let whole = text("postfix/default/output-3.10.txt");
    let lines: Vec<&str> = whole.lines().collect();
    let all = (POSTFIX.read)(&whole).unwrap();
    let (mut same, mut refused) = (0, 0);
    for start in (0..lines.len()).step_by(7) {
        match (POSTFIX.read)(&lines[start..].join("\n")) {
            Ok(daemon) if daemon.services == all.services && daemon.rules == all.rules => same += 1,
            Err(Unread::Cut(_)) => refused += 1,
            // What is left is no setting that is known, or says itself what it lacks.
            Err(Unread::Other) => {}
            Ok(daemon) => assert!(
                daemon
                    .left_out
                    .iter()
                    .any(|left| left.why.contains("lack its beginning") || left.why.contains("is missing")),
                "{start}: {daemon:?}"
            ),
        }
    }
    assert!(same > 0 && refused > 50, "{same} {refused}");
    let unread = (POSTFIX.read)("  -o smtpd_client_connection_count_limit=5\nmyhostname = mx.example.com\n");
    assert_eq!(unread, Err(Unread::Cut("line 1 continues on a line that is missing".to_owned())));
}

#[test]
fn postfix_of_which_only_the_services_are_given_has_no_numbers() {
    let (config, toml) = of(&POSTFIX, SMTPD);
    assert_eq!(limits(&config, "smtp"), (vec![25], 20, None, 0));
    assert!(toml.contains("main.cf: the output of `postconf` is missing"), "{toml}");
}

#[test]
fn lines_that_are_not_understood_are_named() {
    let postfix = main_cf("smtpd_client_connection_count_limit 12\npostconf: warning: main.cf: a = b");
    let named: Vec<String> = left_out(&POSTFIX, &postfix).into_iter().map(|left| left.setting).collect();
    assert!(named.contains(&"line 2: smtpd_client_connection_count_limit 12".to_owned()), "{named:?}");
    assert!(named.contains(&"line 3: postconf: warning: main.cf: a = b".to_owned()), "{named:?}");
    let dovecot = "protocols = imap\n!include conf.d/*.conf\nmail_max_userip_connections 3\n";
    let named: Vec<String> = left_out(&DOVECOT, dovecot).into_iter().map(|left| left.setting).collect();
    assert!(named.contains(&"line 2: !include conf.d/*.conf".to_owned()), "{named:?}");
    assert!(named.contains(&"line 3: mail_max_userip_connections 3".to_owned()), "{named:?}");
    let many = main_cf(&"?\n".repeat(30));
    assert!(left_out(&POSTFIX, &many).iter().any(|left| left.setting == "20 more lines"));
}

#[test]
fn two_smtpd_on_one_port_have_the_stricter_limit_and_both_are_named() {
    let lines = [
        "192.0.2.1:smtp inet n - y - 50 smtpd -o smtpd_client_connection_count_limit=10 -o smtpd_client_connection_rate_limit=90",
        "192.0.2.2:smtp inet n - y - 30 smtpd -o smtpd_client_connection_count_limit=100",
    ];
    for (first, second) in [(0, 1), (1, 0)] {
        let text = format!("myhostname = mx.example.com\n{}\n{}\n", lines[first], lines[second]);
        let (config, toml) = of(&POSTFIX, &text);
        assert_eq!(limits(&config, "smtp"), (vec![25], 10, Some(30), 0));
        assert_eq!(rate(&config, "smtp"), Some(("90/min".to_owned(), 90)));
        for says in [
            "master.cf: 192.0.2.1:smtp -o smtpd_client_connection_count_limit = 10",
            "master.cf: 192.0.2.2:smtp -o smtpd_client_connection_count_limit = 100",
            "A port has one limit here: 10 is used, because the other exceeds what one of them allows",
            "A port has one limit here: 30 is used",
            "port 25 already belongs to [service.smtp], which has other limits",
        ] {
            assert!(toml.contains(says), "{says}\n{toml}");
        }
    }
    let wide = "192.0.2.3:smtp inet n - y - - smtpd -o smtpd_client_ipv4_prefix_length=24 -o smtpd_client_ipv6_prefix_length=80";
    let (config, toml) = of(&POSTFIX, &format!("myhostname = mx.example.com\n{}\n{wide}\n", lines[0]));
    assert_eq!(prefixes(&config, "smtp"), (24, 64), "{toml}");
    let known = "192.0.2.3:smtp inet n - y - - smtpd -o smtpd_client_connection_count_limit=$unknown";
    let text = format!("myhostname = mx.example.com\n{}\n{known}\n", lines[1]);
    let (config, toml) = of(&POSTFIX, &text);
    assert_eq!(limits(&config, "smtp"), (vec![25], 30, Some(30), 0));
    assert!(toml.contains("has an unknown limit"), "{toml}");
}

#[test]
fn dovecot_2_4_has_its_lists_in_blocks() {
    for list in [
        "login_trusted_networks {\n  198.51.100.0/24 = yes\n  203.0.113.0/28 = no\n}\nprotocols {\n  submission = yes\n}\n",
        "login_trusted_networks { 198.51.100.0/24 = yes 203.0.113.0/28 = no }\nprotocols { submission = yes }\n",
        "login_trusted_networks = 198.51.100.0/24\nprotocols = submission\n",
    ] {
        let (config, _) = of(&DOVECOT, &format!("dovecot_config_version = 2.4.0\n{list}"));
        assert_eq!(limits(&config, "submission"), (vec![465, 587], 100, Some(100), 0), "{list}");
        assert_eq!(rules(&config), [("198.51.100.0/24".to_owned(), Action::Allow)], "{list}");
    }
    // In 2.3, 465 is there only where it is said.
    let (config, _) = of(&DOVECOT, "# 2.3.19.1 (9b53102964): dovecot.conf\nprotocols = submission\n");
    assert_eq!(limits(&config, "submission").0, [587]);
    let (_, toml) = of(&DOVECOT, "dovecot_config_version = 2.4.0\nprotocols { imap = maybe }\n");
    assert!(toml.contains("protocols { imap = maybe }: this is neither yes nor no"), "{toml}");
}

#[test]
fn dovecot_2_4_has_its_settings_under_their_full_names_too() {
    let text = "dovecot_config_version = 2.4.0\nprotocols = imap\nservice_client_limit = 9\nservice imap-login {\n  \
                service_process_limit = 5\n  service_restart_request_count = unlimited\n  inet_listener imap {\n    \
                inet_listener_port = 1143\n  }\n}\n";
    assert_eq!(limits(&of(&DOVECOT, text).0, "imap"), (vec![993, 1143], 45, Some(45), 0));
}

#[test]
fn dovecot_in_the_form_without_blocks_is_not_taken_for_its_defaults_in_silence() {
    let (_, toml) = of(&DOVECOT, "protocols=imap\nservice/imap-login/process_limit=4\n");
    assert!(
        toml.contains("line 2: service/imap-login/process_limit=4: import does not understand this line"),
        "{toml}"
    );
}

#[test]
fn dovecot_names_what_holds_for_a_part_of_the_connections() {
    let text = "dovecot_config_version = 2.4.0\nprotocols = imap\nlocal 192.0.2.1 {\n  login_trusted_networks = 198.51.100.0/24\n  \
                protocol imap {\n    mail_max_userip_connections = 3\n  }\n}\nservice lmtp {\n  process_limit = 7\n  inet_listener \
                lmtp {\n    port = 24\n  }\n}\n";
    let (config, toml) = of(&DOVECOT, text);
    assert_eq!(rules(&config), []);
    for says in [
        "local 192.0.2.1 { login_trusted_networks = 198.51.100.0/24 }: this applies to only some",
        "local 192.0.2.1 { protocol imap { mail_max_userip_connections = 3 }",
        "service lmtp { inet_listener lmtp { port = 24 } }: it is not a login service (process_limit = 7)",
    ] {
        assert!(toml.contains(says), "{says}\n{toml}");
    }
}

#[test]
fn dovecot_has_the_same_limits_of_managesieve_in_both_forms() {
    let settings = "dovecot_config_version = 2.3.19\nprotocols = sieve\nssl = no\n";
    let full = "service managesieve {\n  client_limit = 1\n  process_limit = 0\n  service_count = 1\n}\n";
    for text in [settings.to_owned(), format!("{settings}{full}")] {
        assert_eq!(limits(&of(&DOVECOT, &text).0, "sieve"), (vec![4190], 100, Some(100), 0), "{text}");
    }
}

#[test]
fn what_only_the_host_itself_reaches_is_not_told_to_have_a_service() {
    let text = format!(
        "{}127.0.0.1:7777 inet n n n - 0 spawn user=nobody argv=/bin/true\n[::1]:7778 inet n n n - 0 spawn\nlocalhost:7779 inet n \
         n n - 0 qmqpd\n",
        main_cf("")
    );
    let left_out = left_out(&POSTFIX, &text);
    for port in ["7777", "7778", "7779"] {
        let found = left_out.iter().find(|left| left.setting.contains(port)).unwrap();
        assert_eq!(found.why, "only this host can reach it, and local addresses are always allowed");
    }
    let alone = format!("{}628 inet n n n - 0 qmqpd\n", main_cf("inet_interfaces = 127.0.0.1, ::1"));
    let why = |text: &str| {
        let left_out = (POSTFIX.read)(text).unwrap().left_out;
        left_out.into_iter().find(|left| left.setting.contains("628")).unwrap().why
    };
    assert!(why(&alone).starts_with("only this host can reach it"));
    assert!(why(&alone.replace("127.0.0.1", "192.0.2.1")).contains("add a [service]"));
}

#[test]
fn postfix_does_not_start_what_is_disabled() {
    for disabled in ["submission.inet", "smtp/inet, submission/inet", "!smtp.inet inet"] {
        let text = format!(
            "{}submission inet n - y - - smtpd\n",
            main_cf(&format!("master_service_disable = {disabled}"))
        );
        let daemon = (POSTFIX.read)(&text).unwrap();
        assert!(!daemon.services.iter().any(|service| service.name == "submission"), "{disabled}");
        assert!(daemon.left_out.iter().any(|left| left.why == "Postfix does not start it"), "{disabled}");
    }
}

#[test]
fn no_limit_is_only_what_says_so() {
    let daemon = (POSTFIX.read)(&main_cf("smtpd_client_connection_count_limit = 0")).unwrap();
    assert_eq!(daemon.services[0].max_connections.value, Limit::None);
}
