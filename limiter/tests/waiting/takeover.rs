// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Five hundred handshakes at once, from all CPUs, while the daemon is killed and another takes over.

use std::time::{Duration, Instant};

use crate::crowd::{Caller, Crowd, Record};
use crate::figures::{from_environment, ms, summary};
use crate::setup::{SMTP, Setup, all_is_well, alone, gently, nothing_is_left};
use limiter_lab::{Family, SOON, V4, V6, eventually, say};

const LIMIT: usize = 8;
const CLIENTS: usize = 500;
const STAY: Duration = Duration::from_millis(100);
/// Room for every handshake: what is tested is the limiter, not the kernel's queue.
const ROOM: i32 = 1024;
/// When the kernel repeats the SYN-ACK for the last time (`net.ipv4.tcp_synack_retries` is 5): nobody waits
/// for longer, whatever becomes of the daemon.
const LAST_REPETITION: Duration = Duration::from_secs(63);

/// All at once; each CPU has its share of the clients. The daemon is killed when the first of them are served.
fn round(setup: &mut Setup, family: Family) -> Vec<Record> {
    let Setup { lab, server, limiter, link, .. } = setup;
    let crowd = Crowd {
        callers: Caller::crowd(CLIENTS, family.source(), family.port(SMTP), STAY),
        patience: LAST_REPETITION + SOON,
        again: None,
        link: link.as_ref(),
    };
    let (before, lab) = (server.visits().len(), &*lab);
    std::thread::scope(|scope| {
        let calls = scope.spawn(|| crowd.call_on_all_cpus(lab));
        eventually("the first are served", SOON, || {
            if server.visits().len() > before { Ok(()) } else { Err("nobody".to_owned()) }
        });
        limiter.kill();
        limiter.run();
        calls.join().expect("the clients do not fail")
    })
}

/// `rounds` of them, unless the environment says otherwise.
fn rounds(rtt: Option<Duration>, rounds: u64) {
    let Some(mut setup) = Setup::busy(LIMIT as u32, ROOM, rtt) else { return };
    let rounds = from_environment("LIMITER_ROUNDS", rounds);
    let mut longest = Duration::ZERO;
    for (nth, family) in (1..=rounds).zip([V4, V6].into_iter().cycle()) {
        let began = Instant::now();
        let records = round(&mut setup, family);
        let took = began.elapsed();
        let too_long = records.iter().filter(|record| record.silence() > LAST_REPETITION);
        let mut complaints: Vec<String> = too_long
            .map(|record| format!("{} heard nothing for {:?}", record.local, record.silence()))
            .collect();
        complaints.extend(setup.excess(family.source()));
        let summary = format!(
            "takeover {nth} of {rounds}, rtt {}, {}: {}",
            ms(setup.rtt()),
            ms(took),
            summary(&records)
        );
        longest = longest.max(records.iter().map(Record::silence).max().unwrap_or_default());
        if nth <= 5 || nth % 10 == 0 {
            say(&summary);
        }
        all_is_well(&complaints, &summary);
        nothing_is_left(&setup.lab, &setup.limiter, LAST_REPETITION + SOON);
    }
    say(&format!("takeover, {rounds} rounds: the longest silence {}", ms(longest)));
}

#[test]
fn while_daemons_die_and_take_over_the_limit_is_exact_and_every_burst_comes_to_an_end() {
    let _machine = alone();
    rounds(None, 5);
}

/// Here all SYNs are judged before the first handshake is complete, and all but a few of them wait.
#[test]
fn while_daemons_die_and_take_over_those_who_wait_far_away_come_to_an_end_too() {
    let _machine = gently();
    rounds(Some(Duration::from_millis(50)), 2);
}
