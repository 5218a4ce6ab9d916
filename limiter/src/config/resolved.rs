// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The resolved configuration, in which nothing is left open.

use super::{HistoryConfig, Interfaces, LadderConfig, Rule, Service};

/// The resolved configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name the greeter gives; `None`: the system's host name.
    pub hostname: Option<String>,
    /// How many sources the ledger can hold, 1,024 to 16,777,216.
    pub max_sources: u32,
    /// How long a source is remembered after its last connection, 1 to 86,400 seconds.
    pub remember_seconds: u32,
    /// How often the ledger is compared with the kernel's socket table, 5 to 86,400 seconds.
    pub reconcile_seconds: u32,
    /// Where the shield attaches.
    pub interfaces: Interfaces,
    /// What the history keeps; none where there is to be none.
    pub history: Option<HistoryConfig>,
    /// What every source may make of refusals.
    pub ladder: LadderConfig,
    /// The services, sorted by name; at most [`limiter_common::MAX_SERVICES`] - 1, no port in two.
    pub services: Vec<Service>,
    /// The rules, sorted by network, no two for one.
    pub rules: Vec<Rule>,
}
