// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What advice rests on, as plain data.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::{Day, Quarter};

/// What is known of a service.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Its name.
    pub service: String,
    /// The limit of a source that is in force.
    pub max_connections: u32,
    /// Whether it refuses nobody.
    pub observes: bool,
    /// Its days.
    pub days: Vec<Day>,
    /// The rows of sources that were refused or reached half of their limit.
    pub notable: Vec<Quarter>,
    /// All rows of sources to which a rule gives another limit, or none: the limit of the service is not for them.
    pub ruled: Vec<Quarter>,
    /// What the mail daemons that serve it have.
    pub mail: Vec<MailLimit>,
}

/// A mail daemon's own limit of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MailLimit {
    /// Its name.
    pub daemon: &'static str,
    /// The setting, as it has it.
    pub setting: String,
    /// The limit; none: it has none.
    pub limit: Option<u64>,
}

/// How many source-days had which peak.
pub type ByPeak = BTreeMap<u32, u64>;
