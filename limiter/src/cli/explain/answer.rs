// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The answer in a sentence, and why an address would be refused.

use std::time::Duration;

use limiter_common::Reason;

use super::view::{AtService, Explanation, Network};
use crate::{cli::output, diagnose::Diagnosis};

/// A source with this part of its limit, in hundredths, nears it.
const NEAR: u64 = 80;

/// Whether an address is refused, where, and why, in one sentence.
pub fn sentence(explanation: &Explanation) -> String {
    let Explanation { address, local, services, .. } = explanation;
    let refused: Vec<&AtService> = services.iter().filter(|at| at.reason.is_some()).collect();
    // What is the same at several services is said once.
    let mut told: Vec<(String, bool, Vec<&str>)> = Vec::new();
    for at in refused {
        let clause = clause(at);
        match told.iter_mut().find(|(known, observed, _)| *known == clause && *observed == at.observed) {
            Some((.., names)) => names.push(&at.service),
            None => told.push((clause, at.observed, vec![&at.service])),
        }
    }
    if !told.is_empty() {
        let part = |(clause, observed, names): &(String, bool, Vec<&str>)| {
            let verb = if *observed { "would be refused (only observed)" } else { "is refused" };
            format!("{verb} at {}: {clause}", listed(names))
        };
        return format!("{address} {}.", told.iter().map(part).collect::<Vec<_>>().join("; it "));
    }
    let near = services.iter().filter(|at| {
        let limit = at.limit.filter(|limit| *limit > 0);
        limit.is_some_and(|limit| u64::from(at.connections) * 100 >= u64::from(limit) * NEAR)
    });
    let near: Vec<String> = near.map(|at| format!("{} at {}", held(at), at.service)).collect();
    if *local {
        format!("{address} is a local address, and is admitted at every service.")
    } else if near.is_empty() {
        format!("{address} is admitted at every service.")
    } else {
        format!("{address} is admitted at every service, and nears its limit: {}.", near.join(", "))
    }
}

/// Names as a sentence has them.
fn listed(names: &[&str]) -> String {
    match names {
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
        [] => String::new(),
    }
}

/// How many of how many connections it holds.
fn held(at: &AtService) -> String {
    at.limit.map_or_else(|| at.connections.to_string(), |limit| format!("{} of {limit}", at.connections))
}

/// Why it is refused at a service, as a part of the sentence: what was found, or what the limiter says.
fn clause(at: &AtService) -> String {
    let found = at.diagnosis.as_ref().filter(|diagnosis| !diagnosis.cannot_tell()).and_then(Diagnosis::first);
    match (at.reason, found) {
        (Some(Reason::Denied), _) => "a rule denies it".to_owned(),
        (Some(Reason::Banned), _) => {
            format!("it is banned for another {}", output::time(Duration::from_secs(at.banned_seconds)))
        }
        (_, Some(found)) => found.summary.clone(),
        (Some(Reason::Total), None) => match at.max_total {
            Some(max) => format!("the service is full, {} of {max} connections", at.total),
            None => "the service is full".to_owned(),
        },
        (Some(Reason::Network), None) => match &at.network {
            Some(Network { network, connections, .. }) if !at.shared => {
                format!("the sources in {network} together hold {connections} connections")
            }
            _ => format!("the ledger is full, and the new sources in {} are counted together", at.source),
        },
        (Some(Reason::Rate), None) => "it exceeds its rate of new connections".to_owned(),
        (Some(Reason::Concurrency) | None, None) => format!("it holds {} connections", held(at)),
    }
}

/// Why `address` would be refused, and when it gets in by itself.
pub fn why(address: &str, at: &AtService) -> String {
    let AtService { network, wait_ms, .. } = at;
    match (at.reason, network) {
        (Some(Reason::Denied), _) => format!("a rule denies {address}; it gets in when the rule is changed"),
        (Some(Reason::Banned), _) => format!(
            "{address} is banned for another {}; it gets in after that",
            output::time(Duration::from_secs(at.banned_seconds))
        ),
        (Some(Reason::Total), _) => format!(
            "the service has reached its total limit of connections; {address} gets in again when any of them ends"
        ),
        (Some(Reason::Network), _) if at.shared => format!(
            "the ledger has no room for {address}, so it is counted with the other new sources in {}, which \
             together have reached their limit of connections; {address} gets in when one of these ends, or \
             when max_sources is raised",
            at.source
        ),
        (Some(Reason::Network), Some(Network { network, .. })) => format!(
            "the sources in {network} together have reached the network limit of connections; {address} gets \
             in again when one of these ends"
        ),
        (Some(Reason::Rate), _) => format!(
            "{address} exceeds its rate; it gets in again in {}",
            output::time(Duration::from_millis(*wait_ms))
        ),
        _ => {
            format!("{address} has reached its limit of connections; it gets in again when one of them ends")
        }
    }
}
