// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The tables of `docs/import.md`, row by row, and held against all settings of the real daemons.

use std::collections::BTreeSet;

use super::*;

/// Whether a setting of that name has to do with connections.
type IsAbout<'a> = &'a dyn Fn(&str) -> bool;

/// A row.
#[derive(Debug)]
struct Row {
    daemon: &'static str,
    setting: String,
    /// Whether Debian 12 and 13 have it.
    is_in: [bool; 2],
    /// Lines.
    example: Vec<String>,
    outcome: String,
    result: String,
}

fn document() -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/import.md")).unwrap()
}

/// What stands in backquotes.
fn spans(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows() -> Vec<Row> {
    let document = document();
    let mut daemon = "";
    let mut rows = Vec::new();
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            daemon = ["Postfix", "Exim", "Dovecot"].into_iter().find(|name| *name == title).unwrap();
        }
        let Some(cells) = line.strip_prefix("| `") else { continue };
        let cells = format!("`{cells}");
        let [setting, _since, in_12, in_13, example, outcome, result] =
            cells.trim_end_matches(" |").split(" | ").collect::<Vec<_>>()[..]
        else {
            panic!("{line}");
        };
        let is_in = [in_12, in_13].map(|cell| match cell {
            "yes" => true,
            "no" => false,
            _ => panic!("{line}"),
        });
        rows.push(Row {
            daemon,
            setting: spans(setting).concat(),
            is_in,
            example: spans(example),
            outcome: outcome.to_owned(),
            result: spans(result).concat(),
        });
    }
    rows
}

/// A text of the daemon with this example in it, or without any; for Dovecot as Debian has it.
fn text_with(daemon: &str, example: &[String], debian: usize) -> String {
    let example = example.join("\n");
    match daemon {
        "Postfix" => {
            let master = if example.contains(" inet ") { "" } else { "smtp inet n - y - - smtpd\n" };
            format!("myhostname = mx.example.com\nmynetworks = 127.0.0.0/8\n{example}\n{master}")
        }
        "Exim" => format!(
            "daemon_smtp_ports = smtp\nlocal_interfaces = <; ::0 ; 0.0.0.0\nsmtp_accept_max = 20\nsmtp_accept_max_per_host \
             =\nsmtp_accept_reserve = 0\nsmtp_reserve_hosts =\nhost_reject_connection =\nhosts_proxy =\n{example}\n"
        ),
        _ => {
            let version = ["2.3.19", "2.4.1"][debian];
            format!("dovecot_config_version = {version}\nprotocols = imap\n{example}\n")
        }
    }
}

/// What is made of it: the lines that are configuration, and all that is not carried over.
fn made_of(daemon: &str, text: &str) -> (Vec<String>, String) {
    let reader = [&POSTFIX, &EXIM, &DOVECOT].into_iter().find(|reader| reader.name == daemon).unwrap();
    let daemon = (reader.read)(text).unwrap_or_else(|unread| panic!("{unread:?}\n{text}"));
    let toml = Import::new(vec![daemon], Vec::new()).to_string();
    config::parse(&toml, "imported").unwrap_or_else(|error| panic!("{error}\n{toml}"));
    let (carried, left_out) = toml.split_once("# Not carried over:").unwrap_or((&toml, ""));
    let lines = carried.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let words: Vec<&str> = left_out.split_whitespace().filter(|word| *word != "#").collect();
    (lines, words.join(" "))
}

#[test]
fn every_row_of_the_table_says_what_becomes_of_its_setting() {
    let rows = rows();
    assert!(rows.len() > 60, "{}", rows.len());
    for row in rows {
        // What no Debian of these has is given to both.
        let debians = (0..2).filter(|&debian| row.is_in[debian] || row.is_in == [false, false]);
        for debian in debians {
            let (lines, left_out) = made_of(row.daemon, &text_with(row.daemon, &row.example, debian));
            let (lines_without, left_out_without) = made_of(row.daemon, &text_with(row.daemon, &[], debian));
            let (is, is_without) = match row.outcome.as_str() {
                "carried" | "translated" => {
                    (lines.contains(&row.result), lines_without.contains(&row.result))
                }
                "left out" => {
                    let entry = format!("- {}: ", row.daemon);
                    let find = |text: &str| text.split(&entry).any(|item| item.contains(&row.result));
                    (find(&left_out), find(&left_out_without))
                }
                _ => panic!("{row:?}"),
            };
            assert!(is, "{row:?}\n{lines:#?}\n{left_out}");
            assert!(!is_without, "it is there without the setting: {row:?}");
        }
        let is_named = row.example.iter().any(|line| {
            let name = row.setting.split([' ', '{', '}', '…']).rfind(|word| !word.is_empty()).unwrap();
            line.contains(name) || name == "maxproc"
        });
        assert!(is_named, "the example is not of the setting: {row:?}");
    }
}

/// Whether a text of a daemon has a setting of that name.
fn has(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        // So `doveconf -d` of 2.4 calls those of any listener.
        let line = line.trim().trim_start_matches("inet_listener_");
        line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(['=', '{']))
    })
}

/// All settings of the daemons of Debian 12 and 13.
fn all_of(daemon: &str) -> [String; 2] {
    match daemon {
        "Postfix" => ["postfix/default/output.txt", "postfix/default/output-3.10.txt"].map(text),
        "Exim" => ["exim/default/heavy.txt", "exim/default/output-4.98.txt"].map(text),
        _ => ["dovecot/default/output.txt", "dovecot/default/defaults-2.4.txt"].map(text),
    }
}

#[test]
fn the_table_says_which_debian_has_a_setting() {
    for row in rows() {
        let name = row.setting.split([' ', '{', '}', '…']).rfind(|word| !word.is_empty()).unwrap().to_owned();
        if name == "maxproc" {
            continue;
        }
        for (debian, all) in all_of(row.daemon).iter().enumerate() {
            let elsewhere = rows().into_iter().any(|other| {
                other.is_in[debian] && other.setting == row.setting && other.daemon == row.daemon
            });
            // A list in a block is another way of writing it; a listener has its settings where it is.
            let is_way_of_writing = row.setting.contains('…') || name == "inet_listener" || name == "listen";
            if !is_way_of_writing {
                assert_eq!(has(all, &name), elsewhere, "{} {debian} {row:?}", row.setting);
            }
        }
    }
}

#[test]
fn no_setting_of_the_daemons_that_limits_connections_is_missing_from_the_table() {
    let document = document();
    let (_, others) = document.split_once("## Settings with such names that limit something else").unwrap();
    let known: BTreeSet<String> = rows()
        .iter()
        .flat_map(|row| row.setting.split([' ', '{', '}']).map(str::to_owned).collect::<Vec<_>>())
        .chain(spans(others))
        .collect();
    let of_postfix = |name: &str| {
        name.starts_with("smtpd_client_")
            || name.starts_with("anvil_")
            || name.starts_with("postscreen_") && name.contains("limit")
            || name.starts_with("smtpd_upstream")
            || name.starts_with("postscreen_upstream")
            || ["default_process_limit", "master_service_disable", "inet_interfaces"].contains(&name)
    };
    let of_exim = |name: &str| {
        [
            "smtp_accept",
            "smtp_reserve",
            "smtp_load",
            "smtp_ratelimit",
            "smtp_connect_b",
            "smtp_backlog",
            "host_reject",
        ]
        .iter()
        .any(|start| name.starts_with(start))
            || ["hosts_proxy", "acl_smtp_connect", "daemon_smtp_ports", "local_interfaces"].contains(&name)
    };
    let of_dovecot = |name: &str| {
        [
            "process_limit",
            "client_limit",
            "service_count",
            "request_count",
            "userip",
            "trusted_networks",
            "haproxy",
            "concurrency",
        ]
        .iter()
        .any(|part| name.contains(part))
    };
    let about: [(&str, IsAbout<'_>); 3] =
        [("Postfix", &of_postfix), ("Exim", &of_exim), ("Dovecot", &of_dovecot)];
    for (daemon, is_about) in about {
        let mut found = 0;
        for all in all_of(daemon) {
            for line in all.lines() {
                let name = line.split(['=', '{']).next().unwrap_or_default().trim();
                let name = name.strip_prefix("inet_listener_").unwrap_or(name);
                if !name.contains(char::is_whitespace) && is_about(name) {
                    found += 1;
                    assert!(known.contains(name), "{daemon}: {name} is in no table");
                }
            }
        }
        assert!(found >= 10, "{daemon}: {found}");
    }
}
