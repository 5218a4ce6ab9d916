//! A configuration, put into the kernel's tables.
//!
//! A service keeps its number as long as it keeps its name, because the ledger counts by number.

mod own;
mod rules;

use std::collections::{BTreeSet, HashMap};

use anyhow::{Result, bail};
use limiter_common::{MAX_SERVICES, ServiceId, ServicePolicy};
use tracing::debug;

pub use own::{addresses, built_in};
pub use rules::{covering, inherit, own_words};

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
    let present = tables.policy.policy()?;
    let mut used = BTreeSet::new();
    tables.each_source(|key, _| {
        used.insert(key.service);
    })?;
    used.extend(tables.rungs()?.iter().map(|(key, _)| key.service));
    let used: Vec<_> = used.into_iter().collect();
    let ids = number(config, &present.services, &used)?;
    let mut ports = vec![0_u8; 65536];
    for (service, id) in config.services.iter().zip(&ids) {
        for port in &service.ports {
            ports[usize::from(*port)] = id.0;
        }
    }
    let numbers: HashMap<&str, ServiceId> =
        config.services.iter().map(|service| service.name.as_str()).zip(ids.iter().copied()).collect();
    let built_in = built_in(&present.rules);
    let mut services: Vec<_> =
        config.services.iter().zip(ids).map(|(service, id)| (id, service.policy())).collect();
    services.sort_by_key(|(id, _)| *id);
    let rules = inherit(rules::of_config(&config.rules, &numbers), built_in);
    let ladder = config.ladder.kernel();
    let wanted = PolicySet { ports, services, rules, ladder, fingerprint: present.fingerprint };
    let fingerprint = config.fingerprint();
    if wanted != present {
        debug!("put in force: {} services, {} rules", wanted.services.len(), wanted.rules.len());
        tables.policy.replace(&PolicySet { fingerprint, ..wanted })?;
        return Ok(Applied::Changed);
    }
    if fingerprint != present.fingerprint {
        tables.policy.set_fingerprint(fingerprint)?;
    }
    Ok(Applied::Kept)
}

/// Makes `own` the host's own addresses; `false` if they were already.
pub fn set_own(tables: &mut Tables, own: Vec<RuleEntry>) -> Result<bool> {
    let before = tables.policy.policy()?;
    let rules = inherit(own_words(before.rules.clone()), own);
    if rules == before.rules {
        return Ok(false);
    }
    tables.policy.replace(&PolicySet { rules, ..before })?;
    Ok(true)
}

/// A number for each service of `config`: its present one, or one that neither a service nor the
/// ledger uses.
fn number(config: &Config, present: &[(ServiceId, ServicePolicy)], used: &[u8]) -> Result<Vec<ServiceId>> {
    let known: HashMap<&str, ServiceId> = present.iter().map(|(id, policy)| (policy.name(), *id)).collect();
    let is_free = |id: &ServiceId| !present.iter().any(|(other, _)| other == id) && !used.contains(&id.0);
    let mut free = (1..MAX_SERVICES as u8).map(ServiceId).filter(is_free);
    let mut ids = Vec::with_capacity(config.services.len());
    for service in &config.services {
        match known.get(service.name.as_str()).copied().or_else(|| free.next()) {
            Some(id) => ids.push(id),
            None => bail!(
                "there is no number left for the service {}: services that were removed still have connections; wait \
                 for them to end, or run `limiter unload` first",
                service.name
            ),
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
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
        assert!(error.contains("no number left"), "{error}");
    }
}
