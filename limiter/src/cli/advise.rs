// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter advise`

#[cfg(test)]
pub mod example;
mod screen;
mod toml;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use limiter_common::Mode;
use serde::Serialize;

pub use self::screen::screen;
use super::{
    answer::{Answer, Done, Save},
    exit::WrongUsage,
    input,
    loaded::{enter_protected, loaded, locked, steadily},
    output::{self, Format},
    rules,
};
use crate::{
    advice::{self, Advice, OwnRule},
    config::{self, Change, Limiting, Ruling, Setting},
    instance::Instance,
    policy,
};

#[derive(clap::Args)]
pub struct Args {
    /// Only these services, separated by commas
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    /// How far back the history is looked at
    #[arg(long, value_name = "TIME", value_parser = input::since, default_value = "7days")]
    since: Duration,

    /// Put the suggested limits and rules in force, at once
    #[arg(long)]
    apply: bool,

    /// Also enforce them, at a service that only observes
    #[arg(long, requires = "apply")]
    enforce: bool,

    #[command(flatten)]
    save: Save,

    /// Print the suggestion as a part of a configuration file
    #[arg(long, conflicts_with_all = ["json", "apply"])]
    toml: bool,

    #[command(flatten)]
    pub format: Format,
}

impl Args {
    /// Whether anything is changed.
    pub const fn is_change(&self) -> bool {
        self.apply
    }
}

/// The answer as a document.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Document {
    /// The instance.
    pub instance: String,
    /// What there is to say of each service.
    pub services: Vec<Advice>,
    /// What was put in force; none where that was not asked for.
    pub applied: Option<Answer>,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    if args.save.is_asked() && !args.apply {
        return Err(WrongUsage("--save is for --apply; give both".to_owned()).into());
    }
    let past = steadily(instance, || {
        let tables = loaded(instance)?;
        enter_protected(instance, &tables)?;
        let services = tables.policy.services()?;
        let selected = policy::select(&services, args.service.as_deref())?;
        advice::gather(instance, &tables, &selected.services, args.since)
    })?;
    let mut services: Vec<Advice> = past.iter().map(Advice::of).collect();
    // Of services at which nobody was there is nothing to say, unless they were asked for.
    services.retain(|advice| advice.days > 0 || args.service.is_some());
    if args.toml {
        output::text(&toml::toml(&services))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.format.json {
        screen(instance, &services, args.apply, output::width()).show()?;
    }
    let applied = if args.apply { Some(apply(instance, &services, args)?) } else { None };
    match (applied, args.format.json) {
        (None, true) => output::json(&Document { instance: instance.to_string(), services, applied: None })?,
        (None, false) => {}
        (Some(answer), true) => {
            let lines = answer.remembered();
            let document = Document { instance: instance.to_string(), services, applied: Some(answer) };
            output::done_json(&document, &lines);
        }
        (Some(answer), false) => {
            output::line("")?;
            answer.show(&args.format);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts all suggestions in force, or none.
fn apply(instance: &Instance, advice: &[Advice], args: &Args) -> Result<Answer> {
    let suggested = advice.iter().filter_map(|one| Some((one, one.suggestion.as_ref()?)));
    let suggested: Vec<(&str, Vec<Setting>, &[OwnRule])> = suggested
        .map(|(one, suggestion)| {
            let enforces = (args.enforce && one.observes).then_some(Setting::Mode(Mode::Enforce));
            let limit = Setting::MaxConnections(suggestion.max_connections);
            let settings = std::iter::once(limit).chain(enforces).collect();
            (one.service.as_str(), settings, suggestion.rules.as_slice())
        })
        .collect();
    let (mut tables, _policy) = locked(instance, Instance::lock_policy)?;
    let before = tables.policy.policy()?;
    let mut edits = Vec::new();
    for (service, settings, rules) in &suggested {
        edits.push(Change::Settings { service, settings });
        edits.extend(rules.iter().map(|rule| {
            let limiting = Limiting::of(&[Setting::MaxConnections(rule.max_connections)]);
            Change::Rule { network: rule.network, ruling: Ruling::Limit(limiting, Some(service)) }
        }));
    }
    let planned = policy::plan(before, &edits)?;
    let mut done = Vec::new();
    for (service, settings, rules) in &suggested {
        let of = |policy: &policy::Services| policy::by_name(policy, service).map(|(_, policy)| *policy);
        if let (Some(before), Some(after)) = (of(&planned.before.services), of(&planned.after.services)) {
            done.extend(config::changes(settings, &before, &after).into_iter().map(|(was, is)| {
                let change = Done::new(*service, Some(was.to_string()), is.to_string());
                Done { key: Some(is.key()), ..change }
            }));
        }
        // One rule may have limits for several services, and is said once.
        for rule in rules.iter().map(|rule| rules::done(&rule.network, &planned)) {
            if !done.contains(&rule) {
                done.push(rule);
            }
        }
    }
    let file = planned.carry_out(instance, &mut tables, args.save.is_asked())?;
    Ok(Answer::saved(done, file))
}
