// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A service and its limits, resolved.

use limiter_common::{Keepalive, Mode, Protocol, Rate, Response, ServicePolicy, service::Prefixes};

use super::{CertificateFiles, RateSpec};
use crate::wording::Wording;

/// A set of ports with one protocol and one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, as [`ServicePolicy::pack_name`] takes it.
    pub name: String,
    /// Its ports, sorted, each once. Without ports the service is not limited.
    pub ports: Vec<u16>,
    /// Those of them where TLS starts at once, sorted, each once.
    pub tls_ports: Vec<u16>,
    /// The certificates with which the greeter speaks there.
    pub tls: Vec<CertificateFiles>,
    /// What its clients speak.
    pub protocol: Protocol,
    /// Connections one source may hold, 1 to [`ServicePolicy::MAX_LIMIT`].
    pub max_connections: u32,
    /// How much of an IPv4 address makes a source, 1 to 32.
    pub ipv4_prefix: u8,
    /// How much of an IPv6 address makes a source, 1 to 128.
    pub ipv6_prefix: u8,
    /// How a refusal is answered.
    pub response: Response,
    /// Whether verdicts are carried out.
    pub mode: Mode,
    /// How fast one source may connect.
    pub rate: Option<RateWithBurst>,
    /// What one network, of many sources, may hold.
    pub network: Option<Network>,
    /// Connections of the whole service, 1 to [`ServicePolicy::MAX_LIMIT`].
    pub max_total: Option<u32>,
    /// Connections on top of `max_total` that only allowed sources may use, up to
    /// [`ServicePolicy::MAX_LIMIT`].
    pub reserve: u32,
    /// After how many seconds a vanished client's connection ends, 30 to 86,400; `None`: when the mail
    /// daemon or the system says.
    pub keepalive: Option<u32>,
    /// How many seconds a handshake without a place waits for one, 0 to [`ServicePolicy::MAX_WAIT_S`]; 0:
    /// its client is told at once.
    pub wait: u8,
    /// What refused clients are told, where that is not what the limiter says.
    pub wording: Wording,
}

/// A rate and its burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateWithBurst {
    /// How many connections in a time.
    pub spec: RateSpec,
    /// How many of them at once, 1 to [`Rate::MAX_COUNT`].
    pub burst: u32,
}

/// The limit of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Network {
    /// How much of an IPv4 address makes a network, 1 to the service's `ipv4_prefix`.
    pub ipv4_prefix: u8,
    /// How much of an IPv6 address makes a network, 1 to the service's `ipv6_prefix`.
    pub ipv6_prefix: u8,
    /// Connections one network may hold, from the service's `max_connections` to
    /// [`ServicePolicy::MAX_LIMIT`].
    pub max_connections: u32,
}

impl Network {
    /// The prefixes of a network where nobody says otherwise.
    pub const PREFIXES: Prefixes = Prefixes { ipv4: 24, ipv6: 48 };

    /// The same where sources have these prefixes: rules may have a limit for networks where the service has none.
    #[must_use]
    pub fn prefixes(ipv4: u8, ipv6: u8) -> Prefixes {
        Prefixes { ipv4: Self::PREFIXES.ipv4.min(ipv4), ipv6: Self::PREFIXES.ipv6.min(ipv6) }
    }
}

impl Service {
    /// The policy as the kernel reads it.
    #[must_use]
    pub fn policy(&self) -> ServicePolicy {
        ServicePolicy {
            name: ServicePolicy::pack_name(&self.name).unwrap_or_default(),
            rate: self.rate.map_or_else(Rate::default, |rate| rate.spec.rate(rate.burst)),
            keepalive: self.keepalive.map_or_else(Keepalive::default, Keepalive::within),
            max_connections: self.max_connections,
            network_max_connections: self.network.map_or(0, |network| network.max_connections),
            max_total: self.max_total.unwrap_or(0),
            reserve: self.reserve,
            source: Prefixes { ipv4: self.ipv4_prefix, ipv6: self.ipv6_prefix },
            network: self.network.map_or_else(
                || Network::prefixes(self.ipv4_prefix, self.ipv6_prefix),
                |network| Prefixes { ipv4: network.ipv4_prefix, ipv6: network.ipv6_prefix },
            ),
            protocol: self.protocol as u8,
            response: self.response as u8,
            mode: self.mode as u8,
            wait_s: self.wait,
        }
    }
}
