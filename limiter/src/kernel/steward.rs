//! The daemon's side of the steward: errands that only the kernel can run in one atomic step.

use anyhow::{Context as _, Result};
use aya::{Ebpf, TestRun as _, TestRunOptions, programs::CgroupSkb};
use bytemuck::Zeroable as _;
use limiter_common::{
    Key,
    errand::{BATCH, Errand},
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::{object::program, tables::Tables};

/// Holds the loaded programs, and runs errands.
pub struct Steward {
    ebpf: Ebpf,
    /// The maps.
    pub tables: Tables,
    /// The ticket pending on each CPU when last looked at.
    tickets: Vec<u64>,
}

impl Steward {
    pub(super) const fn new(ebpf: Ebpf, tables: Tables) -> Self {
        Self { ebpf, tables, tickets: Vec::new() }
    }

    /// Deletes the entries of `keys` that nothing uses; returns how many were.
    pub fn collect(&mut self, keys: &[Key]) -> Result<u32> {
        let mut collected = 0;
        for batch in keys.chunks(BATCH) {
            let mut errand = Errand { asked: batch.len() as u32, ..Errand::zeroed() };
            errand.keys[..batch.len()].copy_from_slice(batch);
            collected += self.run(&errand)?.collected;
        }
        Ok(collected)
    }

    /// Gives back reservations whose packet came to nothing and was followed by no other on its CPU:
    /// those that were pending at the last call already. Returns how many. The calling thread moves
    /// to those CPUs and back, so it should be one of its own.
    pub fn cancel_stale(&mut self) -> Result<u32> {
        let tickets: Vec<u64> = self.tables.pending()?.iter().map(|pending| pending.ticket).collect();
        let before = std::mem::replace(&mut self.tickets, tickets);
        let stale: Vec<usize> = (0..before.len())
            .filter(|&cpu| before[cpu] != 0 && self.tickets.get(cpu) == Some(&before[cpu]))
            .collect();
        let mut cancelled = 0;
        if !stale.is_empty() {
            let home = sched_getaffinity(Pid::from_raw(0))?;
            for cpu in stale {
                let mut only = CpuSet::new();
                only.set(cpu)?;
                // Fails for a CPU this process may not use; its next packet gives the place back.
                if sched_setaffinity(Pid::from_raw(0), &only).is_ok() {
                    cancelled += self.run(&Errand::zeroed())?.cancelled;
                }
            }
            sched_setaffinity(Pid::from_raw(0), &home)?;
        }
        Ok(cancelled)
    }

    fn run(&mut self, errand: &Errand) -> Result<Errand> {
        self.tables.set_errand(errand)?;
        // The kernel takes no packet shorter than an Ethernet header (bpf_prog_test_run_skb).
        let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::new() };
        program::<CgroupSkb>(&mut self.ebpf, "steward")?
            .test_run(options)
            .context("the steward did not run")?;
        self.tables.errand()
    }
}
