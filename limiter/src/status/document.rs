// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The answer of `limiter status`, as `--json` prints it.

use serde::Serialize;

use super::{service::Service, warnings::Warning};
use crate::{greeter::tls, instance::Daemon, shield};

#[derive(Serialize)]
pub struct Status {
    pub instance: String,
    /// Whether every program is attached.
    pub in_force: bool,
    pub daemon: Daemon,
    /// Where denied and banned sources are dropped before anything is spent on them.
    pub shield: Vec<shield::Attachment>,
    /// The greeter's process, and what it has done since the daemon started; none where no daemon says.
    pub greeter: Option<tls::State>,
    /// The certificates with which it says why inside TLS.
    pub certificates: Vec<tls::Certificate>,
    /// Bans in force.
    pub bans: usize,
    /// With `--verify`, what it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    pub services: Vec<Service>,
    pub warnings: Vec<Warning>,
}

/// The ledger against the socket table.
#[derive(Serialize)]
pub struct Verified {
    /// Connections in the socket table.
    pub connections: usize,
    /// Dead connections, which are in no table, whose owner has not let go.
    pub dead: usize,
    /// Counts that were wrong.
    pub differences: Vec<Difference>,
}

#[derive(Serialize)]
pub struct Difference {
    /// Whose count, and by how much it is off, in words.
    pub what: String,
    pub corrected: bool,
}

/// Nothing is loaded.
#[derive(Serialize)]
pub struct Nothing {
    pub instance: String,
    pub in_force: bool,
    pub daemon: Daemon,
    pub services: [(); 0],
    pub warnings: [(); 0],
    pub error: String,
}
