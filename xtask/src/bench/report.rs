// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What was measured: a table in the terminal, a page of the documents, JSON, and pictures.

mod document;
mod picture;
mod table;

use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    cell::Sample,
    machine::Machine,
    plan::{Contestant, Workload},
    programs::{Memory, Program},
    statistics::Spread,
};
use crate::paths;

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

/// One workload.
#[derive(Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What it is.
    pub title: String,
    /// What one should know of it.
    pub remark: &'static str,
    /// Whether megabytes were counted.
    pub is_bulk: bool,
    /// Everyone's, in the order of the rounds; the first is who the others are compared with.
    pub contestants: Vec<Figures>,
}

/// One contestant at one workload.
#[derive(Serialize)]
pub struct Figures {
    /// Who.
    pub contestant: Contestant,
    /// Connections, or MB, in a second.
    pub rate: Spread,
    /// The same over that of the first, within each round; nothing where the first did not take part.
    pub rate_ratio: Option<Spread>,
    /// Processor time of one, in microseconds, everyone's together.
    pub cpu_us: Spread,
    /// The same over that of the first, within each round.
    pub cpu_ratio: Option<Spread>,
    /// Processor time of one, in microseconds, of the contestant's own processes.
    pub own_cpu_us: Spread,
    /// Half were over within, in microseconds.
    pub p50_us: Spread,
    /// 99 of 100.
    pub p99_us: Spread,
    /// The longest of all rounds.
    pub max_us: f64,
    /// How many went as they should not, in all rounds.
    pub failed: u64,
    /// SYNs of a flood in a second.
    pub flood: Spread,
    /// Memory of the contestant's processes, in KiB.
    pub memory_kib: Spread,
    /// Every round.
    pub rounds: Vec<Sample>,
}

/// A table with its words.
struct Section {
    title: String,
    rows: table::Rows,
    remark: &'static str,
}

impl Outcome {
    /// Reckons.
    pub fn new(workload: Workload, samples: Vec<(Contestant, Vec<Sample>)>) -> Self {
        let column =
            |samples: &[Sample], value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<_>>();
        let first = samples.first().filter(|(contestant, _)| *contestant == workload.contestants()[0]);
        let first = first.map(|(_, samples)| samples.clone());
        let ratio = |samples: &[Sample], value: fn(&Sample) -> f64| {
            let first = first.as_ref()?;
            Some(Spread::of_ratios(&column(samples, value), &column(first, value)))
        };
        let figures = |(contestant, samples): (Contestant, Vec<Sample>)| {
            let spread = |value: fn(&Sample) -> f64| Spread::of(column(&samples, value));
            Figures {
                contestant,
                rate: spread(|sample| sample.rate),
                rate_ratio: ratio(&samples, |sample| sample.rate),
                cpu_us: spread(|sample| sample.cpu_us),
                cpu_ratio: ratio(&samples, |sample| sample.cpu_us),
                own_cpu_us: spread(|sample| sample.own_cpu_us),
                p50_us: spread(|sample| sample.p50_us),
                p99_us: spread(|sample| sample.p99_us),
                max_us: spread(|sample| sample.max_us).max,
                failed: samples.iter().map(|sample| sample.failed).sum(),
                flood: spread(|sample| sample.flood),
                memory_kib: spread(|sample| sample.memory_kib as f64),
                rounds: samples,
            }
        };
        Self {
            name: workload.name(),
            title: workload.title(),
            remark: workload.remark(),
            is_bulk: workload.is_bulk(),
            contestants: samples.into_iter().map(figures).collect(),
        }
    }

    /// Who did not once do what it should, and what it did instead.
    pub fn first_that_did_nothing(&self) -> Option<(Contestant, String)> {
        let idle = self.contestants.iter().find(|figures| figures.rate.max <= 0.0)?;
        let failure = idle.rounds.iter().find_map(|sample| sample.failure.clone());
        Some((idle.contestant, failure.unwrap_or_else(|| "no results".into())))
    }
}

impl Report {
    /// Prints it.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn show(&self) -> Result<()> {
        use std::io::Write as _;

        let sections = self.sections().into_iter().map(|Section { title, rows, remark }| {
            format!("\n{title}\n{}\n{remark}\n", table::for_people(&rows))
        });
        let text = format!("{}\n{}", self.preamble(), sections.collect::<Vec<_>>().concat());
        Ok(write!(std::io::stdout().lock(), "{text}")?)
    }

    /// Writes JSON and pictures.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn save(&self) -> Result<()> {
        let folder = paths::root().join("target/bench");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let json = folder.join("report.json");
        fs::write(&json, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", json.display()))?;
        for outcome in &self.outcomes {
            picture::draw(outcome, &folder.join(format!("{}.svg", outcome.name)))?;
        }
        eprintln!("\nwritten: {} and an SVG for each workload beside it", json.display());
        Ok(())
    }

    /// Puts the tables into the page about performance.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or has no place for them.
    pub fn write(&self) -> Result<()> {
        let page = paths::root().join("docs/performance.md");
        let context = || format!("cannot read {}", page.display());
        let present = fs::read_to_string(&page).with_context(context)?;
        let new = document::replace(&present, &document::tables(self))?;
        fs::write(&page, new).with_context(|| format!("cannot write {}", page.display()))?;
        eprintln!("written: {}", page.display());
        Ok(())
    }

    /// What there is to show.
    fn sections(&self) -> Vec<Section> {
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
    fn preamble(&self) -> String {
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
