// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter limit`, of a rule as the kernel has it. [`Limiting::change`] does the same to a rule of the file.

use limiter_common::{
    Rate, ServiceId,
    rule::{Limit, RuleLimits, RuleRate},
};

use crate::{
    config::{Limiting, OrNone, SettingError},
    kernel::sets::RuleEntry,
};

/// Makes a rule of the admin's say so, of one service or of all.
///
/// # Errors
/// When what comes of it makes no sense, as it would not in the file.
pub fn limit(
    rule: &mut RuleEntry,
    limiting: &Limiting,
    service: Option<ServiceId>,
) -> Result<(), SettingError> {
    let number = |limit: OrNone<u32>| limit.0.map_or(Limit::NONE, Limit::of_rule);
    let rate = limiting.bursting()?;
    let limits = RuleLimits {
        rate: rate.map_or(RuleRate::UNSET, |rate| {
            RuleRate::of_rule(rate.0.map_or_else(Rate::default, |rate| rate.spec.rate(rate.burst)))
        }),
        max_connections: limiting.max_connections.map_or(Limit::UNSET, Limit::of_rule),
        network: limiting.network_max_connections.map_or(Limit::UNSET, number),
    };
    match service {
        Some(service) => rule.limit_at(service, limits),
        None => rule.limit(limits),
    }
    if let (None, Some(burst)) = (rate, limiting.burst) {
        self::burst(rule, service, burst).ok_or_else(SettingError::burst_without_rate)?;
    }
    for limits in rule.limits.iter().map(|(_, one)| one.or(&rule.all)).chain([rule.all]) {
        let (network, max_connections) = (limits.network, limits.max_connections.connections());
        if network.is_number() && network.connections() < max_connections {
            let whom = rule.network.to_string();
            return Err(SettingError::network_below_source(whom, network.connections(), max_connections));
        }
    }
    Ok(())
}

/// Another burst for the rates there are; `None` if there are none.
fn burst(rule: &mut RuleEntry, service: Option<ServiceId>, burst: u32) -> Option<()> {
    let with = |rate: &RuleRate| {
        let rate = rate.get().filter(Rate::is_limited)?;
        let tolerance_ns = u64::from(burst.saturating_sub(1)) * rate.interval_ns;
        Some(RuleRate::of_rule(Rate { tolerance_ns, ..rate }))
    };
    if let Some(service) = service {
        let given = rule.limits.iter().find(|(given, _)| *given == service);
        let rate = with(&given.map_or(rule.all, |(_, one)| one.or(&rule.all)).rate)?;
        rule.limit_at(service, RuleLimits { rate, ..RuleLimits::UNSET });
        return Some(());
    }
    let rates = rule.limits.iter_mut().map(|(_, limits)| limits).chain([&mut rule.all]);
    let changed = rates.filter_map(|limits| with(&limits.rate).map(|rate| limits.rate = rate)).count();
    (changed != 0).then_some(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use limiter_common::Action;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{RateSpec, Rule},
        policy::rules::of_config,
    };

    const SERVICES: [(&str, u8); 2] = [("imap", 1), ("smtp", 2)];

    fn any_limiting() -> impl Strategy<Value = (Limiting, Option<usize>)> {
        let spec = prop::option::of((1u32..100).prop_map(|count| RateSpec { count, period_s: 60 }));
        let number = || 1u32..20;
        let limits = (
            prop::option::of(number()),
            prop::option::of(spec),
            prop::option::of(number()),
            prop::option::of(prop::option::of(number())),
        );
        let limiting = limits.prop_map(|(max_connections, rate, burst, network_max_connections)| Limiting {
            max_connections,
            rate: rate.map(OrNone),
            burst,
            network_max_connections: network_max_connections.map(OrNone),
        });
        (limiting, prop::option::of(0usize..2))
    }

    proptest! {
        /// The file and the kernel, one change after the other: they mean the same, or both refuse.
        #[test]
        fn what_is_said_live_means_what_the_file_then_says(changes in prop::collection::vec(any_limiting(), 1..12)) {
            let network = "10.0.0.0/8".parse().unwrap();
            let numbers: HashMap<&str, ServiceId> =
                SERVICES.into_iter().map(|(name, number)| (name, ServiceId(number))).collect();
            let in_kernel = |rule: &Rule| of_config(std::slice::from_ref(rule), &numbers).remove(0);
            let mut rule = Rule::new(network, Action::Limit);
            let mut entry = in_kernel(&rule);
            for (limiting, service) in changes {
                let service = service.map(|index| SERVICES[index]);
                let (mut next, mut next_entry) = (rule.clone(), entry.clone());
                let in_file = limiting.change(&mut next, service.map(|(name, _)| name));
                let live = limit(&mut next_entry, &limiting, service.map(|(_, number)| ServiceId(number)));
                prop_assert_eq!(&live, &in_file);
                if live.is_ok() {
                    (rule, entry) = (next, next_entry);
                    prop_assert_eq!(&entry, &in_kernel(&rule));
                }
            }
        }
    }
}
