// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Every spelling, lines as the logs have them, and what is no address.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{Line, Meant, Sender, read};

fn client_of(text: &str) -> Option<String> {
    match read(text)? {
        Meant::Address(address) => Some(address.to_string()),
        Meant::Line(line) => line.client.map(|client| client.to_string()),
        Meant::Name(_) => None,
    }
}

#[test]
fn an_address_is_read_in_any_spelling() {
    for (given, meant) in [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7/32", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[203.0.113.7]", "203.0.113.7"),
        ("[203.0.113.7]:25", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::FFFF:cb00:7107", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:993", "203.0.113.7"),
        ("2001:DB8::5", "2001:db8::5"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("[2001:db8::5]:993", "2001:db8::5"),
        ("2001:db8::5/128", "2001:db8::5"),
        ("[2001:db8::5]/128", "2001:db8::5"),
        ("IPv6:2001:db8::5", "2001:db8::5"),
        ("[IPv6:2001:db8::5]", "2001:db8::5"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]", "fe80::1"),
        ("2001:0db8:0000:0000:0000:0000:0000:0005", "2001:db8::5"),
        ("  203.0.113.7,", "203.0.113.7"),
    ] {
        assert_eq!(read(given), Some(Meant::Address(meant.parse().unwrap())), "{given}");
    }
}

#[test]
fn a_name_is_a_name_and_what_is_neither_is_nothing() {
    for (given, name) in [("mx.example.net", "mx.example.net"), ("Mail.Example.ORG.", "mail.example.org")] {
        assert_eq!(read(given), Some(Meant::Name(name.to_owned())), "{given}");
    }
    for neither in
        ["", "203.0.113.256", "203.0.113.0/24", "1.2.3", "12:34:56", "[", "[]", "a b", "4.7.0", "-"]
    {
        assert_eq!(read(neither), None, "{neither}");
    }
}

#[test]
fn lines_of_this_hosts_logs_name_their_client() {
    for (line, client) in [
        (
            "Nov 27 09:14:03 mx postfix/smtpd[4711]: connect from office.example.net[203.0.113.7]",
            "203.0.113.7",
        ),
        (
            "postfix/smtpd[9]: warning: Connection concurrency limit exceeded: 51 from \
             unknown[2001:db8::5] for service smtp",
            "2001:db8::5",
        ),
        (
            "postfix/submission/smtpd[9]: NOQUEUE: reject: RCPT from a.example[203.0.113.7]: 450 4.7.1 x",
            "203.0.113.7",
        ),
        ("postfix/smtpd[9]: 4F2A: client=a.example[203.0.113.7]:4711, sasl_username=anna", "203.0.113.7"),
        (
            "dovecot: imap-login: Login: user=<anna>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.25, mpid=5, TLS",
            "203.0.113.7",
        ),
        (
            "imap-login: Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10): \
             user=<anna>, method=PLAIN, rip=::ffff:203.0.113.7, lip=192.0.2.25, TLS",
            "203.0.113.7",
        ),
        (
            "2026-11-27 09:14:03 SMTP connection from (laptop) [203.0.113.7]:51000 I=[192.0.2.25]:25 closed",
            "203.0.113.7",
        ),
        (
            "2026-11-27 09:14:03 Connection from [203.0.113.7] refused: too many connections from that IP address",
            "203.0.113.7",
        ),
        ("2026-11-27 09:14:03 H=a.example [203.0.113.7]:5 F=<b@a.example> rejected RCPT", "203.0.113.7"),
        ("refused 203.0.113.7 at imap: concurrency (10 of 10), reply", "203.0.113.7"),
        ("limiter[88]: refused 2001:db8::5 at smtp: rate, reset, and 3 more", "2001:db8::5"),
    ] {
        assert_eq!(client_of(line).as_deref(), Some(client), "{line}");
        let Some(Meant::Line(line)) = read(line) else { panic!("{line}") };
        assert_eq!((line.sender, line.server_address), (None, None));
    }
}

#[test]
fn texts_of_refusals_name_their_client_and_server() {
    for (text, client, server) in [
        (
            "421 4.7.0 mail.example.org Too many connections (8 of 8) from this IP [203.0.113.7], close one or wait",
            Some("203.0.113.7"),
            Some("mail.example.org"),
        ),
        (
            "421 4.7.0 mail.example.org Too many connections (8 of 8) from this IP [IPv6:2001:db8::7], close one",
            Some("2001:db8::7"),
            Some("mail.example.org"),
        ),
        (
            "* BYE [UNAVAILABLE] Too many connections (8 of 8) from this IP [203.0.113.7], close one or wait",
            Some("203.0.113.7"),
            None,
        ),
        (
            "-ERR [SYS/TEMP] Too many connections (8 of 8) from this IP [2001:db8::7], close one or wait",
            Some("2001:db8::7"),
            None,
        ),
        ("421 Too many connections (8) from this IP", None, None),
        (
            "421 4.7.0 mx.example.net Error: too many connections from 203.0.113.7",
            Some("203.0.113.7"),
            Some("mx.example.net"),
        ),
        (
            "421 mx.example.net: Too many concurrent SMTP connections from this IP address; please try again later.",
            None,
            Some("mx.example.net"),
        ),
        (
            "* BYE Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)",
            None,
            None,
        ),
        (
            "The mail server for account u@example.org responded: * BYE [UNAVAILABLE] Too many connections (8 of 8) \
             from this IP [198.51.100.7], close one or wait",
            Some("198.51.100.7"),
            None,
        ),
    ] {
        let Some(Meant::Line(line)) = read(text) else { panic!("{text}: {:?}", read(text)) };
        assert!(line.is_refusal, "{text}");
        assert_eq!(line.client.map(|client| client.to_string()).as_deref(), client, "{text}");
        assert_eq!(line.server.as_deref(), server, "{text}");
    }
}

#[test]
fn a_senders_line_names_the_server_that_refuses_it() {
    let postfix = "postfix/smtp[77]: 4F2A: to=<u@example.net>, relay=none, delay=3, status=deferred (host \
                   mx.example.net[192.0.2.9] refused to talk to me: 421 4.7.0 mx.example.net Too many connections \
                   (8 of 8) from this IP [198.51.100.7], close one or wait)";
    let exim = "2026-11-27 09:14:03 1xyz == u@example.net R=dnslookup T=remote_smtp defer (-45) H=mx.example.net \
                [192.0.2.9]: SMTP error from remote mail server after initial connection: 421 4.7.0 mx.example.net \
                Too many connections (8 of 8) from this IP [198.51.100.7], close one or wait";
    for (text, sender) in [(postfix, Sender::Postfix), (exim, Sender::Exim)] {
        let expected = Line {
            client: Some("198.51.100.7".parse().unwrap()),
            server: Some("mx.example.net".to_owned()),
            server_address: Some("192.0.2.9".parse().unwrap()),
            is_refusal: true,
            sender: Some(sender),
        };
        assert_eq!(read(text), Some(Meant::Line(expected)), "{text}");
    }
}

#[test]
fn versions_and_times_are_no_addresses() {
    for line in [
        "Dovecot v2.3.19.1 starting up for imap, pop3",
        "dovecot: upgraded from 2.3.19.1 to 2.4.1.4",
        "Exim version 4.96.0.1 at 12:34:56",
        "2026-11-27 09:14:03 mx limiter 0.1.0.0 began",
        "postfix/smtpd[4711]: 12:34:56.789 std::vector a::b",
        "Thunderbird 153.8.0.1 says hello",
    ] {
        assert_eq!(client_of(line), None, "{line}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", pieces in prop::collection::vec(piece(), 0..9)) {
        let _any = read(&text);
        let _any = read(&pieces.concat());
    }

    #[test]
    fn numbers_with_dots_and_colons_are_no_client_without_a_word_that_says_so(
        numbers in prop::collection::vec((0_u16..300, ".|:"), 2..6), before in "v|V|Version |r|release |Exim |at |in |- ",
    ) {
        let number = numbers.iter().flat_map(|(number, mark)| [number.to_string(), mark.clone()]).collect::<String>();
        let line = format!("mx daemon[7]: {before}{} started", number.trim_end_matches(['.', ':']));
        prop_assert_eq!(client_of(&line), None, "{}", line);
    }

    #[test]
    fn an_address_in_brackets_is_found_wherever_it_stands(bits: u128, is_v4: bool, words in "[a-z ]{0,20}") {
        let address = if is_v4 { IpAddr::from((bits as u32).to_be_bytes()) } else { IpAddr::from(bits.to_be_bytes()) };
        prop_assume!(!address.is_unspecified());
        let line = format!("smtpd: connect from unknown[{address}] {words}");
        prop_assert_eq!(client_of(&line), Some(address.to_canonical().to_string()));
    }
}

fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "421 ",
        "4.7.0 ",
        "mx.example.net ",
        "[",
        "]",
        "203.0.113.7",
        "::",
        "ffff:",
        "%",
        "/",
        "rip=",
        "(host ",
        "relay=",
        " H=",
        " ",
        "from ",
        "ü",
        "* BYE ",
        "-ERR ",
        "status=deferred ",
        "IPv6:",
        ":25",
        "\u{1f4e7}",
    ])
}
