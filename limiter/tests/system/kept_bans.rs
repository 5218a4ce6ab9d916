// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bans that are written down: for just whom, for as long as they were made for, and whatever becomes of the host.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use limiter_lab::command::Outcome;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, let_time_pass, pinned};

/// Long enough for a SYN that is repeated once.
const A_WHILE: Duration = Duration::from_millis(1500);
const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;

fn answer(lab: &Lab, source: IpAddr, port: std::net::SocketAddr) -> Answer {
    lab.client.run(|| client::answer(source, port, A_WHILE).1)
}

fn path(limiter: &Limiter) -> PathBuf {
    PathBuf::from(format!("/var/lib/limiter/{}.bans", limiter.instance))
}

/// Those in force, or those that are not, as `service source`.
fn listed(limiter: &Limiter, which: &str) -> Vec<String> {
    let bans = limiter.json(&["bans"]);
    let text = |ban: &Value, key: &str| ban[key].as_str().expect("text").to_owned();
    let bans = bans[which].as_array().expect("a list of bans");
    bans.iter().map(|ban| format!("{} {}", text(ban, "service"), text(ban, "source"))).collect()
}

fn in_force(limiter: &Limiter) -> Vec<String> {
    listed(limiter, "bans")
}

fn left_seconds(limiter: &Limiter) -> Vec<u64> {
    let bans = limiter.json(&["bans"]);
    bans["bans"].as_array().expect("bans").iter().map(|ban| ban["left_seconds"].as_u64().unwrap()).collect()
}

/// The host starts anew, and its clock has gone on by `passed_ms` since anything was written.
fn restart_host(limiter: &mut Limiter, passed_ms: i64) {
    limiter.stop();
    pinned::forget_everything(limiter);
    let text = fs::read_to_string(path(limiter)).expect("bans were written down");
    let mut changed = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut line: Value = serde_json::from_str(line).expect("a line of JSON");
        if number == 0 {
            line["boot"] = json!("another run of this host");
        } else {
            line["unix_ms"] = json!(line["unix_ms"].as_i64().expect("a time") - passed_ms);
        }
        writeln!(changed, "{line}").unwrap();
    }
    fs::write(path(limiter), changed).expect("space for a file");
    limiter.run();
}

#[test]
fn a_ban_is_never_longer_than_it_was_made_for_whatever_the_clock_says_after_a_restart() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 5, "reply");
    let source = V4.source().to_string();
    let ban = |limiter: &Limiter| limiter.ok(&["ban", &source, "--service", "smtp", "--for", "1h"]);
    ban(&limiter);
    restart_host(&mut limiter, 10 * 60 * 1000);
    let left = left_seconds(&limiter);
    assert!(left.len() == 1 && (2900..=3000).contains(&left[0]), "ten minutes of it have passed: {left:?}");
    for _ in 0..3 {
        restart_host(&mut limiter, -2 * YEAR_MS);
        let left = left_seconds(&limiter);
        assert!(left.len() == 1 && (2800..=3000).contains(&left[0]), "the clock is two years back: {left:?}");
    }
    restart_host(&mut limiter, 2 * YEAR_MS);
    assert_eq!(in_force(&limiter), Vec::<String>::new());
    assert!(limiter.log().contains("1 saved bans have expired"), "{}", limiter.log());
}

/// What builds before this one wrote, and what no build wrote.
#[test]
fn whatever_numbers_are_in_the_file_no_ban_is_longer_than_it_was_made_for() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 5, "reply");
    limiter.stop();
    pinned::forget_everything(&limiter);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let ban = |source: &str, since: u64, until: u64| json!({"service": "smtp", "source": source, "since": since, "until": until, "bans": 0, "reason": "admin"});
    let in_two_years = now + YEAR_MS as u64 / 500;
    let bans = [
        ban("192.0.2.11/32", now, now + 3600),
        ban("192.0.2.12/32", in_two_years, in_two_years + 3600),
        ban("192.0.2.13/32", now, u64::MAX / 1_000_000_000 + now),
        ban("192.0.2.14/32", now, u64::MAX),
        ban("192.0.2.15/32", u64::MAX - 3600, u64::MAX),
        ban("192.0.2.16/32", now + 3600, now),
        ban("192.0.2.17/32", now, now + 31 * 24 * 3600),
        ban("192.0.2.18/32", now - 7200, now - 3600),
    ];
    fs::write(path(&limiter), json!({ "bans": bans }).to_string()).unwrap();
    limiter.run();
    let left = left_seconds(&limiter);
    assert!(left.iter().all(|left| (3500..=3600).contains(left)), "{left:?}");
    let in_force = in_force(&limiter);
    for banned in ["smtp 192.0.2.11/32", "smtp 192.0.2.12/32"] {
        assert!(in_force.contains(&banned.to_owned()), "{in_force:?}");
    }
    let log = limiter.log();
    assert!(log.contains("is damaged: 4 lines or bans") && log.contains(".unreadable"), "{log}");
    let aside = path(&limiter).with_extension("unreadable");
    assert_eq!(fs::read_to_string(&aside).unwrap(), json!({ "bans": bans }).to_string());
    limiter.ok(&["unload"]);
    assert!(!aside.exists() && !path(&limiter).exists(), "unload leaves no trace");
}

#[test]
fn a_ban_of_one_address_is_not_one_of_its_network_when_that_makes_a_source_after_a_restart() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 5, "reply");
    for family in [V4, V6] {
        limiter.ok(&["ban", &family.source().to_string(), "--service", "smtp", "--for", "1h"]);
    }
    let banned = in_force(&limiter);
    assert_eq!(banned.len(), 2);
    limiter.configure("[defaults]\nmax_connections = 5\nipv4_prefix = 24\nipv6_prefix = 32\n");
    restart_host(&mut limiter, 0);
    assert_eq!((in_force(&limiter), listed(&limiter, "not_in_force")), (vec![], banned.clone()));
    for family in [V4, V6] {
        // The second is in the network of the first.
        drop(lab.served(family.sources[1], family.port(25)));
    }
    let log = limiter.log();
    for said in ["(198.51.100.7/32): a source is now a /24", "(2001:db8:7::/64): a source is now a /32"] {
        assert!(log.contains(&format!("smtp: 1 ban is not in force {said}")), "{log}");
    }
    let shown = limiter.ok(&["bans"]);
    assert!(shown.contains("no source is banned") && shown.contains("a source is now a /24"), "{shown}");
    // With the prefix that was, they are what they were.
    limiter.configure("[defaults]\nmax_connections = 5\n");
    limiter.ok(&["reload"]);
    assert_eq!(in_force(&limiter), banned);
    for family in [V4, V6] {
        assert_eq!(answer(&lab, family.source(), family.port(25)), Answer::Silence);
        drop(lab.served(family.sources[1], family.port(25)));
    }
}

#[test]
fn after_a_reload_with_another_prefix_bans_lists_what_holds_and_unban_ends_what_covers_the_address() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 5, "reply");
    let prefixes = |ipv4: u32, ipv6: u32| {
        limiter.configure(&format!(
            "[defaults]\nmax_connections = 5\nipv4_prefix = {ipv4}\nipv6_prefix = {ipv6}\n"
        ));
        limiter.ok(&["reload"]);
    };
    for (of_network, of_source) in [((32, 64), (24, 48)), ((24, 48), (32, 64))] {
        prefixes(of_network.0, of_network.1);
        for family in [V4, V6] {
            limiter.ok(&["ban", &family.source().to_string(), "--service", "smtp", "--for", "1h"]);
        }
        let banned = in_force(&limiter);
        assert_eq!(banned.len(), 2);
        prefixes(of_source.0, of_source.1);
        assert_eq!((in_force(&limiter), listed(&limiter, "not_in_force")), (vec![], banned.clone()));
        eventually("the log says so", SOON, || {
            let log = limiter.log();
            if log.contains("no longer in force") { Ok(()) } else { Err(log) }
        });
        for family in [V4, V6] {
            drop(lab.served(family.source(), family.port(25)));
        }
        for family in [V4, V6] {
            let said = limiter.ok(&["unban", &family.source().to_string()]);
            assert!(said.contains(": not banned (was: banned for another "), "{said}");
        }
        assert_eq!(listed(&limiter, "not_in_force"), Vec::<String>::new());
        prefixes(of_network.0, of_network.1);
        assert_eq!(in_force(&limiter), Vec::<String>::new());
    }
}

#[test]
fn a_ban_of_whom_a_rule_allows_or_of_a_service_that_observes_is_not_listed_as_in_force() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 5, "reply");
    for family in [V4, V6] {
        let source = family.source().to_string();
        limiter.ok(&["ban", &source, "--service", "smtp", "--for", "1h"]);
        for (change, back, because) in [
            (vec!["allow", &source], vec!["forget", &source], "a rule allows it"),
            (
                vec!["set", "smtp", "mode=observe"],
                vec!["set", "smtp", "mode=enforce"],
                "the service is in observe mode",
            ),
        ] {
            if because.starts_with("a rule") && family.source().is_ipv6() {
                continue;
            }
            limiter.ok(&change);
            drop(lab.served(family.source(), family.port(25)));
            let bans = limiter.json(&["bans"]);
            assert_eq!(bans["bans"], json!([]));
            assert_eq!(bans["not_in_force"][0]["because"], because);
            assert!(!limiter.ok(&["status"]).contains("bans in force"));
            limiter.ok(&back);
            assert_eq!(in_force(&limiter).len(), 1);
            assert_eq!(answer(&lab, family.source(), family.port(25)), Answer::Silence);
        }
        limiter.ok(&["unban", &source]);
    }
    // An allowed address is not all of a source of IPv6, and its neighbours stay banned.
    limiter.ok(&["ban", &V6.source().to_string(), "--service", "smtp", "--for", "1h"]);
    limiter.ok(&["allow", &V6.source().to_string()]);
    assert_eq!(in_force(&limiter).len(), 1);
    limiter.ok(&["allow", "2001:db8:7::/48"]);
    assert_eq!(in_force(&limiter).len(), 0);
}

/// Waits until the log has this so many times.
#[track_caller]
fn logged(limiter: &Limiter, said: &str, times: usize) {
    eventually(said, SOON, || {
        let log = limiter.log();
        if log.matches(said).count() == times { Ok(()) } else { Err(log) }
    });
}

#[test]
fn whatever_keeps_a_ban_from_holding_is_in_the_log_once_and_so_is_that_it_holds_again() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limit = "[defaults]\nmax_connections = 5\n";
    let limiter = Limiter::start_with(&lab, limit);
    limiter.ok(&["ban", "2001:db8:9:7::1", "2001:db8:9:8::1", "--service", "smtp", "--for", "1h"]);
    let both = "(2001:db8:9:7::/64, 2001:db8:9:8::/64)";
    let ends = |because: &str| format!("smtp: 2 bans are no longer in force {both}: {because}");
    let again = format!("smtp: 2 bans are in force again {both}");
    let changes = [
        (vec!["allow", "2001:db8:9::/48"], vec!["forget", "2001:db8:9::/48"], "a rule allows it"),
        (
            vec!["set", "smtp", "mode=observe"],
            vec!["set", "smtp", "mode=enforce"],
            "the service is in observe mode",
        ),
    ];
    for (nth, (change, back, because)) in (1..).zip(changes) {
        limiter.ok(&change);
        logged(&limiter, &ends(because), 1);
        // What changes nothing for them is not said anew.
        limiter.ok(&["deny", "192.0.2.0/24"]);
        limiter.ok(&["forget", "192.0.2.0/24"]);
        limiter.ok(&back);
        logged(&limiter, &again, nth);
        logged(&limiter, &ends(because), 1);
    }
    for rule in ["", "[[rule]]\nnetwork = \"2001:db8:9::/48\"\nsource_prefix = 56\n"] {
        limiter.configure(&format!("{limit}{rule}"));
        limiter.ok(&["reload"]);
    }
    logged(&limiter, &ends("a source is now a /56"), 1);
    limiter.configure(&format!("{limit}[service.extra]\nports = [2525]\nprotocol = \"smtp\"\n"));
    limiter.ok(&["reload"]);
    logged(&limiter, &again, 3);
    limiter.ok(&["ban", "203.0.113.9", "--service", "extra", "--for", "1h"]);
    limiter.configure(limit);
    limiter.ok(&["reload"]);
    logged(&limiter, "extra: 1 ban is no longer in force (203.0.113.9/32): the service no longer exists", 1);
}

/// Puts another file system where bans are written down, of the daemon and what is started with it.
const WITH_A_STATE_OF_ITS_OWN: &str =
    "mount -t tmpfs -o size=64k tmpfs /var/lib/limiter && exec \"$0\" \"$@\"";

#[test]
fn on_a_file_system_that_is_read_only_or_full_a_ban_holds_and_that_is_said_once() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    fs::create_dir_all("/var/lib/limiter").expect("root may make it");
    let limiter = Limiter::start_by(
        &lab,
        // There is no room for both.
        "history = false\n[defaults]\nmax_connections = 5\n",
        &["unshare", "--mount", "--propagation", "private", "sh", "-c", WITH_A_STATE_OF_ITS_OWN],
    );
    let pid = limiter.pid().expect("the daemon runs").to_string();
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &pid, "--"]).args(arguments);
        Outcome::of(command)
    };
    let verb = |arguments: &[&str]| {
        inside(&[&[crate::BINARY, "--instance", limiter.instance.as_str()], arguments].concat())
    };
    let source = V4.source().to_string();
    let fill = "head -c 100000 /dev/zero > /var/lib/limiter/filler; truncate -s +0 /var/lib/limiter/filler";
    let states: [(&[&str], &str, &[&str]); 2] = [
        (
            &["mount", "-o", "remount,ro", "/var/lib/limiter"],
            "Read-only file system",
            &["mount", "-o", "remount,rw", "/var/lib/limiter"],
        ),
        (&["sh", "-c", fill], "No space left on device", &["rm", "/var/lib/limiter/filler"]),
    ];
    for (nth, (breaking, error, mending)) in states.into_iter().enumerate() {
        let outcome = verb(&["ban", "192.0.2.99", "--service", "smtp", "--for", "1h"]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
        assert_eq!(inside(breaking).code, Some(0));
        // More than one page of the file takes.
        let many: Vec<_> = (0..40).map(|n| format!("203.0.113.{}", n + 100)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let outcome =
            verb(&[&["ban", &source, "--service", "smtp", "--for", "1h"], many.as_slice()].concat());
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stdout.contains("smtp: 41 sources: banned for 1 h: changed"), "{outcome:?}");
        assert!(
            outcome.stderr.contains(error) && outcome.stderr.contains("the bans are in force, but are lost"),
            "{outcome:?}"
        );
        assert_eq!(answer(&lab, V4.source(), V4.port(25)), Answer::Silence);
        let_time_pass(Duration::from_secs(4), "more than a few rounds of the daemon");
        let times =
            limiter.log().matches("the bans stay in force, but are lost when the host restarts").count();
        assert_eq!(times, nth + 1, "{}", limiter.log());
        assert_eq!(inside(mending).code, Some(0));
        eventually("the daemon writes again", Duration::from_secs(60), || {
            let log = limiter.log();
            if log.matches("bans are saved to").count() == nth + 1 { Ok(()) } else { Err(log) }
        });
        let text = inside(&["cat", path(&limiter).to_str().unwrap()]).stdout;
        assert!(text.contains(&source) && text.contains("203.0.113.139/32"), "{text}");
        let outcome = verb(&["unban", &source]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    }
}

fn address(nth: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + nth)
}

#[test]
fn tens_of_thousands_are_banned_in_one_command_and_another_ban_takes_no_longer_for_them() {
    const MANY: u32 = 50_000;
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 5, "reply");
    let list = tempfile::NamedTempFile::new().unwrap();
    let mut text = File::create(list.path()).unwrap();
    writeln!(text, "# a list\n\n{}/32 ; the first", address(0)).unwrap();
    for nth in 1..MANY {
        writeln!(text, "{}", address(nth)).unwrap();
    }
    let file = list.path().to_str().unwrap();
    let begun = Instant::now();
    let said = limiter.ok(&["ban", "--from", file, "--service", "smtp", "--for", "1h"]);
    let took = begun.elapsed();
    assert_eq!(said, format!("smtp: {MANY} sources: banned for 1 h: changed\n"));
    assert!(took < Duration::from_secs(20), "{took:?}");
    let written = || fs::metadata(path(&limiter)).unwrap().len();
    // The daemon sees them, and writes nothing more.
    let before = written();
    let_time_pass(Duration::from_secs(3), "a few rounds of the daemon");
    assert_eq!(written(), before);
    limiter.ok(&["ban", "192.0.2.200", "--service", "smtp", "--for", "1h"]);
    assert!(written() - before < 500, "one more is one more line");
    assert_eq!(in_force(&limiter).len(), MANY as usize + 1);
    restart_host(&mut limiter, 1000);
    assert!(limiter.log().contains(&format!("restored {} saved bans", MANY + 1)));
    let said = limiter.ok(&["unban", "--from", file]);
    assert_eq!(
        limiter.ok(&["unban", "10.0.0.0/8", "--service", "smtp"]),
        "smtp: 10.0.0.0/8: not banned: unchanged\n"
    );
    assert!(said.lines().any(|line| line == format!("smtp: {MANY} sources: not banned: changed")), "{said}");
    assert_eq!(said.matches(": unchanged").count(), limiter.services().len() - 1, "{said}");
    assert_eq!(in_force(&limiter), ["smtp 192.0.2.200/32"]);
}

#[test]
fn one_mistake_in_a_list_and_nobody_is_banned() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 5, "reply");
    let ban = |text: &str| {
        let mut command = limiter.command(&["ban", "--from", "-", "--service", "smtp"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (text, says) in [
        ("192.0.2.11\n192.0.2.256\n", "standard input, line 2: \"192.0.2.256\" is not an address"),
        (
            "192.0.2.11\n\n192.0.2.0/24\n",
            "192.0.2.0/24 contains many sources, because smtp counts each /32 separately",
        ),
        ("192.0.2.99\n192.0.2.1 # the host's own\n", "cannot ban 192.0.2.1 from smtp"),
        ("# nobody\n", "standard input contains no address"),
    ] {
        let (code, stderr) = ban(text);
        assert_eq!(code, Some(2), "{text:?}: {stderr}");
        assert!(stderr.contains(says), "{text:?}: {stderr}");
        assert_eq!(in_force(&limiter), Vec::<String>::new());
    }
    assert_eq!(ban("\u{feff}192.0.2.7\r\n192.0.2.7/32\n2001:db8:5::/64\n2001:db8:5::1\n").0, Some(0));
    assert_eq!(in_force(&limiter), ["smtp 192.0.2.7/32", "smtp 2001:db8:5::/64"]);
}

#[test]
fn what_can_be_read_of_a_damaged_file_is_in_force() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 5, "reply");
    for nth in 1..=3 {
        limiter.ok(&["ban", &address(nth).to_string(), "--service", "smtp", "--for", "1h"]);
    }
    limiter.stop();
    pinned::forget_everything(&limiter);
    let text = fs::read_to_string(path(&limiter)).unwrap();
    let damaged = text.replace("10.0.0.2/32", "10.0.0.\0/32");
    // And somebody was killed while writing.
    fs::write(path(&limiter), format!("{damaged}{{\"at_ns\":12")).unwrap();
    limiter.run();
    let mut now = in_force(&limiter);
    now.sort();
    assert_eq!(now, ["smtp 10.0.0.1/32", "smtp 10.0.0.3/32"]);
    let log = limiter.log();
    assert!(log.contains("is damaged: 1 lines") && log.contains("is incomplete"), "{log}");
}

#[test]
fn a_ban_that_cannot_be_told_of_holds_and_is_written_down_all_the_same() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start_with(&lab, "");
    let source = "203.0.113.7";
    let in_file = || fs::read_to_string(path(&limiter)).unwrap_or_default().lines().count();
    for (arguments, then) in [
        (vec!["ban", source, "--service", "smtp", "--for", "1h"], vec!["smtp 203.0.113.7/32".to_owned()]),
        (vec!["unban", source], vec![]),
    ] {
        let before = in_file();
        let mut command = limiter.command(&arguments);
        command.stdout(File::options().write(true).open("/dev/full").unwrap()).stderr(Stdio::piped());
        let outcome = command.spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(outcome.stderr).unwrap();
        assert!(
            outcome.status.success() && said.contains("the change is done, but cannot be printed"),
            "{said}"
        );
        assert_eq!(in_force(&limiter), then);
        assert!(in_file() > before, "{arguments:?} is written down");
    }
}
