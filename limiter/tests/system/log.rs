// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon's log has: who changed what, what was refused, and with `RUST_LOG=debug` more of the limiter.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;

use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, client, eventually};

fn says(limiter: &Limiter, wanted: &[&str]) {
    eventually("the log has it", SOON, || {
        let log = limiter.log();
        match wanted.iter().find(|words| !log.contains(**words)) {
            None => Ok(()),
            Some(words) => Err(format!("no {words:?} in\n{log}")),
        }
    });
}

#[test]
fn a_change_made_by_hand_is_in_the_log_with_who_made_it_and_what_was() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 5, "reply");
    let me = std::process::id();
    let by = format!("pid {me})");
    limiter.ok(&["set", "smtp", "max_connections=7"]);
    says(&limiter, &["set smtp max_connections=7`: smtp: max_connections 5 -> 7", &by]);
    limiter.ok(&["deny", "203.0.113.0/24"]);
    limiter.ok(&["ban", "192.0.2.77", "192.0.2.78", "--service", "smtp", "--for", "1h"]);
    limiter.ok(&["unban", "192.0.2.77"]);
    limiter.ok(&["reload"]);
    says(
        &limiter,
        &[
            "deny 203.0.113.0/24`: 203.0.113.0/24: deny: changed",
            "smtp: 192.0.2.77/32: banned for 1 h: changed; smtp: 192.0.2.78/32: banned for 1 h: changed",
            "smtp: 192.0.2.77/32: not banned (was: banned for another 1 h): changed",
            "reload`: ",
        ],
    );
    // What fails has changed nothing, and who only looks neither.
    limiter.cli(&["set", "smtp", "max_connections=0"]);
    limiter.ok(&["status"]);
    // Without a daemon it is for the next one.
    limiter.stop();
    limiter.ok(&["limit", "198.51.100.0/24", "9"]);
    limiter.run();
    says(&limiter, &["limit 198.51.100.0/24 9`"]);
    let log = limiter.log();
    assert!(!log.contains("max_connections=0`") && !log.contains("status`"), "{log}");
    assert_eq!(log.matches("max_connections=7`").count(), 1, "{log}");
    limiter.ok(&["unload"]);
    says(&limiter, &["unload`", "is being unloaded"]);
    assert!(!std::path::Path::new(&format!("/run/limiter/{}.changes", limiter.instance)).exists());
}

#[test]
fn refusals_are_in_the_log_by_service_and_reason_and_not_each() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_patient(&lab, 1, "reply");
    let held = lab.served(V4.source(), V4.port(25));
    for _ in 0..20 {
        let (_, answer) = lab.client.run(|| client::answer(V4.source(), V4.port(25), SOON));
        assert!(matches!(answer, Answer::Line(_)), "{answer:?}");
    }
    says(&limiter, &["smtp: packets refused: concurrency "]);
    drop(held);
    assert_eq!(limiter.log().matches("packets refused").count(), 1, "{}", limiter.log());
}

/// The fields of an entry, as the journal's protocol has them (`systemd.io/JOURNAL_NATIVE_PROTOCOL`): a name, and behind it
/// the value, or its length in eight bytes and the value.
fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some(end) = entry.iter().position(|&byte| byte == b'\n') {
        let name = String::from_utf8_lossy(&entry[..end]).into_owned();
        if let Some((name, value)) = name.split_once('=') {
            fields.insert(name.to_owned(), value.to_owned());
            entry = &entry[end + 1..];
            continue;
        }
        let (length, rest) = entry[end + 1..].split_first_chunk::<8>().expect("a length");
        let (value, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
        fields.insert(name, String::from_utf8_lossy(value).into_owned());
        entry = rest.strip_prefix(b"\n").expect("an end");
    }
    fields
}

#[test]
fn who_was_refused_is_in_the_log_once_and_in_the_journal_with_fields() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let config = "[defaults]\nmax_connections = 2\n[ladder]\nreplies = \"none\"\n";
    let (source, smtp) = (V4.source(), V4.port(25));
    let refuse = |limiter: &Limiter| {
        limiter.ok(&["limit", &source.to_string(), "1"]);
        let held = lab.served(source, smtp);
        for _ in 0..20 {
            let answer = lab.answer(source, smtp);
            assert!(matches!(answer, Answer::Line(_)), "{answer:?}");
        }
        held
    };
    let words = format!("refused {source} at smtp: concurrency (1 of 1), reply, rule {source}/32");
    {
        let limiter = Limiter::start_with(&lab, config);
        let _held = refuse(&limiter);
        says(&limiter, &[&format!("{words}\n")]);
        assert_eq!(limiter.log().matches("refused 1").count(), 1, "{}", limiter.log());
    }

    let folder = tempfile::tempdir().unwrap();
    let journal = UnixDatagram::bind(folder.path().join("socket")).unwrap();
    journal.set_read_timeout(Some(SOON)).unwrap();
    // Where its stderr goes is the journal, and the journal is at its place.
    let script = "mount -t tmpfs none /run/systemd && mkdir /run/systemd/journal && \
                  mount --bind \"$0\" /run/systemd/journal && \
                  JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/2) exec \"$@\"";
    let folder = folder.path().display().to_string();
    let limiter = Limiter::start_by(&lab, config, &["unshare", "--mount", "sh", "-c", script, &folder]);
    let _held = refuse(&limiter);
    let mut entry = vec![0; 65_536];
    let found = loop {
        let length = journal.recv(&mut entry).expect("the entry comes");
        let found = fields(&entry[..length]);
        if found.contains_key("LIMITER_SOURCE") {
            break found;
        }
    };
    for (name, value) in [
        ("MESSAGE", words.as_str()),
        ("LIMITER_SERVICE", "smtp"),
        ("LIMITER_SOURCE", &source.to_string()),
        ("LIMITER_REASON", "concurrency"),
        ("LIMITER_COUNT", "1"),
        ("LIMITER_LIMIT", "1"),
        ("LIMITER_RESPONSE", "reply"),
        ("LIMITER_RULE", &format!("{source}/32")),
        ("LIMITER_MORE", "0"),
        ("SYSLOG_IDENTIFIER", "limiter"),
        ("PRIORITY", "5"),
    ] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}: {found:#?}");
    }
    assert!(!limiter.log().contains("refused 1"), "{}", limiter.log());
}

#[test]
fn a_log_of_more_is_about_the_limiter_and_not_about_how_programs_are_relocated() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_by(&lab, "[defaults]\nmax_connections = 1\n", &["env", "RUST_LOG=debug"]);
    let held = lab.served(V4.source(), V4.port(25));
    let (_, answer) = lab.client.run(|| client::answer(V4.source(), V4.port(25), SOON));
    assert!(matches!(answer, Answer::Line(_)), "{answer:?}");
    limiter.ok(&["ban", "192.0.2.77", "--service", "smtp"]);
    says(&limiter, &["applied 6 services", &format!("refused {} at port 25: concurrency", V4.source())]);
    drop(held);
    let log = limiter.log();
    assert!(!log.contains("relocat") && log.lines().count() < 100, "{log}");
}
