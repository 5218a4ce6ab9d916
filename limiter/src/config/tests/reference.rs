// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `docs/configuration.md`: its tables of keys are made of the tables that the parser knows the keys from, with the ranges
//! that the checks use and the defaults that hold without a file.
//!
//! `LIMITER_DOCS=renew cargo test -p limiter reference` writes the tables anew; what stands between them stays.

use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

use limiter_lab::output::grouped;

use super::super::{
    Config,
    fields::{self, Field, Values},
};

/// The tables of the page, by the name in the mark above each.
fn tables() -> [(&'static str, String); 9] {
    let config = Config::default();
    let mode = line_of(&config, "[service.smtp]", "mode").expect("each service has a mode");
    let top = |field: &Field| match field.key {
        "hostname" => "the system's".to_owned(),
        "mode" => mode.clone(),
        "history" => "`true`".to_owned(),
        key => shown(line_of(&config, "", key)),
    };
    let limit = |field: &Field| match field.key {
        "burst" => "the number of `rate`".to_owned(),
        key => shown(line_of(&config, "[service.smtp]", key)),
    };
    let service = |field: &Field| match field.key {
        "tls_ports" => "those of 465, 993 and 995 that are in `ports`".to_owned(),
        "ports" | "protocol" => "[built in](#services), else required".to_owned(),
        "mode" => "the `mode` above".to_owned(),
        "max_total" => "`\"none\"`".to_owned(),
        _ => "`0`".to_owned(),
    };
    let network = |field: &Field| match field.key {
        "ipv4_prefix" => "24, or `ipv4_prefix` of a source where that is shorter".to_owned(),
        "ipv6_prefix" => "48, or `ipv6_prefix` of a source where that is shorter".to_owned(),
        _ => "required".to_owned(),
    };
    let ladder = |field: &Field| shown(line_of(&config, "[ladder]", field.key));
    let history = |field: &Field| shown(line_of(&config, "[history]", field.key));
    let rule = |field: &Field| match field.key {
        "network" => "required".to_owned(),
        "burst" => "the number of `rate`".to_owned(),
        "max_connections" | "rate" | "network_max_connections" => {
            "a shorter rule's, else the service's".to_owned()
        }
        "source_prefix" => "a shorter rule's, else the service's prefixes".to_owned(),
        _ => "–".to_owned(),
    };
    [
        ("top", table(&fields::TOP, &top)),
        ("defaults", table(&fields::LIMITS, &limit)),
        ("service", table(&fields::SERVICE, &service)),
        ("network", table(&fields::NETWORK, &network)),
        ("tls", table(&fields::TLS, &|_| "required".to_owned())),
        ("ladder", table(&fields::LADDER, &ladder)),
        ("history", table(&fields::HISTORY, &history)),
        ("rule", table(&fields::RULE, &rule)),
        ("services", services(&config)),
    ]
}

/// The value that `key` has in a table of the configuration as text.
fn line_of(config: &Config, section: &str, key: &str) -> Option<String> {
    let mut present = String::new();
    for line in config.to_string().lines() {
        if line.starts_with('[') {
            line.clone_into(&mut present);
        }
        match line.split_once(" = ") {
            Some((name, value)) if present == section && name == key => return Some(format!("`{value}`")),
            _ => {}
        }
    }
    None
}

fn shown(value: Option<String>) -> String {
    value.expect("the configuration as text has every key that has a default")
}

fn table(fields: &[Field], default: &dyn Fn(&Field) -> String) -> String {
    let mut text = "| key | type | values | default | meaning |\n|---|---|---|---|---|\n".to_owned();
    for field in fields.iter().filter(|field| !matches!(field.values, Values::Table)) {
        let (kind, values) = values(&field.values);
        let Field { key, meaning, .. } = field;
        let default = default(field);
        writeln!(text, "| `{key}` | {kind} | {values} | {default} | {meaning} |").unwrap();
    }
    text
}

fn values(values: &Values) -> (&'static str, String) {
    let time = |seconds: &u64| humantime::format_duration(Duration::from_secs(*seconds)).to_string();
    match values {
        Values::Number(number) => {
            ("number", format!("{} to {}", grouped(number.min.into()), grouped(number.max.into())))
        }
        Values::NumberOrNone(number) => (
            "number",
            format!("{} to {}, or `\"none\"`", grouped(number.min.into()), grouped(number.max.into())),
        ),
        Values::Word(words) => {
            let words: Vec<String> = words().iter().map(|word| format!("`\"{word}\"`")).collect();
            ("text", words.join(", "))
        }
        Values::Time(range) => {
            ("time", format!("`\"{}\"` to `\"{}\"`", time(range.start()), time(range.end())))
        }
        Values::TimeOrNone(range) => {
            ("time", format!("`\"{}\"` to `\"{}\"`, or `\"none\"`", time(range.start()), time(range.end())))
        }
        Values::Form(kind, form) => (kind, (*form).to_owned()),
        Values::Table => ("table", String::new()),
    }
}

fn services(config: &Config) -> String {
    let mut text = "| service | ports | protocol |\n|---|---|---|\n".to_owned();
    for service in &config.services {
        let ports: Vec<String> = service.ports.iter().map(u16::to_string).collect();
        let protocol = service.protocol.name();
        writeln!(text, "| `{}` | {} | `{protocol}` |", service.name, ports.join(", ")).unwrap();
    }
    text
}

/// The page with these tables below their marks.
fn with_tables(page: &str) -> String {
    let mut page = page.to_owned();
    for (name, table) in tables() {
        let (begin, end) = (format!("<!-- keys: {name} -->\n"), "<!-- end -->");
        let (before, rest) =
            page.split_once(&begin).unwrap_or_else(|| panic!("{name} has no place in the page"));
        let (_, after) = rest.split_once(end).unwrap_or_else(|| panic!("the table of {name} has no end"));
        page = format!("{before}{begin}\n{table}\n{end}{after}");
    }
    page
}

#[test]
fn the_page_of_the_configuration_has_every_key_as_the_checks_have_it() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = fs::read_to_string(&path).unwrap();
    let renewed = with_tables(&page);
    if std::env::var("LIMITER_DOCS").is_ok_and(|word| word == "renew") {
        fs::write(&path, &renewed).unwrap();
    } else {
        assert!(
            page == renewed,
            "LIMITER_DOCS=renew writes docs/configuration.md anew; it would be\n{renewed}"
        );
    }
}

#[test]
fn every_key_of_the_file_has_a_meaning() {
    let all: [&[Field]; 7] = [
        &fields::TOP,
        &fields::LIMITS,
        &fields::SERVICE,
        &fields::NETWORK,
        &fields::TLS,
        &fields::LADDER,
        &fields::RULE,
    ];
    for field in all.into_iter().flatten() {
        assert_eq!(field.meaning.is_empty(), matches!(field.values, Values::Table), "{}", field.key);
    }
}
