// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What there is to say of a host, whether or not anything is loaded: of its kernel, of who else is on the hooks, of who
//! listens, of the mail daemons' own limits, and of the limiter itself.
//!
//! One file has one check, or a few that look at the same thing. A check is a row in [`CHECKS`]: `gather` looks, and
//! `judge` makes of what was seen what there is to say; it is pure, and its tests are beside it. What cannot be seen is
//! [`Grade::Unknown`], never good. What `limiter status` knows is taken from [`crate::status`].

pub mod bundle;
mod clock;
mod configuration;
mod context;
mod files;
mod firewall;
mod hooks;
mod instance;
mod kernel;
mod listeners;
mod mail_limits;
mod namespaces;
mod outcome;
mod outside;
mod overflows;
mod proxies;
mod queues;
mod redact;
mod rights;
mod room;
mod shield;

use std::thread;

use serde::Serialize;

use self::context::Context;
pub use self::outcome::{Grade, Outcome};
use crate::instance::Instance;

/// One thing that is looked at.
struct Check {
    name: &'static str,
    look: fn(&Context) -> Vec<Outcome>,
}

const fn check(name: &'static str, look: fn(&Context) -> Vec<Outcome>) -> Check {
    Check { name, look }
}

/// All of them, in the order in which one thing needs the other.
const CHECKS: [Check; 28] = [
    check("kernel", kernel::release),
    check("types", kernel::types),
    check("jit", kernel::jit),
    check("lockdown", kernel::lockdown),
    check("privileges", rights::privileges),
    check("bpf", rights::bpf),
    check("bpffs", rights::bpffs),
    check("cgroup", rights::cgroup),
    check("limits", instance::limits),
    check("hooks", hooks::look),
    check("daemon", instance::daemon),
    check("greeter", instance::greeter),
    check("certificates", instance::certificates),
    check("shield", shield::look),
    check("services", instance::services),
    check("counts", instance::counts),
    check("configuration", configuration::look),
    check("ledger", room::look),
    check("files", files::look),
    check("clock", clock::look),
    check("listeners", listeners::look),
    check("queues", queues::accept),
    check("syn-cookies", queues::cookies),
    check("mail-limits", mail_limits::look),
    check("proxy-protocol", proxies::protocol),
    check("sources", proxies::sources),
    check("firewall", firewall::look),
    check("namespaces", namespaces::look),
];

/// What one check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// Its name.
    pub check: &'static str,
    /// What it says.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What all of them say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// The instance.
    pub instance: String,
    /// The worst grade of all.
    pub worst: Grade,
    /// What was found, in the order of the checks.
    pub findings: Vec<Finding>,
    /// The checks that need an instance that is loaded, where none is.
    pub skipped: Vec<&'static str>,
}

impl Report {
    /// Of what each check has found.
    pub fn new(instance: &Instance, found: Vec<(&'static str, Vec<Outcome>)>) -> Self {
        let silent = found.iter().filter(|(_, outcomes)| outcomes.is_empty());
        let skipped = silent.map(|(check, _)| *check).collect();
        let findings: Vec<Finding> = found
            .into_iter()
            .flat_map(|(check, outcomes)| outcomes.into_iter().map(move |outcome| Finding { check, outcome }))
            .collect();
        let worst = findings.iter().map(|finding| finding.outcome.grade).max().unwrap_or(Grade::Unknown);
        Self { instance: instance.to_string(), worst, findings, skipped }
    }

    /// How many findings have this grade.
    pub fn count(&self, grade: Grade) -> usize {
        self.findings.iter().filter(|finding| finding.outcome.grade == grade).count()
    }
}

/// Looks at everything, at the same time. Changes nothing.
pub fn examine(instance: &Instance) -> Report {
    let context = Context::look(instance);
    let context = &context;
    let found = thread::scope(|scope| {
        // What this thread has entered, these are in.
        let looks = CHECKS.map(|check| (check.name, scope.spawn(move || (check.look)(context))));
        looks.map(|(name, look)| {
            let gave_up = |_| vec![Outcome::unknown("this check failed: please report this")];
            (name, look.join().unwrap_or_else(gave_up))
        })
    });
    Report::new(instance, found.into())
}
