// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a policy says, with nobody's connections: its services with their ports and limits, and how many rules there are.

use std::collections::BTreeMap;

use limiter_common::Action;
use serde::Serialize;

use super::output::{Column, Screen};
use crate::{
    kernel::sets::PolicySet,
    policy::{self, Difference},
};

/// What a policy says.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Configured {
    services: Vec<Service>,
    rules: Rules,
}

/// A service and what is said of it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Service {
    name: String,
    ports: Vec<u16>,
    /// Each key with its value, as the configuration writes it without quotes.
    says: BTreeMap<&'static str, String>,
}

/// How many rules there are, of each kind.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Rules {
    allow: usize,
    deny: usize,
    limit: usize,
}

const COLUMNS: [Column; 4] =
    [Column::words("SERVICE"), Column::words("PORTS"), Column::words("MODE"), Column::words("SAYS").wraps()];

/// So many differences are named one by one to people; a list may have thousands.
const NAMED: usize = 20;

impl Configured {
    /// What this policy says.
    pub fn new(policy: &PolicySet) -> Self {
        let mut services: Vec<Service> = policy
            .services
            .iter()
            .map(|(id, service)| Service {
                name: service.name().to_owned(),
                ports: policy::ports_of(&policy.ports, *id),
                says: policy::describe_service(service).into_iter().collect(),
            })
            .collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let count = |action: Action| {
            policy.rules.iter().filter(|rule| !rule.built_in && rule.action == action).count()
        };
        let rules =
            Rules { allow: count(Action::Allow), deny: count(Action::Deny), limit: count(Action::Limit) };
        Self { services, rules }
    }

    /// Puts it on a screen.
    pub fn show(&self, screen: &mut Screen) {
        let rows: Vec<Vec<String>> = self.services.iter().map(Service::row).collect();
        screen.table(&COLUMNS, &rows);
        let Rules { allow, deny, limit } = self.rules;
        screen.paragraph([match allow + deny + limit {
            0 => "no rules".to_owned(),
            all => format!("rules: {all} ({allow} allow, {deny} deny, {limit} limit)"),
        }]);
    }
}

impl Service {
    fn row(&self) -> Vec<String> {
        let Self { name, ports, says } = self;
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(",") };
        let mode = says.get("mode").cloned().unwrap_or_default();
        // What is not limited needs no words.
        let said = says.iter().filter(|(key, value)| **key != "mode" && *value != "none" && *value != "0");
        let said: Vec<String> = said.map(|(key, value)| format!("{key} {value}")).collect();
        vec![name.clone(), ports, mode, said.join(", ")]
    }
}

/// Differences for people, a line each.
pub fn lines(differences: &[Difference]) -> Vec<String> {
    let line = |Difference { what, key, was, is }: &Difference| match key {
        Some(key) => format!("{what}: {key} {was} -> {is}"),
        None => format!("{what}: {was} -> {is}"),
    };
    let mut lines: Vec<String> = differences.iter().take(NAMED).map(line).collect();
    if let Some(more @ 1..) = differences.len().checked_sub(NAMED) {
        lines.push(format!("and {more} more; --json lists all"));
    }
    lines
}
