// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The answer of `limiter status`, as `--json` prints it.

use serde::Serialize;

use super::service::Service;
use crate::{greeter::tls, instance::Daemon, shield};

#[derive(Serialize)]
pub struct Status {
    pub(in crate::cli) instance: String,
    /// Whether every program is attached.
    pub(in crate::cli) in_force: bool,
    pub(in crate::cli) daemon: Daemon,
    /// Where denied and banned sources are dropped before anything is spent on them.
    pub(in crate::cli) shield: Vec<shield::Attachment>,
    /// The greeter's process, and what it has done since the daemon started; none where no daemon says.
    pub(in crate::cli) greeter: Option<tls::State>,
    /// The certificates with which it says why inside TLS.
    pub(in crate::cli) certificates: Vec<tls::Certificate>,
    /// Bans in force.
    pub(in crate::cli) bans: usize,
    /// With `--verify`, what it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) verified: Option<Verified>,
    pub(in crate::cli) services: Vec<Service>,
    pub(in crate::cli) warnings: Vec<String>,
}

/// The ledger against the socket table.
#[derive(Serialize)]
pub struct Verified {
    /// Connections in the socket table.
    pub(super) connections: usize,
    /// Dead connections, which are in no table, whose owner has not let go.
    pub(super) dead: usize,
    /// Counts that were wrong.
    pub(super) differences: Vec<Difference>,
}

#[derive(Serialize)]
pub struct Difference {
    /// Whose count, and by how much it is off, in words.
    pub(super) what: String,
    pub(super) corrected: bool,
}

/// Nothing is loaded.
#[derive(Serialize)]
pub struct Nothing {
    pub(super) instance: String,
    pub(super) in_force: bool,
    pub(super) daemon: Daemon,
    pub(super) services: [(); 0],
    pub(super) warnings: [(); 0],
    pub(super) error: String,
}
