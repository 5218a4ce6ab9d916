// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the kernel says of the limiter's programs: its own statistics, which cost some time themselves, so
//! they are on only here.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd as _},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    maps::{MapData, MapInfo},
    programs::{ProgramInfo, loaded_programs},
    sys::{Stats, enable_stats},
};
use serde::Serialize;

use super::{
    bulk, cell,
    hosts::Host,
    lab::{Lab, port},
    plan::{Contestant, Plan, Workload},
    prepare::prepare,
};

/// The programs on the way of a connection.
const PROGRAMS: [&str; 5] = ["admission", "destroy", "gate", "ledger", "release"];

/// Where they are looked at.
const WORKLOADS: [Workload; 6] = [
    Workload::Accept { sources: 1 },
    Workload::Accept { sources: 1000 },
    Workload::Held(8000),
    Workload::Reset,
    Workload::Reply,
    Workload::BulkMail,
];

/// One program, at one workload.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The name of the workload.
    pub workload: String,
    /// One run, in nanoseconds, with what the statistics themselves take.
    pub ns_per_run: f64,
    /// Runs for each connection; for each MB of bulk.
    pub runs_per_unit: f64,
    /// Instructions the verifier looked at.
    pub verified: u64,
    /// Bytes of machine code.
    pub jited: u32,
}

/// Memory of what the limiter has in the kernel.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// Who.
    pub contestant: String,
    /// Of all maps, in bytes.
    pub maps: u64,
    /// Of the ledger, in bytes.
    pub ledger: u64,
    /// What of that is there without any source, in bytes: the buckets of its hash.
    pub empty_ledger: u64,
    /// Sources in it.
    pub sources: u64,
}

/// What a program has done so far.
#[derive(Clone, Copy, Default)]
struct Runs {
    ns: u64,
    count: u64,
}

/// Looks at each program at each workload.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn measure(lab: &Lab, host: &mut Host, plan: &Plan) -> Result<Vec<Program>> {
    let found = find(host)?;
    let _as_long_as_this_is_open = enable_stats(Stats::RunTime).context("the kernel keeps no statistics")?;
    let mut programs = Vec::new();
    for workload in WORKLOADS {
        let held = prepare(lab, host, workload)?;
        let (before, after, units) = if workload.is_bulk() {
            bulk::run(lab, host.place, port::ADMITS, |sent| {
                watch(&found, plan, || sent.load(std::sync::atomic::Ordering::Relaxed) as f64 / 1e6)
            })?
        } else {
            let load = cell::load(host, workload);
            let done =
                |tally: &super::load::Tally| tally.done.load(std::sync::atomic::Ordering::Relaxed) as f64;
            load.run(lab, |tally| watch(&found, plan, || done(tally)))?.0
        };
        drop(held);
        host.set(super::server::Mode::Close)?;
        for ((name, info), (before, after)) in found.iter().zip(before.iter().zip(&after)) {
            let (ns, count) = ((after.ns - before.ns) as f64, (after.count - before.count) as f64);
            programs.push(Program {
                name: name.clone(),
                workload: workload.name(),
                ns_per_run: if count > 0.0 { ns / count } else { 0.0 },
                runs_per_unit: if units > 0.0 { count / units } else { 0.0 },
                verified: info.verified_instruction_count().unwrap_or(0).into(),
                jited: info.size_jitted(),
            });
        }
    }
    Ok(programs)
}

/// The programs' runs before and after a window, and what was done meanwhile.
fn watch(
    found: &[(String, ProgramInfo)],
    plan: &Plan,
    done: impl Fn() -> f64,
) -> Result<(Vec<Runs>, Vec<Runs>, f64)> {
    let runs = || found.iter().map(|(_, info)| runs(info)).collect::<Result<Vec<_>>>();
    thread::sleep(plan.run_up);
    let (before, begun) = (runs()?, done());
    thread::sleep(plan.window);
    let (after, ended) = (runs()?, done());
    Ok((before, after, ended - begun))
}

/// The programs of this host's limiter: those that use its ledger.
fn find(host: &Host) -> Result<Vec<(String, ProgramInfo)>> {
    let limiter = host.limiter.as_ref().context("limiter is not running")?;
    let ledger = MapInfo::from_pin(limiter.pins().join("LEDGER"))?.id();
    let mut found = Vec::new();
    for info in loaded_programs() {
        // One may be unloaded meanwhile.
        let Ok(info) = info else { continue };
        let Some(name) = info.name_as_str().map(ToOwned::to_owned) else { continue };
        let is_ours = || info.map_ids().ok().flatten().is_some_and(|ids| ids.contains(&ledger));
        if PROGRAMS.contains(&name.as_str()) && is_ours() {
            found.push((name, info));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn runs(info: &ProgramInfo) -> Result<Runs> {
    let fd = info.fd()?;
    let of = |name| field(&fd, name);
    Ok(Runs { ns: of("run_time_ns:")?, count: of("run_cnt:")? })
}

/// A number that the kernel tells of a descriptor.
fn field(fd: &impl AsFd, name: &str) -> Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    let value = info.lines().find_map(|line| line.strip_prefix(name));
    value
        .and_then(|value| value.trim().parse().ok())
        .ok_or_else(|| anyhow!("this kernel does not report {name}"))
}

/// What the maps of each limiter take.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn memory(hosts: &[Host]) -> Result<Vec<Memory>> {
    let mut memory = Vec::new();
    for host in hosts {
        let Some(limiter) = &host.limiter else { continue };
        // Its maps may be of another layout.
        if host.contestant == Contestant::LimiterOther {
            continue;
        }
        let mut maps = 0;
        for pin in fs::read_dir(limiter.pins())? {
            // Links and programs are pinned there, too.
            maps += memlock(&pin?.path()).unwrap_or(0);
        }
        let path = limiter.pins().join("LEDGER");
        let info = MapInfo::from_pin(&path)?;
        let ledger: aya::maps::HashMap<_, limiter_common::Key, limiter_common::Entry> =
            aya::maps::Map::HashMap(MapData::from_pin(&path)?).try_into()?;
        memory.push(Memory {
            contestant: host.contestant.to_string(),
            maps,
            ledger: memlock(&path)?,
            // A list head of 16 bytes for each bucket (`struct bucket`, kernel/bpf/hashtab.c).
            empty_ledger: u64::from(info.max_entries().next_power_of_two()) * 16,
            sources: ledger.keys().count() as u64,
        });
    }
    Ok(memory)
}

fn memlock(pin: &Path) -> Result<u64> {
    field(&MapInfo::from_pin(pin)?.fd()?, "memlock:")
}
