// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The rounds: everyone is up, and takes a turn, and another.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use limiter_lab::{interrupt, limits, sweep};

use super::{
    cell::{self, Sample},
    hosts::Host,
    lab::Lab,
    machine,
    outcome::Outcome,
    plan::{Contestant, Plan, Workload},
    prepare::prepare,
    programs,
    report::Report,
    server::Mode,
};

/// Measures what is planned; `other` is the program of [`Contestant::LimiterOther`].
///
/// # Errors
///
/// When a contestant cannot be started or does nothing of what it should, or we are interrupted.
pub fn run(plan: &Plan, other: Option<&Path>, command: String) -> Result<Report> {
    sweep::BENCH.sweep()?;
    let turns: usize = plan.cells().iter().map(|(_, contestants)| contestants.len() * plan.rounds).sum();
    let bar = ProgressBar::new(turns as u64);
    bar.set_style(ProgressStyle::with_template("{elapsed_precise} {bar:40} {pos}/{len}  {msg}")?);

    let lab = Lab::new()?;
    let mut hosts = Vec::new();
    for contestant in Contestant::ALL.into_iter().filter(|&contestant| plan.needs(contestant)) {
        interrupt::check()?;
        bar.set_message(format!("{contestant} starts"));
        hosts.push(Host::start(&lab, contestant, other)?);
    }
    let mut outcomes = Vec::new();
    for (workload, contestants) in plan.cells() {
        outcomes.push(workload_of(&lab, &mut hosts, *workload, contestants, plan, &bar)?);
    }
    bar.set_message("the kernel programs");
    let programs = match hosts.iter_mut().find(|host| host.contestant == Contestant::Limiter) {
        Some(host) => programs::measure(&lab, host, plan)?,
        None => Vec::new(),
    };
    let memory = programs::memory(&hosts)?;
    bar.finish_and_clear();
    Ok(Report { command, quick: plan.quick, machine: machine::describe(plan)?, outcomes, programs, memory })
}

/// All rounds of a workload.
fn workload_of(
    lab: &Lab,
    hosts: &mut [Host],
    workload: Workload,
    contestants: &[Contestant],
    plan: &Plan,
    bar: &ProgressBar,
) -> Result<Outcome> {
    let files = limits::allow_many_files()?;
    let takes_part = |host: &&mut Host| {
        // Two files for each connection that it hands on.
        let is_too_much = host.contestant == Contestant::Haproxy
            && matches!(workload, Workload::Held(held) if 2 * held as u64 + 1000 > files);
        contestants.contains(&host.contestant) && !is_too_much
    };
    let mut hosts: Vec<_> = hosts.iter_mut().filter(takes_part).collect();
    // They are held as long as this lives.
    let mut prepared = Vec::new();
    for host in &mut hosts {
        bar.set_message(format!("{} {}, before", host.contestant, workload.name()));
        let contestant = host.contestant;
        let context = || format!("{contestant} is not ready for {}", workload.name());
        prepared.push(prepare(lab, host, workload).with_context(context)?);
    }
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); hosts.len()];
    for _ in 0..plan.rounds {
        for (host, samples) in hosts.iter_mut().zip(&mut samples) {
            interrupt::check()?;
            bar.set_message(format!("{} {}", host.contestant, workload.name()));
            let contestant = host.contestant;
            let context = || format!("{contestant} cannot be measured at {}", workload.name());
            samples.push(cell::measure(lab, host, workload, plan).with_context(context)?);
            bar.inc(1);
        }
    }
    drop(prepared);
    let outcome = Outcome::new(workload, hosts.iter().map(|host| host.contestant).zip(samples).collect());
    for host in &mut hosts {
        host.set(Mode::Close)?;
    }
    match outcome.first_that_did_nothing() {
        Some((contestant, failure)) => bail!("{contestant} did nothing of {}: {failure}", workload.name()),
        None => Ok(outcome),
    }
}
