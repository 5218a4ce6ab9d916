// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the history costs where a million sources are known and 50,000 are active. Not among the usual tests: it takes
//! minutes. `cargo test --release -p limiter --test system -- history::million --ignored --nocapture`

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData};
use limiter_common::{Addr, Count, Entry, Key, ServiceId, ServicePolicy, service::Prefixes};
use nix::time::{ClockId, clock_gettime};

use limiter_lab::{Lab, Limiter, let_time_pass};

const KNOWN: u32 = 1_000_000;
const ACTIVE: u32 = 50_000;

/// Entries of sources, as the kernel would have them.
struct Ledger(HashMap<MapData, Key, Entry>);

impl Ledger {
    fn open(limiter: &Limiter) -> Self {
        let map = MapData::from_pin(limiter.pins().join("LEDGER")).unwrap();
        Self(HashMap::try_from(Map::HashMap(map)).unwrap())
    }

    fn put(&mut self, n: u32, entry: Entry) {
        let policy = ServicePolicy { source: Prefixes { ipv4: 32, ipv6: 64 }, ..ServicePolicy::default() };
        let address = IpAddr::from(Ipv4Addr::from(0x0b00_0000 + n));
        let key = Key::source(ServiceId(1), &policy, 0, &Addr::from(address));
        let last_seen_s = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().tv_sec() as u32;
        self.0.insert(key, Entry { tag: key.tag(), last_seen_s, ..entry }, 0).unwrap();
    }
}

/// Processor time of a process so far, and the most memory it had.
fn usage(pid: u32) -> (Duration, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    (Duration::from_millis(ticks * 10), kib / 1024)
}

fn bytes(limiter: &Limiter) -> u64 {
    let path = limiter.history_path().display().to_string();
    let length = |end: &str| fs::metadata(format!("{path}{end}")).map_or(0, |about| about.len());
    length("") + length("-wal")
}

/// One source in a hundred is near its limit.
fn connections(n: u32) -> u32 {
    if n.is_multiple_of(100) { 12 } else { 2 }
}

#[test]
#[ignore = "it takes minutes, and says figures"]
fn a_million_sources_known_and_fifty_thousand_active_cost_little() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let minutes: u32 = std::env::var("MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let has_history = std::env::var("HISTORY").map_or(true, |word| word != "false");
    let config = format!(
        "{}max_sources = {}\nremember_seconds = 86400\nreconcile_seconds = 86400\n",
        if has_history { "" } else { "history = false\n" },
        KNOWN + KNOWN / 8
    );
    let limiter = Limiter::start_with(&lab, &config);
    let pid = limiter.pid().unwrap();
    let_time_pass(Duration::from_secs(4), "it compares once");
    let mut ledger = Ledger::open(&limiter);
    for n in 0..KNOWN {
        ledger.put(n, Entry { accepted: 3, peak: 2, ..Entry::default() });
    }
    let_time_pass(Duration::from_secs(70), "all are seen once");
    let (begin, before, empty) = (Instant::now(), usage(pid), bytes(&limiter));
    for minute in 0..minutes {
        // Others each minute, so that all are active in turn.
        let first = minute * ACTIVE / 4 % KNOWN;
        for n in first..first + ACTIVE {
            let now = connections(n);
            let entry = Entry {
                accepted: 4 + minute,
                peak: 2,
                recent_peak: now + 1,
                count: Count(now.into()),
                ..Entry::default()
            };
            ledger.put(n % KNOWN, entry);
        }
        let_time_pass((Duration::from_secs(60) * (minute + 1)).saturating_sub(begin.elapsed()), "a minute");
    }
    let (after, elapsed) = (usage(pid), begin.elapsed());
    let cpu = after.0.saturating_sub(before.0).as_secs_f64() / elapsed.as_secs_f64() * 100.0;
    println!(
        "history {has_history}: {KNOWN} sources known, {ACTIVE} active, {minutes} min: the daemon takes {cpu:.2} % of a processor, \
         {} MiB at most (VmHWM); the database grew from {empty} to {} bytes",
        after.1,
        bytes(&limiter)
    );
    if !has_history {
        return;
    }
    let asked = Instant::now();
    let answer = limiter.ok(&["history", "--since", "1h"]);
    println!("limiter history: {:?}, {} lines", asked.elapsed(), answer.lines().count());
    let asked = Instant::now();
    limiter.ok(&["history", "11.0.0.100", "--since", "30days"]);
    println!("limiter history ADDR --since 30days: {:?}", asked.elapsed());
    for arguments in [&["explain", "11.0.0.100"] as &[&str], &["doctor"]] {
        let asked = Instant::now();
        limiter.cli(arguments);
        println!("limiter {arguments:?}: {:?}", asked.elapsed());
    }
    assert!(cpu < 5.0 && after.1 < 200, "{cpu} %, {} MiB", after.1);
}
