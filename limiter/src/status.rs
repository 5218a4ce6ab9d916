// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How an instance is: what is in force, who serves it, what it counts, and what is not as it should be.

mod document;
mod elsewhere;
mod service;
mod warnings;

use std::{collections::HashMap, time::Duration};

use anyhow::{Result, anyhow};
use limiter_common::{Key, ServiceId, ServicePolicy};

pub use self::{
    document::{Difference, Nothing, Status, Verified},
    service::{CounterValues, Service},
    warnings::{About, Warning, of_the_instance, translated},
};
use self::{elsewhere::Elsewhere, warnings::of_the_host};
use crate::{
    bans,
    greeter::tls,
    history,
    instance::{Daemon, Instance},
    kernel::{Found, Tables, environment, maintenance::Maintenance, pins},
    ledger,
    loaded::{daemon, enter_protected, loaded},
    reconcile, shield,
};

/// What there is to say of what is loaded, if anything is; with a comparison of all counts where `compares`. Leaves this
/// thread in the network namespace that is protected, if there is a way into it.
pub fn look(instance: &Instance, compares: bool) -> Result<Option<Status>> {
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
    let elsewhere_warning = |elsewhere: &Elsewhere| elsewhere.warning(instance, &daemon);
    warnings.extend(said.map(|elsewhere| Warning::new(About::Namespace, elsewhere_warning(elsewhere))));
    let shield = shield::attachments(instance).unwrap_or_else(|problem| {
        let text = format!(
            "cannot tell where the shield is attached until the daemon restarts; the limits are in force: {problem:#}"
        );
        warnings.push(Warning::new(About::Shield, text));
        Vec::new()
    });
    let greeter = greeter(instance, &daemon, &mut warnings);
    let of_history = of_the_history(instance, &daemon).into_iter();
    warnings.extend(of_history.map(|text| Warning::new(About::History, text)));
    warnings.extend(environment::real_time_warning().map(|text| Warning::new(About::Kernel, text)));
    let missing = shield.iter().filter(|attachment| attachment.is_missing());
    warnings.extend(missing.map(|attachment| Warning::new(About::Shield, attachment.warning())));
    warnings.extend(crowded(instance, &tables)?.map(|text| Warning::new(About::Ledger, text)));
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
fn greeter(instance: &Instance, daemon: &Daemon, warnings: &mut Vec<Warning>) -> Option<tls::Report> {
    if !daemon.running {
        return None;
    }
    match tls::Report::read(&instance.greeter_path()) {
        Ok(report) => {
            let said = report.iter().flat_map(|report| report.warnings.clone());
            warnings.extend(said.map(|text| Warning::new(About::Greeter, text)));
            report
        }
        Err(problem) => {
            let text = format!(
                "cannot tell what the greeter does until the daemon restarts; the limits are in force: {problem:#}"
            );
            warnings.push(Warning::new(About::Greeter, text));
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
