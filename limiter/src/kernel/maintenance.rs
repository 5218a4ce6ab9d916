// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon's side of the maintenance program: requests that only the kernel can run in one atomic step.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    TestRun as _, TestRunOptions,
    programs::{CgroupSkb, CgroupSkbAttachType},
};
use bytemuck::Zeroable as _;
use limiter_common::{
    Count, Key,
    maintenance::{BATCH, MaintenanceRequest, Step, step},
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use rustix::fs::{FlockOperation, flock};

use super::{pins, tables::Tables};
use crate::instance::Instance;

/// Runs requests.
pub struct Maintenance {
    program: CgroupSkb,
    /// Held while a request runs: there is one place to write it.
    lock: File,
    /// The maps.
    pub tables: Tables,
    /// The generation pending on each CPU when last looked at.
    generations: Vec<u64>,
}

impl Maintenance {
    /// The maintenance program pinned in `dir`, with the maps there.
    pub fn open(instance: &Instance, dir: &Path) -> Result<Self> {
        let path = dir.join(pins::MAINTENANCE);
        let program = CgroupSkb::from_pin(&path, CgroupSkbAttachType::Ingress)
            .with_context(|| format!("cannot open the program {}", path.display()))?;
        let lock = instance.maintenance_lock()?;
        Ok(Self { program, lock, tables: Tables::open(dir)?, generations: Vec::new() })
    }

    /// Deletes the entries of `keys` that nothing uses; returns how many were.
    pub fn collect(&mut self, keys: &[Key]) -> Result<u32> {
        self.run_all(keys.iter().map(|&key| Step { step: step::COLLECT, key, ..Step::default() }))
    }

    /// Removes the records of sockets that are gone; returns how many there were.
    pub fn forget(&mut self, cookies: impl Iterator<Item = u64>) -> Result<u32> {
        self.run_all(cookies.map(|cookie| Step {
            step: step::FORGET,
            from: Count(cookie),
            ..Step::default()
        }))
    }

    /// Begins the recent peaks of these sources anew that still are what was seen; returns how many.
    pub fn begin_peaks(&mut self, seen: impl Iterator<Item = (Key, u32)>) -> Result<u32> {
        self.run_all(seen.map(|(key, peak)| Step {
            step: step::BEGIN_PEAK,
            key,
            from: Count(peak.into()),
            ..Step::default()
        }))
    }

    /// Does one step; `false` if things were not as it expects, and nothing was changed.
    pub fn correct(&mut self, step: Step) -> Result<bool> {
        Ok(self.run(&[step])?.done == 1)
    }

    /// Gives back reservations whose packet came to nothing and was followed by no other on its CPU:
    /// those that were pending at the last call already. Returns how many. The calling thread moves
    /// to those CPUs and back, so it should be one of its own. To be called a second or so apart: no packet may be
    /// under way from one call to the next.
    pub fn cancel_stale(&mut self) -> Result<u32> {
        let generations: Vec<u64> = self.tables.pending()?.iter().map(|pending| pending.generation).collect();
        let before = std::mem::replace(&mut self.generations, generations);
        let stale: Vec<usize> = (0..before.len())
            .filter(|&cpu| before[cpu] != 0 && self.generations.get(cpu) == Some(&before[cpu]))
            .collect();
        let mut cancelled = 0;
        if !stale.is_empty() {
            let home = sched_getaffinity(Pid::from_raw(0))?;
            for cpu in stale {
                let mut only = CpuSet::new();
                only.set(cpu)?;
                cancelled += match sched_setaffinity(Pid::from_raw(0), &only) {
                    Ok(()) => self.run(&[])?.cancelled,
                    // It is offline, or not for this process (cpuset), and may get no packet for long. No packet takes
                    // as long as from one look to the next.
                    Err(_) => self.cancel_of(cpu, before[cpu])?,
                };
            }
            sched_setaffinity(Pid::from_raw(0), &home)?;
        }
        Ok(cancelled)
    }

    /// Gives back the reservation with this generation on a CPU where this process may not run; returns how many.
    fn cancel_of(&mut self, cpu: usize, generation: u64) -> Result<u32> {
        Ok(self
            .run_request(&MaintenanceRequest {
                cpu: cpu as u32 + 1,
                generation,
                ..MaintenanceRequest::zeroed()
            })?
            .cancelled)
    }

    /// Runs as many requests as it takes; returns how many steps were done.
    fn run_all(&mut self, steps: impl Iterator<Item = Step>) -> Result<u32> {
        let steps: Vec<Step> = steps.collect();
        let mut done = 0;
        for batch in steps.chunks(BATCH) {
            done += self.run(batch)?.done;
        }
        Ok(done)
    }

    /// Runs one request of at most [`BATCH`] steps.
    fn run(&mut self, steps: &[Step]) -> Result<MaintenanceRequest> {
        let mut request = MaintenanceRequest { asked: steps.len() as u32, ..MaintenanceRequest::zeroed() };
        request.steps[..steps.len()].copy_from_slice(steps);
        self.run_request(&request)
    }

    fn run_request(&mut self, request: &MaintenanceRequest) -> Result<MaintenanceRequest> {
        flock(&self.lock, FlockOperation::LockExclusive).context("cannot lock the request")?;
        let ran = self.run_locked(request);
        // If it stays locked, it is for others: this process has it, and goes on.
        let _stays = flock(&self.lock, FlockOperation::Unlock);
        ran
    }

    fn run_locked(&mut self, request: &MaintenanceRequest) -> Result<MaintenanceRequest> {
        self.tables.set_maintenance_request(request)?;
        // The kernel takes no packet shorter than an Ethernet header (bpf_prog_test_run_skb).
        let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::new() };
        self.program.test_run(options).context("the maintenance program did not run")?;
        self.tables.maintenance_request()
    }
}
