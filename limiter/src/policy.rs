//! A configuration, put into the kernel's tables.
//!
//! A service keeps its number as long as it keeps its name, because the ledger counts by number.

use std::collections::HashMap;

use anyhow::{Result, bail};
use limiter_common::{MAX_SERVICES, ServiceId, ServicePolicy};

use crate::{config::Config, kernel::Tables};

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
    if tables.fingerprint()? == config.fingerprint() {
        return Ok(Applied::Kept);
    }
    let present = tables.services()?;
    let used = tables.sources()?.into_iter().map(|(key, _)| key.service).collect::<Vec<_>>();
    let ids = number(config, &present, &used)?;

    let mut ports = vec![0_u8; 65536];
    for (service, id) in config.services.iter().zip(&ids) {
        tables.set_service(*id, &service.policy())?;
        for port in &service.ports {
            ports[usize::from(*port)] = id.0;
        }
    }
    tables.set_ports(&ports)?;
    // Only now that no port leads to them any more.
    for (id, _) in present.iter().filter(|(id, _)| !ids.contains(id)) {
        tables.set_service(*id, &ServicePolicy::default())?;
    }
    tables.set_fingerprint(config.fingerprint())?;
    Ok(Applied::Changed)
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
