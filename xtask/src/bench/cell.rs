// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One turn of one contestant at one workload.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use serde::Serialize;

use super::{
    bulk, flood,
    hosts::Host,
    lab::{Lab, MAX_SOURCES, port},
    load::{Expect, Load, Tally},
    plan::{Contestant, Plan, Workload},
};

/// Sources of the workloads with many.
const MANY: usize = 1000;
const _: () = assert!(MANY <= MAX_SOURCES);

/// Bytes of a megabyte.
const MEGABYTE: f64 = 1e6;

/// The time between two changes of what [`Contestant::LimiterChanged`] is.
const CHANGED_EACH: Duration = Duration::from_millis(500);

/// What one turn showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// Connections in a second that went as they should; MB of bulk.
    pub rate: f64,
    /// Processor time of each in microseconds: of clients, kernel and server together.
    pub cpu_us: f64,
    /// Of that, what the contestant's own processes took.
    pub own_cpu_us: f64,
    /// From connect to the end, in microseconds: half were within.
    pub p50_us: f64,
    /// 99 of 100 were within.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Connections that did not go as they should.
    pub failed: u64,
    /// What became of one of those.
    pub failure: Option<String>,
    /// Memory of its processes, in KiB.
    pub memory_kib: u64,
    /// SYNs of a flood in a second.
    pub flood: f64,
    /// How often its policy or its daemon was changed meanwhile.
    pub changed: u32,
}

/// What can be told at a moment.
struct Moment {
    at: Instant,
    done: u64,
    clients_us: i64,
    own_us: u64,
}

impl Moment {
    fn now(host: &Host, done: &AtomicU64) -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok(Self {
            at: Instant::now(),
            done: done.load(Ordering::Relaxed),
            clients_us: usage.user_time().num_microseconds() + usage.system_time().num_microseconds(),
            own_us: host.cgroup.cpu_us()?,
        })
    }

    fn until(&self, end: &Self, unit: f64) -> Sample {
        let done = (end.done - self.done) as f64 / unit;
        let each = |us: f64| if done > 0.0 { us / done } else { 0.0 };
        let own = (end.own_us - self.own_us) as f64;
        Sample {
            rate: done / end.at.duration_since(self.at).as_secs_f64(),
            cpu_us: each(own + (end.clients_us - self.clients_us) as f64),
            own_cpu_us: each(own),
            ..Sample::default()
        }
    }
}

/// The load of a workload on a host.
pub fn load(host: &Host, workload: Workload) -> Load {
    let (port, sources, expect) = match workload {
        Workload::Accept { sources } => (port::ADMITS, sources, Expect::Banner),
        Workload::Known | Workload::Reload | Workload::Takeover => (port::ADMITS, MANY, Expect::Banner),
        Workload::Held(_) | Workload::Flood | Workload::BulkMail | Workload::BulkOther => {
            (port::ADMITS, 1, Expect::Banner)
        }
        Workload::Reset => (port::RESETS, 1, Expect::Reset),
        Workload::Reply => (port::REPLIES, 1, Expect::Reply),
    };
    let says_quit = host.is_mail_server() && expect == Expect::Banner;
    Load { place: host.place, port, sources, says_quit, expect }
}

/// Takes a turn.
///
/// # Errors
///
/// When it cannot be measured.
pub fn measure(lab: &Lab, host: &mut Host, workload: Workload, plan: &Plan) -> Result<Sample> {
    let mut sample = match workload {
        Workload::BulkMail => bulk_turn(lab, host, port::ADMITS, plan)?,
        Workload::BulkOther => bulk_turn(lab, host, port::OTHER, plan)?,
        Workload::Flood => flood::run(lab, host.contestant, host.place, |sent| {
            let began = Instant::now();
            let (sample, times) = load(host, workload).run(lab, |tally| turn(host, workload, tally, plan))?;
            let flood = sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
            Ok(with_times(Sample { flood, ..sample }, times))
        })?,
        _ => {
            let (sample, times) = load(host, workload).run(lab, |tally| turn(host, workload, tally, plan))?;
            with_times(sample, times)
        }
    };
    sample.memory_kib = host.cgroup.memory_kib()?;
    Ok(sample)
}

fn bulk_turn(lab: &Lab, host: &Host, port: u16, plan: &Plan) -> Result<Sample> {
    bulk::run(lab, host.place, port, |sent| {
        thread::sleep(plan.run_up);
        let begin = Moment::now(host, sent)?;
        thread::sleep(plan.window);
        Ok(begin.until(&Moment::now(host, sent)?, MEGABYTE))
    })
}

fn turn(host: &mut Host, workload: Workload, tally: &Tally, plan: &Plan) -> Result<Sample> {
    thread::sleep(plan.run_up);
    let failed = tally.failed.load(Ordering::Relaxed);
    tally.noting.store(true, Ordering::Relaxed);
    let begin = Moment::now(host, &tally.done)?;
    let mut changed = 0;
    if host.contestant == Contestant::LimiterChanged {
        while begin.at.elapsed() < plan.window {
            change(host, workload).context("cannot apply the change")?;
            changed += 1;
            thread::sleep(CHANGED_EACH);
        }
    } else {
        thread::sleep(plan.window);
    }
    let mut sample = begin.until(&Moment::now(host, &tally.done)?, 1.0);
    sample.changed = changed;
    sample.failed = tally.failed.load(Ordering::Relaxed) - failed;
    sample.failure = tally.failure.lock().ok().and_then(|failure| failure.clone());
    Ok(sample)
}

fn change(host: &mut Host, workload: Workload) -> Result<()> {
    let Some(mut limiter) = host.limiter.take() else { return Ok(()) };
    let changed = if workload == Workload::Reload { limiter.reload(host) } else { limiter.replace(host) };
    host.limiter = Some(limiter);
    changed
}

fn with_times(mut sample: Sample, mut times: Vec<u32>) -> Sample {
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).copied().map_or(0.0, f64::from)
    };
    sample.p50_us = at(0.5);
    sample.p99_us = at(0.99);
    sample.max_us = at(1.0);
    sample
}
