// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What `limiter limit` says of a network: a change of a rule's limits, for all services or for one.

use std::collections::BTreeMap;

use super::{
    OrNone, PerService, RateSpec, RateWithBurst, Rule, Setting, SettingError, error::Complaint,
    rules::check_network_limit,
};

/// What is said of each limit; of a limit that is not among them the rule says what it has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limiting {
    /// Connections each source may hold.
    pub max_connections: Option<u32>,
    /// How fast each source may connect.
    pub rate: Option<OrNone<RateSpec>>,
    /// How many of these connections may come at once; without a rate, of the one the rule has.
    pub burst: Option<u32>,
    /// Connections the network around a source may hold for it to get in.
    pub network_max_connections: Option<OrNone<u32>>,
}

impl Limiting {
    /// What these settings of a service's say, of those that rules take, too.
    #[must_use]
    pub fn of(settings: &[Setting]) -> Self {
        let mut limiting = Self::default();
        for setting in settings {
            match *setting {
                Setting::MaxConnections(limit) => limiting.max_connections = Some(limit),
                Setting::Rate(spec) => limiting.rate = Some(OrNone(spec)),
                Setting::Burst(burst) => limiting.burst = Some(burst),
                Setting::NetworkMaxConnections(limit) => {
                    limiting.network_max_connections = Some(OrNone(limit));
                }
                _ => {}
            }
        }
        limiting
    }

    /// Nothing but how many connections a source may hold.
    #[cfg(test)]
    pub fn connections(max_connections: u32) -> Self {
        Self { max_connections: Some(max_connections), ..Self::default() }
    }

    /// The rate, with its burst. Without a rate the burst is for the one there is.
    ///
    /// # Errors
    /// When there is a burst and no rate.
    fn bursting(&self) -> Result<Option<OrNone<RateWithBurst>>, SettingError> {
        match (self.rate, self.burst) {
            (Some(OrNone(None)), Some(_)) => Err(Complaint::RuleBurstWithoutRate.into()),
            (Some(OrNone(spec)), burst) => {
                let rate = spec.map(|spec| RateWithBurst { spec, burst: burst.unwrap_or(spec.count) });
                Ok(Some(OrNone(rate)))
            }
            (None, _) => Ok(None),
        }
    }

    /// Makes a rule say so, of one service or of all.
    ///
    /// # Errors
    /// When what comes of it makes no sense, as it would not in the file.
    pub fn change(&self, rule: &mut Rule, service: Option<&str>) -> Result<(), SettingError> {
        put(&mut rule.max_connections, service, self.max_connections);
        put(&mut rule.network_max_connections, service, self.network_max_connections.map(|given| given.0));
        match (self.bursting()?, self.burst) {
            (None, Some(burst)) => self::burst(&mut rule.rate, service, burst)?,
            (rate, _) => put(&mut rule.rate, service, rate.map(|given| given.0)),
        }
        Ok(check_network_limit(rule)?)
    }
}

/// Says `value` of a service, or of all and of none apart.
fn put<T>(given: &mut PerService<T>, service: Option<&str>, value: Option<T>) {
    let Some(value) = value else { return };
    match service {
        Some(service) => drop(given.services.insert(service.to_owned(), value)),
        None => *given = PerService { all: Some(value), services: BTreeMap::new() },
    }
}

/// Another burst for the rates there are.
fn burst(
    rates: &mut PerService<Option<RateWithBurst>>,
    service: Option<&str>,
    burst: u32,
) -> Result<(), Complaint> {
    if let Some(service) = service {
        let Some(Some(rate)) = rates.at(Some(service)) else { return Err(Complaint::RuleBurstWithoutRate) };
        let rate = RateWithBurst { burst, ..*rate };
        rates.services.insert(service.to_owned(), Some(rate));
        return Ok(());
    }
    let mut limited: Vec<&mut RateWithBurst> =
        rates.services.values_mut().chain(&mut rates.all).flatten().collect();
    for rate in &mut limited {
        rate.burst = burst;
    }
    if limited.is_empty() { Err(Complaint::RuleBurstWithoutRate) } else { Ok(()) }
}
