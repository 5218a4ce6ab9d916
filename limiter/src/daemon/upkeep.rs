// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The thread that keeps the ledger true and tidy, and the host's local addresses current.

use std::{
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use limiter_common::listening::MAX_ENDPOINTS;
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use super::{
    followed::{FollowedCgroup, FollowedNetns},
    refusals::Refusals,
};
use crate::{
    bans, changes,
    config::Config,
    greeter::tls,
    instance::Instance,
    kernel::{listening::Listening, maintenance::Maintenance},
    ledger, netlink, policy,
    reconcile::Reconciler,
    shield::Keeper,
};

/// How often, at most, the ledger is looked through for sources that are gone.
const COLLECT_EVERY: Duration = Duration::from_secs(10);
/// So many times as long as a look took, it does not look again: a hundredth of a processor, however many sources there are.
const COLLECT_REST: u32 = 100;
/// How often reservations that came to nothing are looked for.
const CANCEL_EVERY: Duration = Duration::from_secs(1);

/// A thread that waits for its work: who sends it, and what is told when the thread ends, for whatever reason.
///
/// # Errors
/// When this process may have no more threads.
pub fn thread() -> Result<(mpsc::Sender<Upkeep>, oneshot::Receiver<()>)> {
    let (work, begin) = mpsc::channel();
    let (lives, ended) = oneshot::channel();
    let run = move || {
        // Dropped when the thread unwinds, too.
        let _lives: oneshot::Sender<()> = lives;
        if let Ok(upkeep) = begin.recv() {
            Upkeep::run(upkeep);
        }
    };
    std::thread::Builder::new().name("upkeep".to_owned()).spawn(run).context("cannot start a thread")?;
    Ok((work, ended))
}

/// How long after a look through the ledger that took so long the next one is due, where idle sources are remembered for so
/// long. Who is gone stays in the ledger for that much longer; where there is no room for newcomers, the kernel makes some
/// itself ([`limiter_common::room`]).
fn collect_after(took: Duration, remember: Duration) -> Duration {
    COLLECT_EVERY.min(remember).max(took.saturating_mul(COLLECT_REST))
}

/// What keeps the ledger true and tidy.
pub struct Upkeep {
    pub cgroup: Option<FollowedCgroup>,
    pub netns: Option<FollowedNetns>,
    pub pins: PathBuf,
    pub maintenance: Maintenance,
    pub reconciler: Reconciler,
    pub instance: Instance,
    pub addresses: netlink::Watch,
    pub shield: Keeper,
    pub bans: bans::Upkeep,
    pub config: watch::Receiver<Config>,
    pub listening: Listening,
    /// Whether the kernel has once not told who listens.
    pub is_blind: bool,
    /// For how many endpoints there was no room in the last look.
    pub unknown_endpoints: usize,
    pub refusals: Refusals,
    pub certificates: tls::Keeper,
}

impl Upkeep {
    /// Goes on for as long as the process lives.
    pub fn run(mut self) {
        let (mut collected, mut took) = (Instant::now(), Duration::ZERO);
        let mut compared: Option<Instant> = None;
        loop {
            std::thread::sleep(CANCEL_EVERY);
            if let Some(cgroup) = &mut self.cgroup {
                cgroup.round();
            }
            if let Some(netns) = &mut self.netns {
                netns.round();
            }
            let (remember, reconcile) = self.times();
            if let Err(problem) = self.maintenance.cancel_stale() {
                error!("cannot give back stale reservations: {problem:#}");
            }
            if self.addresses.has_changed()
                && let Err(problem) = self.allow_local()
            {
                error!("cannot allow the host's local addresses: {problem:#}");
            }
            self.follow_listeners();
            if let Err(problem) = changes::tell(&self.instance) {
                error!("cannot log live changes: {problem:#}");
            }
            if let Err(problem) = self.refusals.round(&self.maintenance.tables) {
                error!("cannot log refusals: {problem:#}");
            }
            self.keep_certificates();
            let interfaces = self.config.borrow().interfaces.clone();
            self.shield.round(&interfaces);
            if let Err(problem) = self.bans.round(&self.instance, &mut self.maintenance.tables, remember) {
                error!("cannot maintain the bans: {problem:#}");
            }
            if collected.elapsed() >= collect_after(took, remember) {
                let begun = Instant::now();
                match ledger::collect(&mut self.maintenance, remember) {
                    Ok(0) => {}
                    Ok(sources) => info!("removed {sources} idle sources from the ledger"),
                    Err(problem) => error!("cannot scan the ledger: {problem:#}"),
                }
                (collected, took) = (Instant::now(), begun.elapsed());
            }
            if compared.is_none_or(|last| last.elapsed() >= self.reconciler.wait(reconcile)) {
                compared = Some(Instant::now());
                if let Err(problem) = self.reconciler.round(&self.pins, &mut self.maintenance) {
                    error!("cannot compare the ledger with the socket table: {problem:#}");
                }
            }
        }
    }
}

impl Upkeep {
    /// Keeps true what admission knows of listeners, and says once where it cannot.
    fn follow_listeners(&mut self) {
        match self.listening.round() {
            Ok(unknown) => {
                if unknown > 0 && self.unknown_endpoints == 0 {
                    warn!(
                        "programs listen at more than {MAX_ENDPOINTS} addresses and ports of services, and {unknown} of \
                         them are not known: clients that are refused there wait before they are told; listen at fewer \
                         addresses"
                    );
                }
                self.unknown_endpoints = unknown;
            }
            Err(problem) if !std::mem::replace(&mut self.is_blind, true) => {
                error!("{problem:#}; only listeners that opened after loading are known");
            }
            Err(_) => {}
        }
    }

    /// How long a source without connections is remembered, and how often the ledger is compared.
    fn times(&self) -> (Duration, Duration) {
        let config = self.config.borrow();
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        (seconds(config.remember_seconds), seconds(config.reconcile_seconds))
    }

    /// Has the greeter use the certificates that the files hold now.
    pub fn keep_certificates(&mut self) {
        let services = self.config.borrow().services.clone();
        self.certificates.round(&services, SystemTime::now());
    }

    /// Allows the addresses that the host has now, and no longer those it had.
    fn allow_local(&mut self) -> Result<()> {
        let _policy = self.instance.lock_policy()?;
        if policy::set_local(&mut self.maintenance.tables, policy::addresses()?)? {
            info!("the host's local addresses have changed: the new ones are allowed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_ledger_is_looked_through_less_often() {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        assert_eq!(collect_after(Duration::ZERO, s(600)), s(10));
        assert_eq!(collect_after(ms(1), s(600)), s(10));
        assert_eq!(collect_after(ms(500), s(600)), s(50));
        assert_eq!(
            collect_after(ms(1), s(2)),
            s(2),
            "who is remembered for so short a time is forgotten in time"
        );
        assert_eq!(collect_after(ms(500), s(2)), s(50), "a processor is worth more");
    }
}
