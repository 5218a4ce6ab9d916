// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What advice rests on: the history, the policy in force, and the settings of the mail daemons that listen.

use std::time::Duration;

use anyhow::{Result, anyhow};
use ipnet::IpNet;
use limiter_common::{Action, Mode, ServiceId};

use super::past::{MailLimit, Past};
use crate::{
    config,
    evidence::{self, Listening, Running},
    history::{self, Asked, Days, Quarter},
    import::Limit,
    instance::Instance,
    kernel::{Tables, sets::PolicySet, sets::RuleEntry},
    policy::{self, Lookup, Services},
};

/// Of so many rules each is looked up by itself; of more, all rows are looked through.
const FEW: usize = 64;

/// The past of these services, each.
///
/// # Errors
/// When there is no history, or it cannot be read.
pub fn gather(
    instance: &Instance,
    tables: &Tables,
    services: &Services,
    since: Duration,
) -> Result<Vec<Past>> {
    let policy = tables.policy.policy()?;
    let is_ours = |port: u16| {
        let id = policy.ports.get(usize::from(port)).copied().unwrap_or(0);
        services.iter().any(|(service, _)| service.0 == id)
    };
    let only = match services {
        [(_, service)] => Some(service.name()),
        _ => None,
    };
    let Days { days, notable } =
        history::days(instance, only, since)?.ok_or_else(|| anyhow!(history::nothing(instance)))?;
    let ruled = ruled(instance, &policy, services, since)?;
    // Without the listeners nothing is known of the mail daemons, and the advice is the same.
    let listening: Vec<Listening> = evidence::listening(is_ours).unwrap_or_default();
    let running = evidence::running(&listening);
    let lookup = Lookup::new(&policy.rules);
    let past = |(id, service): &(ServiceId, limiter_common::ServicePolicy)| {
        let name = service.name();
        let is_ruled = |row: &Quarter| {
            let rule = lookup.covering(&config::network(&row.source));
            rule.is_some_and(|rule| says(rule, *id))
        };
        let of_service = |rows: &[Quarter]| -> Vec<Quarter> {
            rows.iter().filter(|row| row.service == name).cloned().collect()
        };
        Past {
            service: name.to_owned(),
            max_connections: service.max_connections,
            observes: Mode::from_u8(service.mode) == Mode::Observe,
            days: days.iter().filter(|day| day.service == name).cloned().collect(),
            notable: of_service(&notable),
            ruled: of_service(&ruled).into_iter().filter(is_ruled).collect(),
            mail: running.iter().filter_map(|running| mail_limit(running, &policy, *id)).collect(),
        }
    };
    Ok(services.iter().map(past).collect())
}

/// Whether a rule says how many connections a source may hold at a service.
fn says(rule: &RuleEntry, service: ServiceId) -> bool {
    rule.action != Action::Limit || policy::rule_match(rule, service).limits.max_connections.is_set()
}

/// The rows of sources of which a rule may say it.
fn ruled(
    instance: &Instance,
    policy: &PolicySet,
    services: &Services,
    since: Duration,
) -> Result<Vec<Quarter>> {
    let says_something = |rule: &&RuleEntry| services.iter().any(|(id, _)| says(rule, *id));
    let networks: Vec<IpNet> =
        policy.rules.iter().filter(says_something).map(|rule| config::ip_net(&rule.network)).collect();
    let names: Vec<&str> = services.iter().map(|(_, service)| service.name()).collect();
    let since_s = history::first_day(since);
    let asked = Asked { since_s, services: Some(&names), network: None, notable: false };
    let mut rows = Vec::new();
    if networks.len() <= FEW {
        for network in &networks {
            let of_network = Asked { network: Some(network), ..asked };
            rows.extend(history::rows(instance, &of_network)?.unwrap_or_default());
        }
        // One that is in two networks was asked for twice.
        let which = |row: &Quarter| (row.source, row.start_s, row.seconds, row.service.clone());
        rows.sort_by_cached_key(which);
        rows.dedup_by_key(|row| which(row));
    } else {
        rows.extend(history::rows(instance, &asked)?.unwrap_or_default());
    }
    Ok(rows)
}

/// What a mail daemon that serves a service has.
fn mail_limit(running: &Running, policy: &PolicySet, id: ServiceId) -> Option<MailLimit> {
    let its = running.service(|port| policy.ports.get(usize::from(port)) == Some(&id.0))?;
    let limit = match its.max_connections.value {
        Limit::Of(limit) => Some(limit),
        Limit::None => None,
        Limit::Unknown => return None,
    };
    Some(MailLimit { daemon: running.name, setting: its.max_connections.setting(), limit })
}
