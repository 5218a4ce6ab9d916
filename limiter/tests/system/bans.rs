// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ladder's bans and the admin's: in force at once, for mail only, and over in time.

use std::net::IpAddr;
use std::time::Duration;

use limiter_common::Cause;
use serde_json::Value;

use limiter_lab::{
    Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, let_time_pass, pinned, sockets,
};

/// Long enough for a SYN that is repeated once.
const A_WHILE: Duration = Duration::from_millis(1500);

fn answer(lab: &Lab, source: IpAddr, to: std::net::SocketAddr) -> Answer {
    lab.client.run(|| client::answer(source, to, A_WHILE).1)
}

/// The bans in force, as `service source`.
fn bans(limiter: &Limiter) -> Vec<String> {
    let bans = limiter.json(&["bans"]);
    let text = |ban: &Value, key: &str| ban[key].as_str().expect("text").to_owned();
    let bans = bans["bans"].as_array().expect("a list of bans");
    bans.iter().map(|ban| format!("{} {}", text(ban, "service"), text(ban, "source"))).collect()
}

/// Has the source refused, as fast as it can come, until it is told nothing; what it was told, each answer
/// with how often it came in a row.
fn insist(lab: &Lab, source: IpAddr, to: std::net::SocketAddr) -> Vec<(Answer, u32)> {
    let mut told: Vec<(Answer, u32)> = Vec::new();
    for _ in 0..100_000 {
        let answer = answer(lab, source, to);
        let is_last = answer == Answer::Silence;
        match told.last_mut() {
            Some((last, times)) if *last == answer => *times += 1,
            _ => told.push((answer, 1)),
        }
        if is_last {
            return told;
        }
    }
    panic!("never banned: {told:?}");
}

#[test]
fn who_insists_gets_words_then_resets_then_is_dropped_by_the_shield_and_starts_politely_after_the_ban() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "interfaces = [\"wire\"]\n[defaults]\nmax_connections = 1\n\
         [ladder]\nreplies = \"2/s\"\nban_after = \"5 in 10min\"\nban = \"1h\"\nban_max = \"3h\"\n",
    );
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let words = Answer::Line(Limiter::smtp_reply(1, source));
        let held = lab.served(source, smtp);
        for (nth, hours) in [(1, 1), (2, 2), (3, 3), (4, 3)] {
            let told = insist(&lab, source, smtp);
            assert_eq!(told[0], (words.clone(), 2), "the budget of replies: {told:?}");
            assert_eq!(told[1].0, Answer::Reset, "then resets: {told:?}");
            let replies: u32 = told.iter().filter(|(answer, _)| *answer == words).map(|(_, n)| n).sum();
            assert_eq!(replies, 6, "the sixth of 5 in 10min is the one too many: {told:?}");
            let ban = limiter.json(&["bans"])["bans"][0].clone();
            assert_eq!((ban["reason"].as_str(), ban["bans"].as_u64()), (Some("ladder"), Some(nth)), "{ban}");
            let left = ban["left_seconds"].as_u64().unwrap();
            assert!((hours * 3600 - 60..=hours * 3600).contains(&left), "{ban}");
            // From now on it costs what the shield takes to drop its SYNs: nothing else sees one.
            let seen =
                || ["dropped", "refused_banned", "held"].map(|counter| limiter.counter("smtp", counter));
            let before = seen();
            assert_eq!(answer(&lab, source, smtp), Answer::Silence);
            let [dropped, refused, held] = seen();
            assert!(
                dropped > before[0] && refused - before[1] == dropped - before[0],
                "{before:?}, {dropped}"
            );
            assert_eq!(held, before[2]);
            // Banned from one service, it gets what it wants of another.
            assert_eq!(answer(&lab, source, family.port(143)), Answer::Reset, "nobody listens there");
            let explained = limiter.ok(&["explain", &source.to_string()]);
            assert!(explained.contains("refused: banned") && explained.contains(" unban "), "{explained}");
            // Time passes.
            pinned::Penalties::open(&limiter).end_bans();
        }
        drop(held);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
        drop(lab.served(source, smtp));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
    }
    assert_eq!(limiter.counter("smtp", "banned"), 8);
    assert!(limiter.counter("smtp", "refused_banned") >= 8);
    assert!(
        limiter.log().contains("for 1h, because it kept connecting after refusals (ban 1 in a row)"),
        "{}",
        limiter.log()
    );
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn who_is_refused_because_others_fill_the_service_is_never_banned() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 2\nmax_total = 2\n\
         [ladder]\nreplies = \"none\"\nban_after = \"5 in 10min\"\n",
    );
    for family in [V4, V6] {
        let [busy, other, _] = family.sources;
        let held = [lab.served(busy, family.port(25)), lab.served(busy, family.port(25))];
        for _ in 0..30 {
            let Answer::Line(words) = answer(&lab, other, family.port(25)) else { panic!("no words") };
            assert!(words.contains("to this service"), "{words}");
        }
        assert_eq!(bans(&limiter), Vec::<String>::new());
        drop(held);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), busy, 0);
        drop(lab.served(other, family.port(25)));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), other, 0);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn an_admins_ban_is_in_force_at_once_cuts_nobody_and_ends_by_itself() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sinks = [Sink::start(&lab, 25), Sink::start(&lab, 143)];
    let limiter = Limiter::start(&lab, 5, "reply");
    for family in [V4, V6] {
        let [source, other, _] = family.sources;
        let (address, smtp, imap) = (source.to_string(), family.port(25), family.port(143));
        let held = lab.served(source, smtp);
        limiter.ok(&["ban", &address, "--service", "smtp", "--for", "1h"]);
        assert_eq!(answer(&lab, source, smtp), Answer::Silence);
        drop((lab.served(source, imap), lab.served(other, smtp)));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 1);
        limiter.ok(&["ban", &address, "--for", "1h"]);
        assert_eq!(answer(&lab, source, imap), Answer::Silence);
        assert_eq!(bans(&limiter).len(), limiter.services().len());
        assert!(limiter.ok(&["status"]).contains(&format!("bans in force: {};", limiter.services().len())));
        assert!(limiter.ok(&["bans"]).contains(" admin"));
        limiter.ok(&["unban", &address]);
        drop((lab.served(source, imap), lab.served(source, smtp)));
        let again = limiter.ok(&["unban", &address]);
        assert!(again.lines().all(|line| line.ends_with(": not banned: unchanged")), "{again}");
        limiter.ok(&["ban", &address, "--for", "2s"]);
        assert_eq!(answer(&lab, source, smtp), Answer::Silence);
        eventually("the ban is over", SOON, || match answer(&lab, source, smtp) {
            answer if answer.is_service() => Ok(()),
            answer => Err(format!("{answer:?}")),
        });
        assert_eq!(limiter.ok(&["bans"]), "no source is banned\n");
        drop(held);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_monitoring_host_banned_by_mistake_is_allowed_again_and_no_ban_holds_for_it() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nmax_connections = 1\n[ladder]\nreplies = \"none\"\nban_after = \"3 in 10min\"\n",
    );
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let address = source.to_string();
        let held = lab.served(source, smtp);
        insist(&lab, source, smtp);
        limiter.ok(&["allow", &address]);
        let more: Vec<_> = (0..20).map(|_| lab.served(source, smtp)).collect();
        let outcome = limiter.cli(&["ban", &address]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(
            outcome.stderr.contains("cannot ban") && outcome.stderr.contains("it is allowed by the rule for"),
            "{outcome:?}"
        );
        drop((held, more));
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn bans_outlive_the_daemon_a_reload_and_a_restart_of_the_host() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 5, "reply");
    let sources = [V4, V6].map(|family| (family.source(), family.port(25)));
    for (source, _) in sources {
        limiter.ok(&["ban", &source.to_string(), "--service", "smtp", "--for", "1h"]);
    }
    let before = bans(&limiter);
    let still_banned = |limiter: &Limiter, when: &str| {
        assert_eq!(bans(limiter), before, "{when}");
        for (source, smtp) in sources {
            assert_eq!(answer(&lab, source, smtp), Answer::Silence, "{when}");
        }
    };
    limiter.kill();
    still_banned(&limiter, "without a daemon");
    limiter.run();
    still_banned(&limiter, "taken over");
    limiter.configure("[defaults]\nmax_connections = 3\n");
    limiter.ok(&["reload"]);
    still_banned(&limiter, "after a reload");
    limiter.kill();
    // What is left of the kernel's memory when the host starts again.
    pinned::forget_everything(&limiter);
    limiter.run();
    still_banned(&limiter, "after a restart of the host");
    assert!(limiter.log().contains("restored 2 saved bans"), "{}", limiter.log());
    // A file that is none is put aside, and the daemon starts.
    limiter.kill();
    pinned::forget_everything(&limiter);
    let path = format!("/var/lib/limiter/{}.bans", limiter.instance);
    let aside = format!("/var/lib/limiter/{}.unreadable", limiter.instance);
    std::fs::write(&path, "{\"bans\": [").unwrap();
    limiter.run();
    assert_eq!(bans(&limiter), Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(&aside).unwrap(), "{\"bans\": [");
    std::fs::remove_file(aside).unwrap();
    limiter.ok(&["unload"]);
    assert!(!std::fs::exists(path).unwrap(), "unload leaves no trace");
}

#[test]
fn when_there_is_no_room_the_oldest_ban_of_the_ladder_is_given_up_and_none_made_by_hand() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start_with(&lab, "[ladder]\nmax_bans = 1024\n");
    limiter.kill();
    let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
    let of = |n: u32| format!("smtp {}/32", address(n));
    let ban = |source: &str| limiter.cli(&["ban", source, "--service", "smtp", "--for", "1h"]);
    // The older half was banned by hand.
    pinned::Penalties::open(&limiter).ban(Cause::Admin, 0..512, address);
    pinned::Penalties::open(&limiter).ban(Cause::Ladder, 512..1024, address);
    assert_eq!(ban("192.0.2.200").code, Some(0));
    let now = bans(&limiter);
    assert_eq!(now.len(), 1024);
    assert!(now.contains(&"smtp 192.0.2.200/32".to_owned()));
    assert!(!now.contains(&of(512)), "the oldest of the ladder is gone");
    assert!(now.contains(&of(0)) && now.contains(&of(513)), "the others are not");
    pinned::Penalties::open(&limiter).ban(Cause::Admin, 513..1024, address);
    let outcome = ban("192.0.2.201");
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.stderr.contains("1024 bans made by the admin are in force, and max_bans is 1024"),
        "{outcome:?}"
    );
    assert_eq!(bans(&limiter).len(), 1024, "nothing has changed");
    assert_eq!(ban("192.0.2.200").code, Some(0), "one that is there can be made anew");
    // What the ladder makes beyond that, the daemon gives up.
    pinned::Penalties::open(&limiter).ban(Cause::Ladder, 2000..2100, address);
    limiter.run();
    eventually("there are as many as there may be", SOON, || {
        let now = bans(&limiter);
        if now.len() == 1024 && now.contains(&of(0)) { Ok(()) } else { Err(now.len().to_string()) }
    });
    assert!(limiter.log().contains("raise max_bans"), "{}", limiter.log());
}

#[test]
fn sources_that_are_only_refused_push_out_no_ban_with_a_daemon_and_without() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    lab.take_network("2001:db8:c::/48");
    let mut limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 1\nmax_total = 1\n[ladder]\nmax_bans = 1024\n",
    );
    let [source, banned, _] = V4.sources;
    limiter.ok(&["ban", &banned.to_string(), "--service", "smtp", "--for", "1h"]);
    let by_ladder = IpAddr::from([192, 0, 2, 77]);
    pinned::Penalties::open(&limiter).ban(Cause::Ladder, 0..1, |_| by_ladder);
    let before = bans(&limiter);
    assert_eq!(before.len(), 2);
    let _held = lab.served(source, V4.port(25));
    for has_daemon in [true, false] {
        if !has_daemon {
            limiter.kill();
        }
        lab.client.run(|| {
            for nth in 0..2200 {
                let source = IpAddr::from(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xc, nth, 0, 0, 0, 7));
                let (_, answer) = client::answer(source, V6.port(25), A_WHILE);
                assert!(!answer.is_service(), "{source}: {answer:?}");
            }
        });
        let_time_pass(A_WHILE, "more than a round of the daemon");
        assert_eq!(bans(&limiter), before, "with a daemon: {has_daemon}");
        assert_eq!(answer(&lab, banned, V4.port(25)), Answer::Silence);
        assert_eq!(limiter.counter("smtp", "unjudged"), 0);
        assert!(!limiter.log().contains("raise max_bans"), "{}", limiter.log());
    }
}

#[test]
fn a_service_that_says_nothing_drops_what_it_refuses() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 1, "drop");
    for family in [V4, V6] {
        let [source, other, _] = family.sources;
        let held = lab.served(source, family.port(25));
        assert_eq!(answer(&lab, source, family.port(25)), Answer::Silence);
        drop(lab.served(other, family.port(25)));
        drop(held);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
        drop(lab.served(source, family.port(25)));
    }
    assert!(limiter.counter("smtp", "refused_concurrency") >= 2);
    assert_eq!(limiter.counter("smtp", "replied"), 0);
    sockets::settled(&lab.host, &limiter, 25);
}

/// With SYN cookies the gate only looks, and looks at the time where somebody was banned.
#[test]
fn a_ban_that_is_over_holds_back_no_syn_cookie() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    lab.host.sysctl("ipv4/tcp_syncookies", "2").unwrap();
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 2, "reset");
    for family in [V4, V6] {
        limiter.ok(&["ban", &family.source().to_string(), "--for", "1s", "--service", "smtp"]);
        assert_eq!(bans(&limiter).len(), 1);
        eventually("the ban is over", SOON, || {
            if bans(&limiter).is_empty() { Ok(()) } else { Err(String::new()) }
        });
        drop(lab.served(family.source(), family.port(25)));
    }
    sockets::settled(&lab.host, &limiter, 25);
}
