//! What a daemon's settings mean to the limiter, whichever daemon it is.

use std::collections::BTreeMap;

use limiter_common::{MAX_SERVICES, Protocol, Rate, ServicePolicy, rule::Action};

use super::net;
use ipnet::IpNet;

/// A value and where it came from, a sentence a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// What it is.
    pub value: T,
    /// The parameter it came from, and what else is to be known of it.
    pub source: Vec<String>,
}

impl<T> Sourced<T> {
    /// With one sentence.
    pub fn new(value: T, source: impl Into<String>) -> Self {
        Self { value, source: vec![source.into()] }
    }

    /// And another sentence.
    pub fn note(&mut self, note: impl Into<String>) {
        self.source.push(note.into());
    }
}

/// A number of connections in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many, also at once: 1 to [`Rate::MAX_COUNT`].
    pub burst: u32,
    /// How many in a unit, 1 to [`Rate::MAX_COUNT`].
    pub count: u32,
    /// The unit: `s`, `min` or `h`.
    pub unit: &'static str,
    /// Whether it is exactly what was asked for, or the next higher rate there is a word for.
    pub exact: bool,
}

impl Pace {
    /// `count` connections in `seconds`; `None` if that is no limit, or beyond what can be said.
    pub fn of(count: u64, seconds: u64) -> Option<Self> {
        if count == 0 || seconds == 0 {
            return None;
        }
        let burst = u32::try_from(count).ok().filter(|burst| *burst <= Rate::MAX_COUNT)?;
        let units = [("s", 1), ("min", 60), ("h", 3600)];
        let same = units.iter().find(|(_, unit)| *unit == seconds);
        for &(unit, length) in same.into_iter().chain(&units) {
            let total = count.checked_mul(length)?;
            if total % seconds == 0
                && let Some(count) = in_range(total / seconds)
            {
                return Some(Self { burst, count, unit, exact: true });
            }
        }
        for (unit, length) in units.into_iter().rev() {
            if let Some(count) = in_range(count.checked_mul(length)?.div_ceil(seconds)) {
                return Some(Self { burst, count, unit, exact: false });
            }
        }
        None
    }
}

fn in_range(count: u64) -> Option<u32> {
    u32::try_from(count).ok().filter(|count| (1..=Rate::MAX_COUNT).contains(count))
}

/// Ports with one budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name in the configuration; [`Import::new`] makes it one that can be.
    pub name: String,
    /// What it is for the daemon.
    pub ports: Sourced<Vec<u16>>,
    /// What its clients speak.
    pub protocol: Protocol,
    /// Connections of one source; 0: no limit.
    pub max_connections: Sourced<u64>,
    /// How much of an IPv4 address makes a source.
    pub ipv4_prefix: Option<Sourced<u64>>,
    /// How much of an IPv6 address makes a source.
    pub ipv6_prefix: Option<Sourced<u64>>,
    /// How fast one source may connect.
    pub rate: Option<Sourced<Pace>>,
    /// Connections of the whole service; 0: no limit.
    pub max_total: Sourced<u64>,
    /// Connections on top of that for allowed sources.
    pub reserve: Option<Sourced<u64>>,
}

/// One network and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom.
    pub network: IpNet,
    /// What.
    pub action: Action,
    /// Where it came from.
    pub source: String,
}

/// A setting that does not become a key, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// As the daemon has it.
    pub setting: String,
    /// Why.
    pub why: String,
}

/// The limits of one daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// What it is called.
    pub name: &'static str,
    /// Its version, if its settings say it.
    pub version: Option<String>,
    /// The name it greets with.
    pub hostname: Option<Sourced<String>>,
    /// What it listens on.
    pub services: Vec<Service>,
    /// What it says of networks.
    pub rules: Vec<Rule>,
    /// What is not carried over.
    pub left_out: Vec<LeftOut>,
}

impl Daemon {
    /// Without anything.
    pub fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Names a setting that is not carried over.
    pub fn leave_out(&mut self, setting: impl Into<String>, why: impl Into<String>) {
        let left_out = LeftOut { setting: setting.into(), why: why.into() };
        if !self.left_out.contains(&left_out) {
            self.left_out.push(left_out);
        }
    }

    /// A rule for `network`; the host itself and the whole world need none.
    pub fn rule(&mut self, network: IpNet, action: Action, source: &str) {
        if net::is_loopback(&network) && action == Action::Allow {
            return;
        }
        if network.prefix_len() == 0 {
            let why = "this is every address there is: leave the limits themselves out instead";
            return self.leave_out(format!("{source}: {network}"), why);
        }
        let rule = Rule { network, action, source: source.to_owned() };
        if !self.rules.contains(&rule) {
            self.rules.push(rule);
        }
    }
}

/// The limits of all daemons, in terms of which a configuration can be written: no port and no network
/// twice, every number in its range and fitting to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The daemons; their services and rules are moved to those below.
    pub daemons: Vec<Daemon>,
    /// Sentences about the daemons that were not found.
    pub missing: Vec<String>,
    /// Daemon and service, as far as the configuration can hold them.
    pub services: Vec<(&'static str, Service)>,
    /// The rules, each network once, sorted.
    pub rules: Vec<Rule>,
}

impl Import {
    /// Puts together what the daemons have.
    pub fn new(mut daemons: Vec<Daemon>, missing: Vec<String>) -> Self {
        let services = services(&mut daemons);
        let rules = rules(&mut daemons);
        Self { daemons, missing, services, rules }
    }
}

/// The services of all, each port and each name once.
fn services(daemons: &mut [Daemon]) -> Vec<(&'static str, Service)> {
    let mut owners: BTreeMap<u16, String> = BTreeMap::new();
    let mut services: Vec<(&'static str, Service)> = Vec::new();
    // The built-in ones are there anyway, under their names.
    let room = MAX_SERVICES as usize - 1 - 6;
    for daemon in daemons {
        for mut service in std::mem::take(&mut daemon.services) {
            let (free, taken): (Vec<u16>, Vec<u16>) =
                service.ports.value.iter().partition(|port| **port != 0 && !owners.contains_key(*port));
            let what = service.ports.source.join("; ");
            for port in taken {
                let why = match owners.get(&port) {
                    Some(owner) => {
                        format!("port {port} is in [service.{owner}] already, which has other limits")
                    }
                    None => "there is no port 0".to_owned(),
                };
                daemon.leave_out(what.clone(), why);
            }
            service.ports.value = free;
            service.ports.value.sort_unstable();
            service.ports.value.dedup();
            let Some(&first) = service.ports.value.first() else { continue };
            if services.len() >= room {
                daemon.leave_out(what, "there are more services than the limiter can hold");
                continue;
            }
            let is_taken = |name: &str| services.iter().any(|(_, other)| other.name == name);
            if is_taken(&service.name) || ServicePolicy::pack_name(&service.name).is_none() {
                service.name = format!("port-{first}");
            }
            owners.extend(service.ports.value.iter().map(|&port| (port, service.name.clone())));
            services.push((daemon.name, service.fitted()));
        }
    }
    services
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
                format!("it is allowed by {}, and allow beats everything", allow.source),
            );
            *known = allow;
        }
    }
    rules.into_values().collect()
}

impl Service {
    /// With numbers that are in range and fit together.
    fn fitted(mut self) -> Self {
        let most = u64::from(ServicePolicy::MAX_LIMIT);
        if self.max_total.value > most {
            self.max_total.note(format!("More than {most}, so it is no limit."));
            self.max_total.value = 0;
        }
        let total = Some(self.max_total.value).filter(|total| *total != 0);
        let limit = &mut self.max_connections;
        match total {
            Some(total) if limit.value == 0 => {
                limit.note(format!("So one source may hold all {total} of the service."));
                limit.value = total;
            }
            Some(total) if limit.value > total => {
                limit.note(format!("But the service has no more than {total}."));
                limit.value = total;
            }
            None if limit.value == 0 => {
                limit.note(format!("And none for the service: {most} is the most that can be said here."));
                limit.value = most;
            }
            None if limit.value > most => {
                limit.note(format!("{most} is the most that can be said here."));
                limit.value = most;
            }
            _ => {}
        }
        if total.is_none() {
            self.reserve = None;
        }
        if let Some(reserve) = &mut self.reserve {
            reserve.value = reserve.value.min(most);
        }
        for (prefix, bits) in [(&mut self.ipv4_prefix, 32), (&mut self.ipv6_prefix, 128)] {
            if let Some(said) = prefix {
                let fits = said.value.clamp(1, bits);
                if fits != said.value {
                    said.note(format!("{fits} is the nearest that can be said here."));
                    said.value = fits;
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_said_in_the_unit_it_was_given_in_or_in_one_that_is_exact() {
        let said = |count, seconds| {
            Pace::of(count, seconds).map(|pace| format!("{}/{} {}", pace.count, pace.unit, pace.exact))
        };
        assert_eq!(said(30, 60).as_deref(), Some("30/min true"));
        assert_eq!(said(30, 1).as_deref(), Some("30/s true"));
        assert_eq!(said(7200, 3600).as_deref(), Some("7200/h true"));
        assert_eq!(said(10, 30).as_deref(), Some("20/min true"));
        assert_eq!(said(1, 86_400).as_deref(), Some("1/h false"));
        assert_eq!(said(100, 7).as_deref(), Some("51429/h false"));
        assert_eq!(said(0, 60), None);
        assert_eq!(said(1, 0), None);
        assert_eq!(said(u64::MAX, 60), None);
    }
}
