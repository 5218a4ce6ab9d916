// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The limits of all daemons together: each port, each name and each network once, every number in its
//! range and fitting to the others.

use std::collections::BTreeMap;

use ipnet::IpNet;
use limiter_common::{MAX_SERVICES, ServicePolicy, rule::Action};

use super::{
    model::{Daemon, Import, Limit, Rule, Service, Sourced},
    net,
};
use crate::config;

impl Import {
    /// Puts together what the daemons have.
    pub fn new(mut daemons: Vec<Daemon>, missing: Vec<String>) -> Self {
        let services = services(&mut daemons);
        let rules = rules(&mut daemons);
        Self { daemons, missing, services, rules }
    }
}

/// The services of all, each port and each name once. A port has one limit here: where two services
/// have it, the stricter of their limits holds.
fn services(daemons: &mut [Daemon]) -> Vec<(&'static str, Service)> {
    let mut services: Vec<(&'static str, Service)> = Vec::new();
    // The built-in ones are there anyway, under their names.
    let room = MAX_SERVICES as usize - 1 - 6;
    for daemon in daemons {
        for mut service in std::mem::take(&mut daemon.services) {
            let what = service.ports.source.join("; ");
            service.ports.value.sort_unstable();
            service.ports.value.dedup();
            if service.ports.value.first() == Some(&0) {
                service.ports.value.remove(0);
                daemon.leave_out(what.clone(), "port 0 does not exist");
            }
            for (_, owner) in &mut services {
                let (both, free): (Vec<u16>, Vec<u16>) =
                    service.ports.value.iter().partition(|port| owner.ports.value.contains(port));
                service.ports.value = free;
                for port in &both {
                    let other = if owner.has_the_limits_of(&service) { "the same" } else { "other" };
                    let mut why = format!(
                        "port {port} already belongs to [service.{}], which has {other} limits",
                        owner.name
                    );
                    if other == "other" {
                        why.push_str(": each stricter limit is used there, and both are listed");
                    }
                    daemon.leave_out(what.clone(), why);
                }
                if let Some(port) = both.first() {
                    owner.take_the_stricter(&service, *port);
                }
            }
            let Some(&first) = service.ports.value.first() else { continue };
            if services.len() >= room {
                daemon.leave_out(what, "the limiter cannot hold so many services");
                continue;
            }
            let is_taken = |name: &str| services.iter().any(|(_, other)| other.name == name);
            if is_taken(&service.name) || ServicePolicy::pack_name(&service.name).is_none() {
                service.name = format!("port-{first}");
            }
            services.push((daemon.name, service));
        }
    }
    services.into_iter().map(|(daemon, service)| (daemon, service.fitted())).collect()
}

/// The rules of all, each network once: allow beats everything.
fn rules(daemons: &mut [Daemon]) -> Vec<Rule> {
    let mut rules: BTreeMap<IpNet, Rule> = BTreeMap::new();
    for daemon in daemons {
        for rule in std::mem::take(&mut daemon.rules) {
            let Some(known) = rules.get_mut(&rule.network) else {
                rules.insert(rule.network, rule);
                continue;
            };
            if known.action == rule.action {
                known.source = format!("{}; {}", known.source, rule.source);
                continue;
            }
            let (allow, deny) =
                if known.action == Action::Allow { (known.clone(), rule) } else { (rule, known.clone()) };
            daemon.leave_out(
                format!("{}: {}", deny.source, net::shown(&deny.network)),
                format!("{} allows it, and allow overrides everything", allow.source),
            );
            *known = allow;
        }
    }
    rules.into_values().collect()
}

impl Service {
    fn has_the_limits_of(&self, other: &Self) -> bool {
        let limits = |service: &Self| {
            let rate = service.rate.as_ref().map(|rate| rate.value);
            let reserve = service.reserve.as_ref().map(|reserve| reserve.value);
            let prefixes = (service.ipv4_prefix(), service.ipv6_prefix());
            (service.max_connections.value, service.max_total.value, rate, reserve, prefixes)
        };
        limits(self) == limits(other)
    }

    fn ipv4_prefix(&self) -> u64 {
        self.ipv4_prefix.as_ref().map_or(DEFAULT_PREFIXES.0, |prefix| prefix.value)
    }

    fn ipv6_prefix(&self) -> u64 {
        self.ipv6_prefix.as_ref().map_or(DEFAULT_PREFIXES.1, |prefix| prefix.value)
    }

    /// The stricter limits of this service and of `other`, which has `port`, too.
    fn take_the_stricter(&mut self, other: &Self, port: u16) {
        let service = self.ports.source.join("; ");
        let other_service = other.ports.source.join("; ");
        for (mine, theirs) in
            [(&mut self.max_connections, &other.max_connections), (&mut self.max_total, &other.max_total)]
        {
            if mine.value == theirs.value {
                continue;
            }
            let stricter = mine.value.stricter(theirs.value);
            let both = format!(
                "Port {port} is in two services: {service} has {}, {other_service} has {}. A port has one \
                 limit here: {stricter} is used, because the other exceeds what one of them allows.",
                mine.value, theirs.value
            );
            mine.source.extend(theirs.source.iter().cloned());
            mine.value = stricter;
            mine.note(both);
        }
        match (&mut self.rate, &other.rate) {
            (Some(mine), Some(theirs)) if mine.value != theirs.value => {
                mine.source.extend(theirs.source.iter().cloned());
                mine.value = mine.value.stricter(theirs.value);
                mine.note(format!(
                    "Port {port} is in two services with these two rates: {service} and {other_service}. The \
                     lower one is used."
                ));
            }
            (None, Some(theirs)) => {
                let mut rate = theirs.clone();
                rate.note(format!(
                    "Port {port} is in two services: {other_service} has this rate, {service} has none. A port \
                     has one rate here: the lower one is used."
                ));
                self.rate = Some(rate);
            }
            (Some(mine), None) => mine.note(format!(
                "Port {port} is in two services: {service} has this rate, {other_service} has none. A port has \
                 one rate here: the lower one is used."
            )),
            _ => {}
        }
        let is_wider = [other.ipv4_prefix() < self.ipv4_prefix(), other.ipv6_prefix() < self.ipv6_prefix()];
        for (mine, theirs, is_wider) in [
            (&mut self.ipv4_prefix, &other.ipv4_prefix, is_wider[0]),
            (&mut self.ipv6_prefix, &other.ipv6_prefix, is_wider[1]),
        ] {
            if let Some(theirs) = theirs
                && is_wider
            {
                let mut prefix = theirs.clone();
                prefix.note(format!("Port {port} is in two services: the larger source of both is used."));
                *mine = Some(prefix);
            }
        }
        let lower = |mine: &Sourced<u64>| {
            other.reserve.as_ref().filter(|theirs| theirs.value < mine.value).unwrap_or(mine).clone()
        };
        self.reserve = self.reserve.as_ref().filter(|_| other.reserve.is_some()).map(lower);
    }

    /// With numbers that are in range and fit together.
    fn fitted(mut self) -> Self {
        let most = u64::from(ServicePolicy::MAX_LIMIT);
        if let Limit::Of(total) = self.max_total.value
            && total > most
        {
            self.max_total.note(format!("More than {most}, so it is not a limit."));
            self.max_total.value = Limit::None;
        }
        let limit = &mut self.max_connections;
        let default = config::Config::default().services.first().map_or(1, |service| service.max_connections);
        match (limit.value, self.max_total.value) {
            (Limit::None, Limit::Of(total)) => {
                limit.note(format!("So one source can hold all {total} of the service."));
                limit.value = Limit::Of(total);
            }
            (Limit::Of(number), Limit::Of(total)) if number > total => {
                limit.note(format!("But the service has at most {total}."));
                limit.value = Limit::Of(total);
            }
            (Limit::Unknown, Limit::Of(total)) if total < u64::from(default) => {
                limit.note(format!("It is unknown, but the service has at most {total}."));
                limit.value = Limit::Of(total);
            }
            (Limit::None, Limit::Unknown) => {
                limit.note(
                    "So one source can hold all connections of the service, and that number is unknown.",
                );
                limit.value = Limit::Unknown;
            }
            (Limit::None, Limit::None) => {
                limit.note(format!("The service has none either: {most} is the largest possible value."));
                limit.value = Limit::Of(most);
            }
            (Limit::Of(number), _) if number > most => {
                limit.note(format!("{most} is the largest possible value."));
                limit.value = Limit::Of(most);
            }
            _ => {}
        }
        if !matches!(self.max_total.value, Limit::Of(_)) {
            self.reserve = None;
        }
        if let Some(reserve) = &mut self.reserve {
            reserve.value = reserve.value.min(most);
        }
        for (prefix, bits) in [(&mut self.ipv4_prefix, 32), (&mut self.ipv6_prefix, 128)] {
            if let Some(said) = prefix {
                let fits = said.value.clamp(1, bits);
                if fits != said.value {
                    said.note(format!("{fits} is the nearest possible value."));
                    said.value = fits;
                }
            }
        }
        self
    }
}

/// How much of an IPv4 and of an IPv6 address makes a source where nothing is said.
const DEFAULT_PREFIXES: (u64, u64) = (32, 64);
