// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The administrator's words for refused clients.

use limiter_common::Reason;

use super::super::{Config, parse};
use super::SAMPLE;
use crate::wording::{self, MAX_LINE, Placeholder, TOLD};

fn config(text: &str) -> Config {
    parse(text, "limiter.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// The message for a reason at a service as the file has it, and its URL.
fn said(config: &Config, service: &str, reason: Reason) -> (Option<String>, Option<String>) {
    let service = config.services.iter().find(|known| known.name == service).unwrap();
    let wording = &service.wording;
    (wording.message(reason).map(ToString::to_string), wording.url.as_ref().map(ToString::to_string))
}

#[test]
fn a_service_says_its_own_words_and_else_those_of_the_defaults() {
    let config = config(
        "[defaults]\nmessage = { concurrency = 'c', rate = 'r' }\nurl = 'https://a'\n\
         [service.imap]\nmessage = { rate = 'R', concurrency = 'none' }\n\
         [service.smtp]\nmessage = 'all'\nurl = 'none'\n",
    );
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(said(&config, "pop3", Reason::Concurrency), (some("c"), some("https://a")));
    assert_eq!(said(&config, "pop3", Reason::Total), (None, some("https://a")));
    assert_eq!(said(&config, "imap", Reason::Rate), (some("R"), some("https://a")));
    assert_eq!(said(&config, "imap", Reason::Concurrency), (None, some("https://a")));
    for reason in TOLD {
        assert_eq!(said(&config, "smtp", reason), (some("all"), None));
    }
    assert_eq!(said(&config, "smtp", Reason::Banned), (None, None));
}

#[test]
fn a_text_that_counts_is_for_the_reasons_that_count() {
    for placeholder in [Placeholder::Count, Placeholder::Limit] {
        let config = config(&format!("[defaults]\nmessage = '{{{}}}'\n", placeholder.name()));
        for reason in TOLD {
            let counts = reason != Reason::Rate;
            assert_eq!(said(&config, "smtp", reason).0.is_some(), counts, "{reason}");
        }
    }
}

#[test]
fn every_placeholder_and_every_character_survives_being_written_and_read() {
    let all = Placeholder::ALL.map(|placeholder| format!("{{{}}} ", placeholder.name())).concat();
    let config = config(&format!(
        "[defaults]\nmessage = '{all}{{{{\"\\\\}}}}'\nurl = 'https://a/{{address}}?{{service}}'\n\
         [service.sieve]\nmessage = {{ rate = \"über '{{retry}}'\" }}\n"
    ));
    assert_eq!(parse(&config.to_string(), "x").unwrap(), config);
}

/// What the sample of the file names can be written, and what it says is refused is.
#[test]
fn the_sample_names_the_reasons_that_a_message_can_be_for() {
    let comment = SAMPLE.lines().filter_map(|line| line.strip_prefix("# ")).collect::<Vec<_>>().join(" ");
    let Some((_, after)) = comment.split_once("{ concurrency = \"...\", rate = \"...\" } with ") else {
        panic!("no table in {comment}")
    };
    let (named, rest) = after.split_once("; ").unwrap();
    let named: Vec<&str> = named.split([',', ' ']).filter(|word| !matches!(*word, "" | "and")).collect();
    assert_eq!(named, TOLD.map(Reason::name));
    assert!(rest.starts_with("denied and banned sources are told nothing;"));
    for reason in Reason::ALL {
        let text = format!("[defaults]\nmessage = {{ {reason} = 'x' }}\n");
        assert_eq!(parse(&text, "f").is_ok(), named.contains(&reason.name()), "{reason}");
    }
}

/// Whoever reads the message would see an empty place.
#[test]
fn a_message_with_the_url_is_refused_where_the_service_has_none() {
    let wrong = |text: &str| parse(text, "f").unwrap_err().to_string();
    let says = |place: &str, service: &str, reason: &str| {
        format!(
            "{place}: the message of service {service} for {reason} has {{url}}, but the service has no url; add url \
             = \"https://…\", or remove it"
        )
    };
    assert_eq!(
        wrong("[service.pop3]\nmessage = { total = 'a', rate = 'see {url}' }\n"),
        says("f:2:33", "pop3", "rate")
    );
    assert_eq!(wrong("[service.pop3]\nmessage = 'see {url}'\n"), says("f:2:11", "pop3", "total"));
    assert_eq!(wrong("[defaults]\nmessage = 'see {url}'\n"), says("f:2:11", "imap", "total"));
    // It takes away what it inherits, and says so itself.
    assert_eq!(
        wrong("[defaults]\nmessage = 'see {url}'\nurl = 'https://a'\n[service.smtp]\nurl = 'none'\n"),
        says("f:5:7", "smtp", "total")
    );
    // Others have one, this service does not.
    assert_eq!(
        wrong("[service.imap]\nurl = 'https://a'\n[service.pop3]\nmessage = { rate = '{url}' }\n"),
        says("f:4:20", "pop3", "rate")
    );
    for text in [
        "[defaults]\nmessage = '{url}'\nurl = 'https://a'\n",
        "[defaults]\nurl = 'https://a'\n[service.pop3]\nmessage = '{url}'\n",
        "[service.pop3]\nmessage = { rate = '{url}' }\nurl = 'https://a'\n",
        "[service.pop3]\nmessage = '{{url}}'\n",
    ] {
        assert!(parse(text, "f").is_ok(), "{text}");
    }
}

/// One byte more than the line has is refused, at the longest values that there can be; with them it is 512 bytes long.
#[test]
fn a_message_fits_its_line_with_the_longest_values_or_is_refused_with_its_place() {
    let file = |message: usize| {
        format!(
            "hostname = 'mx.example.org'\n[service.pop3]\nmessage = {{ concurrency = '{{address}} {}' }}\n\
             url = 'https://a'\n",
            "x".repeat(message)
        )
    };
    // "-ERR [SYS/TEMP] ", the address, two spaces, the URL, and CRLF.
    let room = MAX_LINE - 16 - 39 - 2 - 9 - 2;
    let longest = config(&file(room));
    let pop3 = longest.services.iter().find(|service| service.name == "pop3").unwrap();
    let bytes = wording::longest(
        &pop3.wording,
        pop3.protocol,
        "pop3",
        Reason::Concurrency,
        longest.hostname.as_deref(),
    );
    assert_eq!(bytes, MAX_LINE);
    assert_eq!(
        parse(&file(room + 1), "limiter.toml").unwrap_err().to_string(),
        "limiter.toml:3:27: the reply of service pop3 for concurrency can be 513 bytes long, but at most 512 are \
         possible; shorten message, url or hostname"
    );
    // The URL alone, at the reasons without a message, and the hostname of SMTP.
    let url = format!("[defaults]\nurl = 'https://{}'\n", "x".repeat(490));
    assert!(
        parse(&url, "f").unwrap_err().to_string().starts_with("f:2:7: the reply of service imap for total")
    );
    let of_host = |host: usize| {
        format!("hostname = '{}'\n[service.smtp]\nmessage = '{}'\n", "h".repeat(host), "x".repeat(247))
    };
    assert!(parse(&of_host(250), "f").is_ok());
    assert!(
        parse(&of_host(253), "f").unwrap_err().to_string().starts_with("f:3:11: the reply of service smtp")
    );
}
