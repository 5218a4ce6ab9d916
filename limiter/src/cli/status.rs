// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter status`

mod brief;
mod document;
mod elsewhere;
mod screen;
mod service;
mod warnings;

use std::{collections::HashMap, process::ExitCode, time::Duration};

use anyhow::{Result, anyhow};
use limiter_common::{Key, ServiceId, ServicePolicy};

use super::{
    exit::NOT_IN_FORCE,
    loaded::{daemon, enter_protected, loaded, nothing_loaded, refuse_elsewhere, steadily},
    output::{self, Format},
};
use crate::{
    bans,
    greeter::tls,
    history,
    instance::{Daemon, Instance},
    kernel::{Found, Tables, environment, maintenance::Maintenance, pins},
    ledger, reconcile, shield,
};

#[derive(clap::Args)]
pub struct Args {
    /// Compare all counts with the kernel's socket table, and correct wrong counts
    #[arg(long)]
    verify: bool,

    /// Print one line for monitoring plugins, and exit with 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN
    #[arg(long, conflicts_with_all = ["json", "verify"])]
    pub brief: bool,

    #[command(flatten)]
    pub format: Format,
}

#[cfg(test)]
pub use brief::line as brief_line;
pub use brief::{UNKNOWN, unknown};
pub use document::Status;
use document::{Difference, Nothing, Verified};
use elsewhere::Elsewhere;
pub use screen::screen;
pub use service::Service;
use warnings::of_the_host;
pub use warnings::of_the_instance;

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    environment::check()?;
    let Some(status) = steadily(instance, || look(instance, args.verify))? else {
        refuse_elsewhere(instance)?;
        let nothing = nothing_loaded(instance);
        if args.brief {
            output::line(&brief::nothing(instance, &nothing))?;
            return Ok(ExitCode::from(brief::CRITICAL));
        }
        if args.format.json {
            let (instance, daemon) = (instance.to_string(), instance.daemon()?);
            let (in_force, services, warnings) = (false, [], []);
            output::json(&Nothing {
                instance,
                in_force,
                daemon,
                services,
                warnings,
                error: nothing.clone(),
            })?;
        }
        eprintln!("limiter: {nothing}");
        return Ok(ExitCode::from(NOT_IN_FORCE));
    };
    if args.brief {
        let (line, code) = brief::line(&status);
        output::line(&line)?;
        return Ok(ExitCode::from(code));
    }
    if args.format.json {
        output::json(&status)?;
    } else {
        screen(&status, output::width()).show()?;
    }
    Ok(if status.in_force { ExitCode::SUCCESS } else { ExitCode::from(NOT_IN_FORCE) })
}

/// What there is to say of what is loaded, if anything is.
fn look(instance: &Instance, compares: bool) -> Result<Option<Status>> {
    if matches!(Found::inspect(instance)?, Found::Nothing) {
        return Ok(None);
    }
    let tables = loaded(instance)?;
    let verified = if compares { Some(verify(instance, &tables)?) } else { None };
    let services = services(&tables)?;
    let daemon = daemon(instance, &tables)?;
    let detached = pins::detached(instance)?;
    let mut warnings = of_the_instance(instance, &detached, &daemon, &services);
    let elsewhere = Elsewhere::look(instance, &tables, &daemon)?;
    // Where the namespace itself is gone, that has been said.
    let said = elsewhere.iter().filter(|elsewhere| elsewhere.is_another || detached.is_empty());
    warnings.extend(said.map(|elsewhere| elsewhere.warning(instance, &daemon)));
    let shield = shield::attachments(instance).unwrap_or_else(|problem| {
        warnings.push(format!(
            "cannot tell where the shield is attached until the daemon restarts; the limits are in force: {problem:#}"
        ));
        Vec::new()
    });
    let greeter = greeter(instance, &daemon, &mut warnings);
    warnings.extend(of_the_history(instance, &daemon));
    warnings.extend(environment::real_time_warning().map(str::to_owned));
    warnings
        .extend(shield.iter().filter(|attachment| attachment.is_missing()).map(shield::Attachment::warning));
    warnings.extend(crowded(instance, &tables)?);
    // What is asked of another network namespace comes last.
    enter_protected(instance, &tables)?;
    let (netns, cgroup) = tables.protects()?;
    if elsewhere.is_none() && netns == environment::netns_cookie()? {
        warnings.extend(of_the_host(instance, &services, cgroup, loaded_since(instance)));
    }
    Ok(Some(Status {
        instance: instance.to_string(),
        in_force: detached.is_empty() && !elsewhere.is_some_and(|elsewhere| elsewhere.is_another),
        daemon,
        shield,
        greeter: greeter.as_ref().map(|report| report.greeter.clone()),
        certificates: greeter.map(|report| report.certificates).unwrap_or_default(),
        bans: bans::all(&tables)?.bans.len(),
        verified,
        services,
        warnings,
    }))
}

/// What the daemon says of its greeter, if it runs; what is wrong with it goes to the warnings.
fn greeter(instance: &Instance, daemon: &Daemon, warnings: &mut Vec<String>) -> Option<tls::Report> {
    if !daemon.running {
        return None;
    }
    match tls::Report::read(&instance.greeter_path()) {
        Ok(report) => {
            warnings.extend(report.iter().flat_map(|report| report.warnings.clone()));
            report
        }
        Err(problem) => {
            warnings.push(format!(
                "cannot tell what the greeter does until the daemon restarts; the limits are in force: {problem:#}"
            ));
            None
        }
    }
}

/// What the daemon says of its history, if it runs.
fn of_the_history(instance: &Instance, daemon: &Daemon) -> Vec<String> {
    if !daemon.running {
        return Vec::new();
    }
    match history::Report::read(&instance.history_report_path()) {
        Ok(report) => report.warnings,
        Err(problem) => {
            vec![format!("cannot tell whether the history is written until the daemon restarts: {problem:#}")]
        }
    }
}

/// For how long it has been loaded: the first of its pins is as old.
fn loaded_since(instance: &Instance) -> Option<Duration> {
    let made = std::fs::metadata(instance.pins().join("LAYOUT")).ok()?.modified().ok()?;
    made.elapsed().ok()
}

fn verify(instance: &Instance, tables: &Tables) -> Result<Verified> {
    enter_protected(instance, tables)?;
    let mut maintenance = Maintenance::open(instance, &instance.pins())?;
    let round = reconcile::verify(&instance.pins(), &mut maintenance)?.ok_or_else(|| {
        anyhow!(
            "cannot verify the counts, because this kernel refused the census program: `limiter run` logs the reason when it starts"
        )
    })?;
    let connections = round.corrected.iter().map(|(found, corrected)| (found.to_string(), *corrected));
    let marks = round.marked.iter().map(|(found, corrected)| (found.to_string(), *corrected));
    let difference = |(what, corrected)| Difference { what, corrected };
    Ok(Verified {
        connections: round.connections,
        dead: round.dead,
        differences: connections.chain(marks).map(difference).collect(),
    })
}

fn services(tables: &Tables) -> Result<Vec<Service>> {
    let mut ports: HashMap<u8, Vec<u16>> = HashMap::new();
    for (port, id) in (0_u16..=u16::MAX).zip(tables.policy.ports()?).filter(|(_, id)| *id != 0) {
        ports.entry(id).or_default().push(port);
    }
    let (waiting, now_ns) = (ledger::waiting(tables)?, ledger::monotonic_ns()?);
    let service = |(id, policy): (ServiceId, ServicePolicy)| -> Result<Service> {
        let those = waiting.get(&Key::total(id)).copied().unwrap_or_default();
        let connections = tables.total(id)?.connections();
        let ports = ports.remove(&id.0).unwrap_or_default();
        Ok(Service::new(
            &policy,
            ports,
            connections,
            those.count,
            those.seconds(now_ns),
            tables.counters(id)?,
        ))
    };
    let mut services = tables.policy.services()?.into_iter().map(service).collect::<Result<Vec<_>>>()?;
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(services)
}

/// Whether new sources are limited by their network, because the ledger has no room for them.
fn crowded(instance: &Instance, tables: &Tables) -> Result<Option<String>> {
    let is_full = tables.is_full(ledger::now_s()?)?;
    if tables.shared()? == 0 && !is_full {
        return Ok(None);
    }
    let (mut entries, mut connections) = (0_u32, 0_u64);
    tables.each_source(|key, entry| {
        if key.is_shared() && entry.count.connections() > 0 {
            entries += 1;
            connections += u64::from(entry.count.connections());
        }
    })?;
    if entries == 0 && !is_full {
        return Ok(None);
    }
    let (taken, most) = tables.room()?;
    Ok(Some(format!(
        "the ledger is full ({taken} of {most} sources and networks): {connections} connections of new sources \
         are counted with their network, in {entries} entries (`{limiter} list` lists them as shared); \
         raise max_sources, stop the daemon, and start `{limiter} run`",
        limiter = instance.program()
    )))
}
