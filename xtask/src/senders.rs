// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo xtask senders`: how long mail servers take to hand over a queue to a host that lets a source hold three
//! connections; with the receiving server's own limit, and with the limiter's.
//!
//! Limits are for those who mean harm; whoever means well and has much to say must not suffer. What a refusal costs
//! them is up to their mail server: one that is told 421 may come again in minutes, one that is told nothing waits.
//!
//! Each turn has two hosts of its own, network namespaces on a wire or on a link with a delay. They mostly wait, so
//! several are taken at a time.

mod cell;
mod exim;
pub mod host;
pub mod mailer;
pub mod mailers;
mod opensmtpd;
pub mod plan;
mod postfix;
pub mod setting;
mod table;
mod watch;

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use clap::{Args, value_parser};
use limiter_lab::{interrupt, sweep};

use crate::{
    bpffs, build, packages, paths, privilege,
    unpacked::{EXIM, OPENSMTPD},
};
use cell::{Course, Outcome};
use plan::{Cell, Filter, Limit, Mta, Timers, Way};
use setting::MESSAGES;

/// Arguments of the verb.
#[derive(Args)]
pub struct Senders {
    /// Measure this limiter [default: the one built here]
    #[arg(long, value_name = "FILE")]
    limiter: Option<PathBuf>,
    /// Measure the limit of the receiving mail server instead
    #[arg(long, conflicts_with = "limiter")]
    own_limit: bool,
    /// Run only the shortest measurement: from Exim to Postfix on a wire, with scaled timers
    #[arg(long, conflicts_with_all = ["sender", "receiver", "way", "timers"])]
    quick: bool,
    /// Measure only this sender; this option and the next three may be repeated
    #[arg(long)]
    sender: Vec<Mta>,
    /// Measure only this receiver
    #[arg(long)]
    receiver: Vec<Mta>,
    /// Measure only this path between them
    #[arg(long)]
    way: Vec<Way>,
    /// Measure only these retry times
    #[arg(long)]
    timers: Vec<Timers>,
    /// Give up a measurement after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 450, value_parser = value_parser!(u64).range(1..=86_400))]
    patience: u64,
    /// Run this many measurements at a time
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u8).range(1..=32))]
    parallel: u8,
    /// Size of each message
    #[arg(long, value_name = "KIB", default_value_t = 1, value_parser = value_parser!(u16).range(1..=5_000))]
    size: u16,
    /// Set this key of the service in limiter's configuration, as in `max_connections=5`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Skip the build; set when xtask restarts itself as root
    #[arg(long, hide = true)]
    built: bool,
}

impl Senders {
    /// Builds, measures and prints the table.
    ///
    /// # Errors
    ///
    /// When it does not build, cannot become root, is interrupted, or a turn cannot be taken.
    pub fn run(&self) -> Result<()> {
        if !self.built {
            if self.limiter.is_none() && !self.own_limit {
                build::object()?;
                build::limiter(true)?;
            }
            packages::ensure(packages::SENDERS)?;
            for unpacked in [EXIM, OPENSMTPD] {
                unpacked.ensure("sends, and is sent to")?;
            }
            bpffs::ensure()?;
        }
        if !privilege::is_root() {
            return privilege::again();
        }
        // Before there is anything to leave behind.
        interrupt::hold()?;
        sweep::SENDERS.sweep()?;
        let limiter = match &self.limiter {
            Some(limiter) => std::path::absolute(limiter)?,
            None => paths::limiter("release")?,
        };
        let name = sweep::SENDERS.ours();
        let course = Course {
            name: &name,
            limiter: &limiter,
            message: &mailer::message(self.size.into()),
            settings: &self.set.join("\n"),
            patience: Duration::from_secs(self.patience),
            turn: Mutex::new(()),
        };
        let turns = self.take_all(&course, &self.cells());
        interrupt::check()?;
        print!("{}\n{}; {}\n", table::table(&turns), EXIM.version(), OPENSMTPD.version());
        if turns.iter().any(|(_, outcome)| outcome.is_err()) {
            return Err(anyhow!("some runs failed"));
        }
        Ok(())
    }

    fn cells(&self) -> Vec<Cell> {
        let limit = if self.own_limit { Limit::Own } else { Limit::Limiter };
        if self.quick {
            return vec![plan::smallest(limit)];
        }
        let (senders, receivers) = (self.sender.as_slice(), self.receiver.as_slice());
        let filter = Filter { senders, receivers, ways: &self.way, timers: &self.timers };
        plan::cells(limit, &filter)
    }

    /// Takes several turns at a time, and says of each when it is over.
    fn take_all(&self, course: &Course<'_>, cells: &[Cell]) -> Vec<(Cell, Result<Outcome, String>)> {
        let begin = Instant::now();
        let next = Mutex::new(cells.iter().enumerate());
        let done = Mutex::new(Vec::new());
        let take = || {
            loop {
                let turn = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((number, cell)) = turn.filter(|_| interrupt::check().is_ok()) else { return };
                let outcome = course.take(number, *cell).map_err(|error| format!("{error:#}"));
                let said = match &outcome {
                    Ok(Outcome { arrived, last, counted, .. }) => {
                        format!("{arrived} of {MESSAGES} after {last:.1?} {counted}")
                    }
                    Err(error) => error.clone(),
                };
                eprintln!("{:4} s  {}: {}", begin.elapsed().as_secs(), table::title(*cell), said.trim_end());
                done.lock().unwrap_or_else(PoisonError::into_inner).push((number, outcome));
            }
        };
        thread::scope(|scope| {
            for _ in 0..usize::from(self.parallel).min(cells.len()) {
                scope.spawn(take);
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(number, _)| *number);
        done.into_iter().filter_map(|(number, outcome)| Some((*cells.get(number)?, outcome))).collect()
    }
}
