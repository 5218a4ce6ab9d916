// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Everything that was measured, and its tables.

use serde::Serialize;

use super::table;
use crate::bench::{
    machine::Machine,
    outcome::Outcome,
    programs::{Memory, Program},
};

/// Everything.
#[derive(Serialize)]
pub struct Report {
    /// What was typed.
    pub command: String,
    /// Whether it was the quick one.
    pub quick: bool,
    /// Where.
    pub machine: Machine,
    /// Each workload.
    pub outcomes: Vec<Outcome>,
    /// The kernel's statistics of the limiter's programs.
    pub programs: Vec<Program>,
    /// What the limiters' maps take.
    pub memory: Vec<Memory>,
}

/// A table with its words.
pub struct Section {
    /// What it is of.
    pub title: String,
    /// Its lines.
    pub rows: table::Rows,
    /// What one should know of it; nothing where it is empty.
    pub remark: &'static str,
}

impl Report {
    /// What there is to show.
    pub fn sections(&self) -> Vec<Section> {
        let workloads = self.outcomes.iter().map(|outcome| Section {
            title: outcome.title.clone(),
            rows: table::outcome(outcome),
            remark: outcome.remark,
        });
        let programs = (!self.programs.is_empty()).then(|| Section {
            title: "Kernel programs".into(),
            rows: table::programs(&self.programs),
            remark: "By the kernel's statistics, which are on only here and take some of the time themselves; runs and \
                     ns are for each connection, or MB of bulk.",
        });
        let memory = (!self.memory.is_empty()).then(|| Section {
            title: "Kernel memory".into(),
            rows: table::memory(&self.memory),
            remark: "",
        });
        workloads.chain(programs).chain(memory).collect()
    }

    /// What, where, with what.
    pub fn preamble(&self) -> String {
        let machine = &self.machine;
        let versions = machine.versions.iter().map(|(name, version)| format!("{name}: {version}"));
        format!(
            "{}, commit {}\n{} x {}, {} MiB, Linux {}; mean load {:.1}\n{}",
            self.command,
            machine.commit,
            machine.processors,
            machine.processor,
            machine.memory_mib,
            machine.kernel,
            machine.load,
            versions.collect::<Vec<_>>().join("; ")
        )
    }
}
