// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What came of a workload: everyone's figures.

use serde::Serialize;

use super::{
    cell::Sample,
    plan::{Contestant, Workload},
    statistics::Spread,
};

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
