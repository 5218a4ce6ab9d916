// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A configuration becomes the policy in force.
//!
//! A service keeps its number as long as it keeps its name, because the ledger counts by number.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Result, bail};
use limiter_common::{MAX_SERVICES, ServiceId};
use tracing::debug;

use super::{
    local::built_in,
    rules::{self, admins_rules, in_force},
    services::{self, Services},
};
use crate::{
    config::Config,
    kernel::{
        Tables,
        sets::{PolicySet, RuleEntry},
    },
};

/// What [`apply`] did.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    /// The tables hold this configuration now.
    Changed,
    /// They held it already, and with it what was changed live since; nothing was touched.
    Kept,
}

/// Puts `config` into the tables, unless it is the one that was put there last: then changes made
/// live since then stay in force, so that a daemon's restart loses none.
pub fn apply(config: &Config, tables: &mut Tables) -> Result<Applied> {
    if tables.policy.fingerprint()? == config.fingerprint() {
        return Ok(Applied::Kept);
    }
    reapply(config, tables)
}

/// Puts `config` into the tables in one step, and takes back what was changed live.
pub fn reapply(config: &Config, tables: &mut Tables) -> Result<Applied> {
    replace(config, tables).map(|(_, _, applied)| applied)
}

/// What was in force, and what is now.
pub(super) fn replace(config: &Config, tables: &mut Tables) -> Result<(PolicySet, PolicySet, Applied)> {
    let present = tables.policy.policy()?;
    let mut used = BTreeSet::new();
    tables.each_source(|key, _| {
        used.insert(key.service);
    })?;
    used.extend(tables.penalties()?.iter().map(|(key, _)| key.service));
    let used: Vec<_> = used.into_iter().collect();
    let ids = number(config, &present.services, &used)?;
    let numbers = config.services.iter().map(|service| service.name.as_str()).zip(ids).collect();
    let fingerprint = present.fingerprint;
    let wanted = PolicySet { fingerprint, ..of_config(config, &numbers, built_in(&present.rules)) };
    let applied = if wanted == present { Applied::Kept } else { Applied::Changed };
    let wanted = PolicySet { fingerprint: config.fingerprint(), ..wanted };
    if applied == Applied::Changed {
        debug!("applied {} services and {} rules", wanted.services.len(), wanted.rules.len());
        tables.policy.replace(&wanted)?;
    } else if wanted.fingerprint != fingerprint {
        tables.policy.set_fingerprint(wanted.fingerprint)?;
    }
    Ok((present, wanted, applied))
}

/// The policy that a configuration means, with these numbers of services by name, and a number for each that has none.
pub fn of_config(config: &Config, numbers: &HashMap<&str, ServiceId>, built_in: Vec<RuleEntry>) -> PolicySet {
    let mut numbers = numbers.clone();
    let taken: BTreeSet<u8> = numbers.values().map(|id| id.0).collect();
    let mut free = (1..MAX_SERVICES as u8).filter(|id| !taken.contains(id)).map(ServiceId);
    for service in &config.services {
        if !numbers.contains_key(service.name.as_str()) {
            numbers.extend(free.next().map(|id| (service.name.as_str(), id)));
        }
    }
    let (mut ports, mut services) = (vec![0_u8; 65536], Vec::new());
    for service in &config.services {
        let Some(id) = numbers.get(service.name.as_str()).copied() else { continue };
        for port in &service.ports {
            ports[usize::from(*port)] = id.0;
        }
        services.push((id, service.policy()));
    }
    services.sort_by_key(|(id, _)| *id);
    let rules = in_force(rules::of_config(&config.rules, &numbers), built_in, &services);
    let (ladder, fingerprint) = (config.ladder.kernel(), config.fingerprint());
    PolicySet { ports, services, rules, ladder, fingerprint }
}

/// Makes `own` the host's local addresses; `false` if they were already.
pub fn set_local(tables: &mut Tables, own: Vec<RuleEntry>) -> Result<bool> {
    let before = tables.policy.policy()?;
    let rules = in_force(admins_rules(before.rules.clone()), own, &before.services);
    if rules == before.rules {
        return Ok(false);
    }
    tables.policy.replace(&PolicySet { rules, ..before })?;
    Ok(true)
}

/// A number for each service of `config`: its present one, or one that neither a service nor the
/// ledger uses.
fn number(config: &Config, present: &Services, used: &[u8]) -> Result<Vec<ServiceId>> {
    let known = services::numbers(present);
    let is_free = |id: &ServiceId| services::by_id(present, *id).is_none() && !used.contains(&id.0);
    let mut free = (1..MAX_SERVICES as u8).map(ServiceId).filter(is_free);
    let mut ids = Vec::with_capacity(config.services.len());
    for service in &config.services {
        match known.get(service.name.as_str()).copied().or_else(|| free.next()) {
            Some(id) => ids.push(id),
            None => bail!(
                "no free number for service {}: removed services still have connections; wait for them to end, \
                 or run `limiter unload` first",
                service.name
            ),
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use limiter_common::ServicePolicy;

    use super::*;

    fn named(id: u8, name: &str) -> (ServiceId, ServicePolicy) {
        let name = ServicePolicy::pack_name(name).unwrap();
        (ServiceId(id), ServicePolicy { name, ..ServicePolicy::default() })
    }

    #[test]
    fn a_service_keeps_its_number_and_a_new_one_takes_none_that_is_in_use() {
        let mut config = Config::default();
        config.services.retain(|service| service.name == "smtp" || service.name == "pop3");
        let ids = number(&config, &[named(5, "smtp"), named(1, "gone")], &[5, 2]).unwrap();
        let by_name: HashMap<_, _> = config.services.iter().map(|s| s.name.as_str()).zip(ids).collect();
        assert_eq!(by_name["smtp"], ServiceId(5));
        assert_eq!(by_name["pop3"], ServiceId(3), "1 is a service's, 2 is the ledger's");
    }

    #[test]
    fn when_every_number_is_in_use_it_says_so() {
        let config = Config::default();
        let used: Vec<u8> = (1..MAX_SERVICES as u8).collect();
        let error = number(&config, &[], &used).unwrap_err().to_string();
        assert!(error.contains("no free number"), "{error}");
    }
}
