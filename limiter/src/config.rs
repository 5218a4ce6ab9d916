//! The configuration: what the file says, resolved to what the limiter does.
//!
//! Two steps and two types. [`written`] reads the file as its author wrote it, refuses what cannot be
//! meant, and remembers where each thing stands; [`resolve`] lays that over the design's services and
//! defaults and yields [`Config`], in which nothing is left open. No file is needed:
//! `Config::default()` is what an empty one means.
//!
//! [`check`] holds what may be said of each key. The file and `limiter set` ([`setting`]) both go
//! through it, so the two cannot disagree. Every refusal is a [`ConfigError`] or a [`SettingError`]:
//! one sentence with what is wrong, where, and what to do.

mod check;
mod error;
mod load;
mod render;
mod resolve;
mod setting;
#[cfg(test)]
mod tests;
mod written;

use limiter_common::{Protocol, Response, ServicePolicy, service::Prefixes};

pub use check::is_hostname;
pub use error::ConfigError;
pub use load::load;
#[cfg(test)]
pub use load::parse;
pub use setting::{Setting, SettingError, parse_setting};

/// The resolved configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name the greeter gives; `None`: the system's host name.
    pub hostname: Option<String>,
    /// How many sources the ledger can hold, 1,024 to 16,777,216.
    pub max_sources: u32,
    /// How long a source is remembered after its last connection, 1 to 86,400 seconds.
    pub remember_seconds: u32,
    /// The services, sorted by name; at most [`limiter_common::MAX_SERVICES`] - 1, no port in two.
    pub services: Vec<Service>,
}

/// A set of ports with one protocol and one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, as [`ServicePolicy::pack_name`] takes it.
    pub name: String,
    /// Its ports, sorted, each once. Without ports the service is not limited.
    pub ports: Vec<u16>,
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
}

impl Service {
    /// The policy as the kernel reads it.
    #[must_use]
    pub fn policy(&self) -> ServicePolicy {
        ServicePolicy {
            name: ServicePolicy::pack_name(&self.name).unwrap_or_default(),
            max_connections: self.max_connections,
            narrow: Prefixes { ipv4: self.ipv4_prefix, ipv6: self.ipv6_prefix },
            protocol: self.protocol as u8,
            response: self.response as u8,
            ..ServicePolicy::default()
        }
    }
}

impl Default for Config {
    /// The design's services and limits, as they are without any file.
    fn default() -> Self {
        let services = resolve::built_in(&resolve::Defaults::default());
        Self {
            hostname: None,
            max_sources: resolve::MAX_SOURCES,
            remember_seconds: resolve::REMEMBER_SECONDS,
            services,
        }
    }
}
