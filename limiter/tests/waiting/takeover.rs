//! Five hundred handshakes at once, from all CPUs, while the daemon is killed and another takes over.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::crowd::{Caller, Crowd, Record};
use crate::figures::{from_environment, ms, say, summary};
use crate::ground::{Ground, SMTP, all_is_well, alone, nothing_is_left};
use crate::support::{Family, SOON, V4, V6, eventually};

const LIMIT: usize = 8;
const CLIENTS: usize = 500;
const STAY: Duration = Duration::from_millis(100);
/// Room for every handshake: what is tested is the limiter, not the kernel's queue.
const ROOM: i32 = 1024;
/// When the kernel repeats the SYN-ACK for the last time (`net.ipv4.tcp_synack_retries` is 5): nobody waits
/// for longer, whatever becomes of the daemon.
const LAST_REPETITION: Duration = Duration::from_secs(63);

/// The CPUs this process may run on.
fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the kernel tells");
    (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect()
}

/// All at once; each CPU has its share of the clients. The daemon is killed when the first of them are served.
fn round(ground: &mut Ground, family: Family) -> Vec<Record> {
    let cpus = cpus();
    let start = Barrier::new(cpus.len());
    let Ground { lab, server, limiter, .. } = ground;
    let before = server.visits().len();
    let (lab, start) = (&*lab, &start);
    std::thread::scope(|scope| {
        let share = CLIENTS / cpus.len();
        let crowd = |cpu: usize| {
            move || {
                let mut one = CpuSet::new();
                one.set(cpu).expect("the kernel named it");
                sched_setaffinity(Pid::from_raw(0), &one).expect("it is one of those allowed");
                lab.client.enter();
                let callers = Caller::crowd(share, family.source(), family.port(SMTP), STAY);
                let crowd = Crowd { callers, patience: LAST_REPETITION + SOON, again: None, link: None };
                start.wait();
                crowd.call_here()
            }
        };
        let crowds: Vec<_> = cpus.iter().map(|cpu| scope.spawn(crowd(*cpu))).collect();
        eventually("the first are served", SOON, || {
            if server.visits().len() > before { Ok(()) } else { Err("nobody".to_owned()) }
        });
        limiter.kill();
        limiter.run();
        crowds.into_iter().flat_map(|crowd| crowd.join().expect("the clients do not fail")).collect()
    })
}

#[test]
fn while_daemons_die_and_take_over_the_limit_is_exact_and_every_burst_comes_to_an_end() {
    let _machine = alone();
    let Some(mut ground) = Ground::near(LIMIT as u32, ROOM) else { return };
    let rounds = from_environment("LIMITER_ROUNDS", 5);
    let mut longest = Duration::ZERO;
    for (nth, family) in (1..=rounds).zip([V4, V6].into_iter().cycle()) {
        let began = Instant::now();
        let records = round(&mut ground, family);
        let took = began.elapsed();
        let too_long = records.iter().filter(|record| record.silence() > LAST_REPETITION);
        let mut complaints: Vec<String> = too_long
            .map(|record| format!("{} heard nothing for {:?}", record.local, record.silence()))
            .collect();
        complaints.extend(ground.excess(family.source(), LIMIT));
        let summary = format!("takeover {nth} of {rounds}, {}: {}", ms(took), summary(&records));
        longest = longest.max(records.iter().map(Record::silence).max().unwrap_or_default());
        if nth <= 5 || nth % 10 == 0 {
            say(&summary);
        }
        all_is_well(&complaints, &summary);
        nothing_is_left(&ground.lab, &ground.limiter, LAST_REPETITION + SOON);
    }
    say(&format!("takeover, {rounds} rounds: the longest silence {}", ms(longest)));
}
