// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Nobody silences the greeter: while the clients of ten sources keep it busy, each in the worst manner that it knows, an
//! eleventh source has its reply at once, and the greeter's memory stays small.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConnection;

use super::crowd::{Crowd, Told};
use super::full::{Full, family, source};
use super::horde::{Horde, Manner, Size};
use crate::honest::EndOf;
use crate::raw::{SYN, Segment, Wire};
use limiter_lab::limiter::HOSTNAME;
use limiter_lab::random::Random;
use limiter_lab::{SOON, eventually, let_time_pass, proc_net, say};

/// Those who attack, 10,000 clients.
const ATTACKERS: Size = Size { sources: 10, of_each: 1_000 };
const ALL: u64 = 10_000;
/// How often the eleventh source is refused.
const TRIES: u32 = 20;
/// How long its reply may take. The aim is 100 ms, and a quiet machine needs a few milliseconds of it; one on which the
/// greeter gets no processor for a moment has its queue full, and loses a SYN, which comes again after a second.
const AT_MOST: Duration = Duration::from_secs(3);
/// What the processes of the limiter may take of memory, in KiB.
const MEMORY_KIB: u64 = 64 << 10;
/// How long the greeter has a client that does not close, and a little more: then another comes in its place.
const LIFE: Duration = Duration::from_millis(2_200);
/// The same of one in a TLS handshake.
const LIFE_IN_TLS: Duration = Duration::from_millis(12_200);

/// What the daemon and its children take of memory, in KiB.
fn memory_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let own = rss.and_then(|rss| rss.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    let children = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = children.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<String> = children.collect();
    let children = children.iter().flat_map(|children| children.split_whitespace());
    own + children.filter_map(|child| child.parse().ok()).map(memory_kib).sum::<u64>()
}

/// What the eleventh source hears at `port`, one time after the other, and the most memory meanwhile.
fn eleventh(full: &Full, port: u16) -> (Told, u64) {
    let is_tls = port == 993;
    let call = |_| Full::call(source(ATTACKERS.sources), port, false);
    let crowd = Crowd {
        clients: 1,
        at_once: 1,
        a_second: None,
        patience: SOON,
        tls: is_tls.then_some(&full.tls),
        call: &call,
    };
    let (mut told, mut memory) = (Told::default(), 0);
    for _ in 0..TRIES {
        told = told.with(full.lab.client.run(|| crowd.run()).unwrap());
        memory = memory.max(full.limiter.pid().map_or(0, memory_kib));
        let_time_pass(Duration::from_millis(50), "the eleventh source comes again");
    }
    (told, memory)
}

/// What the eleventh source hears at `port` while `attack` goes on.
fn is_heard(full: &Full, port: u16, what: &str, attack: impl FnOnce(&dyn Fn())) {
    let (peace, before) = eleventh(full, port);
    attack(&|| {
        let (war, memory) = eleventh(full, port);
        let summary = format!(
            "{what}: the eleventh source in peace: {peace}\n  under attack: {war}\n  memory: {before} KiB, under attack \
             {memory} KiB\n  the greeter: {}",
            full.limiter.json(&["status"])["greeter"]
        );
        say(&summary);
        assert_eq!((war.whole, peace.whole), (TRIES, TRIES), "{summary}");
        assert!(war.within(100) < AT_MOST, "{summary}");
        assert!(memory < MEMORY_KIB, "{summary}");
    });
}

/// Ten sources have a thousand clients each, all in this manner; what the greeter counts of those beyond its bounds is
/// one of these.
fn horde(manner: impl FnOnce(&Full) -> Manner, port: u16, what: &str, counters: &[&str]) {
    let Some(full) = Full::new(ATTACKERS.sources + 1) else { return };
    let life = if port == 993 { LIFE_IN_TLS } else { LIFE };
    let beyond = || counters.iter().map(|counter| full.counted(counter)).sum::<u64>();
    is_heard(&full, port, what, |measure| {
        let horde = Horde::start(&full.lab, manner(&full), ATTACKERS, port, life);
        eventually("all have come, and more than the greeter has room for", SOON, || {
            let (begun, beyond) = (horde.tally.begun.load(Ordering::Relaxed), beyond());
            if begun >= ALL && beyond > 0 { Ok(()) } else { Err(format!("{begun} came, {beyond} beyond")) }
        });
        measure();
        let status = full.limiter.ok(&["status"]);
        assert!(status.contains("too many came at once"), "the cause is shown: {status}");
        let (begun, reset) =
            [&horde.tally.begun, &horde.tally.reset].map(|it| it.load(Ordering::Relaxed)).into();
        say(&format!("  {begun} came, {reset} of them were reset, {counters:?}: {}", beyond()));
    });
}

/// What a client of TLS says first.
fn hello(full: &Full) -> Vec<u8> {
    let mut client = ClientConnection::new(Arc::clone(&full.tls), HOSTNAME.try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn ten_thousand_slow_clients_keep_nobody_else_from_a_reply() {
    horde(|_| Manner::Slow, 25, "10,000 that read a byte a second", &["dropped_full"]);
}

#[test]
fn clients_that_never_read_keep_nobody_else_from_a_reply() {
    horde(|_| Manner::NeverReads, 25, "10,000 that never read", &["dropped_full"]);
}

#[test]
fn clients_that_speak_first_keep_nobody_else_from_a_reply() {
    let ehlo = b"EHLO client.example.net\r\n".to_vec();
    horde(|_| Manner::Says(ehlo), 25, "10,000 that speak first, and never read", &["dropped_full"]);
}

#[test]
fn clients_that_send_a_megabyte_keep_nobody_else_from_a_reply() {
    horde(|_| Manner::Floods, 25, "10,000 that send a megabyte", &["dropped_full"]);
}

#[test]
fn clients_that_never_say_hello_keep_nobody_else_from_a_reply_inside_tls() {
    horde(|_| Manner::NeverReads, 993, "10,000 that never say hello", &["dropped_full", "over_budget"]);
}

#[test]
fn clients_that_say_hello_byte_by_byte_keep_nobody_else_from_a_reply_inside_tls() {
    let what = "10,000 that say hello byte by byte";
    horde(|full| Manner::Drips(hello(full)), 993, what, &["dropped_full", "over_budget"]);
}

#[test]
fn clients_that_never_finish_their_handshake_keep_nobody_else_from_a_reply_inside_tls() {
    let what = "10,000 that say hello and nothing more";
    horde(|full| Manner::Says(hello(full)), 993, what, &["dropped_full", "over_budget"]);
}

#[test]
fn clients_that_send_a_megabyte_keep_nobody_else_from_a_reply_inside_tls() {
    horde(|_| Manner::Floods, 993, "10,000 that send a megabyte to TLS", &["dropped_full", "over_budget"]);
}

/// In the names of sources that are refused, so all of them go to the greeter's listener. It has SYN cookies, as every
/// listener: without them (`tcp_syncookies = 0`) its queue is full of what is forged.
#[test]
fn a_flood_of_forged_syns_at_the_greeter_keeps_nobody_else_from_a_reply() {
    const BATCH: usize = 512;
    const PAUSE: Duration = Duration::from_millis(10);
    let Some(full) = Full::new(ATTACKERS.sources + 1) else { return };
    full.lab.lose_resets_of_the_client();
    let mut random = Random::new(1);
    let mut forged = || {
        let from = source(random.below(ATTACKERS.sources.into()) as u16);
        let port = 1_024 + random.below(60_000) as u16;
        let seq = random.below(1 << 32) as u32;
        Segment::new(SocketAddr::new(from, port), family(from).port(25), SYN, seq, 0).frame()
    };
    let frames: Vec<Vec<u8>> = (0..100 * BATCH).map(|_| forged()).collect();
    let cookies = || proc_net::counter(&full.lab.host, "SyncookiesSent").unwrap();
    let (wire, over, sent) = (Wire::to_send(&full.lab), AtomicBool::new(false), AtomicU64::new(0));
    is_heard(&full, 25, "forged SYNs of ten refused sources", |measure| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for batch in frames.chunks(BATCH).cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                    wire.send_frames(batch);
                    sent.fetch_add(BATCH as u64, Ordering::Relaxed);
                    let_time_pass(PAUSE, "the pace of the flood");
                }
            });
            let _end = EndOf(&over);
            eventually("the greeter's queue is full", SOON, || match cookies() {
                0 => Err("no cookie is sent".to_owned()),
                _ => Ok(()),
            });
            let (begun, before) = (Instant::now(), sent.load(Ordering::Relaxed));
            measure();
            let sent = sent.load(Ordering::Relaxed) - before;
            let rate = u128::from(sent) * 1_000 / begun.elapsed().as_millis().max(1);
            say(&format!("  {rate} forged SYNs a second, {} cookies", cookies()));
        });
    });
}
