// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a daemon's settings mean to the limiter, whichever daemon it is.

use std::fmt;

use ipnet::IpNet;
use limiter_common::{Protocol, Rate, rule::Action};

use super::net;
use crate::config::CertificateFiles;

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

impl<T> Sourced<T> {
    /// The setting that it came from, without the daemon's name.
    pub fn setting(&self) -> String {
        let first = self.source.iter().find(|line| !line.is_empty()).map_or("", String::as_str);
        first.split_once(": ").map_or(first, |(_, setting)| setting).trim_end_matches('.').to_owned()
    }
}

/// How many, as far as the daemon's settings tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// As many as there are: that is what the settings say.
    None,
    /// So many, at least 1.
    Of(u64),
    /// The settings say something that is not understood. It is never taken for "no limit".
    Unknown,
}

impl Limit {
    /// A number of which 0 means that there is no limit.
    pub const fn or_none(number: u64) -> Self {
        if number == 0 { Self::None } else { Self::Of(number) }
    }

    /// The lower one. What is not known may be lower than what has no limit.
    pub const fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Of(one), Self::Of(two)) => Self::Of(if one < two { one } else { two }),
            (Self::Of(one), _) | (_, Self::Of(one)) => Self::Of(one),
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::None, Self::None) => Self::None,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("no limit"),
            Self::Of(number) => number.fmt(out),
            Self::Unknown => out.write_str("an unknown limit"),
        }
    }
}

/// A number of connections in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSpec {
    /// How many, also at once: 1 to [`Rate::MAX_COUNT`].
    pub burst: u32,
    /// How many in a unit, 1 to [`Rate::MAX_COUNT`].
    pub count: u32,
    /// The unit: `s`, `min` or `h`.
    pub unit: &'static str,
    /// Whether it is exactly what was asked for, or the next higher rate there is a word for.
    pub exact: bool,
}

impl RateSpec {
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

impl RateSpec {
    /// The lower of two, and the lower burst.
    pub fn stricter(self, other: Self) -> Self {
        let per_hour = |spec: Self| {
            u64::from(spec.count)
                * match spec.unit {
                    "s" => 3600,
                    "min" => 60,
                    _ => 1,
                }
        };
        let lower = if per_hour(other) < per_hour(self) { other } else { self };
        Self { burst: self.burst.min(other.burst), ..lower }
    }
}

fn in_range(count: u64) -> Option<u32> {
    u32::try_from(count).ok().filter(|count| (1..=Rate::MAX_COUNT).contains(count))
}

/// Ports with one budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name in the configuration; [`Import::new`](super::Import::new) makes it one that can be.
    pub name: String,
    /// What it is for the daemon.
    pub ports: Sourced<Vec<u16>>,
    /// Those of them where TLS starts at once; none where the settings do not say.
    pub tls_ports: Option<Sourced<Vec<u16>>>,
    /// The certificates there.
    pub tls: Vec<Sourced<CertificateFiles>>,
    /// What its clients speak.
    pub protocol: Protocol,
    /// Connections of one source.
    pub max_connections: Sourced<Limit>,
    /// How much of an IPv4 address makes a source.
    pub ipv4_prefix: Option<Sourced<u64>>,
    /// How much of an IPv6 address makes a source.
    pub ipv6_prefix: Option<Sourced<u64>>,
    /// How fast one source may connect.
    pub rate: Option<Sourced<RateSpec>>,
    /// Connections of the whole service.
    pub max_total: Sourced<Limit>,
    /// Connections on top of that for allowed sources.
    pub reserve: Option<Sourced<u64>>,
    /// The daemon's own limits as it has them, for who is to change them there.
    pub own: Vec<OwnLimit>,
}

/// A limit of the daemon's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLimit {
    /// The setting: `smtpd_client_connection_count_limit`.
    pub setting: String,
    /// How many.
    pub limit: Limit,
    /// Whom it is for.
    pub scope: Scope,
}

/// Whom a limit of a daemon is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each address.
    Source,
    /// Each user at each address.
    UserAtSource,
    /// The whole service.
    Service,
}

impl OwnLimit {
    /// A limit with this setting.
    pub fn new(setting: impl Into<String>, limit: Limit, scope: Scope) -> Self {
        Self { setting: setting.into(), limit, scope }
    }
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
    /// The file, or the directory, with its configuration, if its settings say it.
    pub configuration: Option<String>,
    /// What it listens on.
    pub services: Vec<Service>,
    /// What it says of networks.
    pub rules: Vec<Rule>,
    /// What is not carried over.
    pub left_out: Vec<LeftOut>,
    /// The settings by which connections come through a proxy that says who the client is (PROXY protocol).
    pub proxied: Vec<String>,
}

/// Why a text is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It holds no settings of this daemon.
    Other,
    /// A part of it is missing, so what is left cannot be trusted: where that shows.
    Cut(String),
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

    /// Names a setting by which connections come through a proxy that says who the client is.
    pub fn is_behind_proxy(&mut self, setting: impl Into<String>) {
        let setting = setting.into();
        if !self.proxied.contains(&setting) {
            self.proxied.push(setting);
        }
    }

    /// Names lines that are not understood: the first of them, and how many more there are.
    pub fn not_understood(&mut self, lines: &[String]) {
        const NAMED: usize = 10;
        for line in lines.iter().take(NAMED) {
            self.leave_out(line.clone(), "import does not understand this line, and ignores it");
        }
        if lines.len() > NAMED {
            self.leave_out(
                format!("{} more lines", lines.len() - NAMED),
                "import does not understand these lines, and ignores them",
            );
        }
    }

    /// A rule for `network`; the host itself and the whole world need none.
    pub fn rule(&mut self, network: IpNet, action: Action, source: &str) {
        if net::is_loopback(&network) && action == Action::Allow {
            return;
        }
        if network.prefix_len() == 0 {
            let why = "this matches every address: remove the limits instead";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_said_in_the_unit_it_was_given_in_or_in_one_that_is_exact() {
        let said = |count, seconds| {
            RateSpec::of(count, seconds).map(|spec| format!("{}/{} {}", spec.count, spec.unit, spec.exact))
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
