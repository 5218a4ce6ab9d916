// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `[history]`: what is kept of sources, and for how long.

use std::fmt;

use toml::de::DeValue;

use super::{
    check::Value,
    error::{Complaint, Located},
    fields::Section,
    keys,
    reader::{Node, in_order, name, number, start, unknown},
};

/// What the history keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryConfig {
    /// Whether it has the names of users.
    pub users: bool,
    /// For how many days, 1 to 3,650.
    pub days: u32,
    /// How large it may become, in MiB, 8 to 1,048,576.
    pub max_mib: u32,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { users: true, days: 30, max_mib: 256 }
    }
}

/// Reads the value; none where nothing is to be kept.
pub fn read(value: &Node<'_>) -> Result<Option<HistoryConfig>, Located> {
    let table = match value.get_ref() {
        DeValue::Boolean(false) => return Ok(None),
        DeValue::Boolean(true) => return Ok(Some(HistoryConfig::default())),
        DeValue::Table(table) => table,
        other => return Err(Complaint::History(Value::from(other).shown()).at(start(value))),
    };
    let mut history = HistoryConfig::default();
    for (key, value) in in_order(table) {
        match (name(key), value.get_ref()) {
            ("users", DeValue::Boolean(users)) => history.users = *users,
            ("users", other) => {
                return Err(Complaint::HistoryUsers(Value::from(other).shown()).at(start(value)));
            }
            ("days", _) => history.days = number(&keys::HISTORY_DAYS, value)?,
            ("max_mib", _) => history.max_mib = number(&keys::HISTORY_MIB, value)?,
            _ => return Err(unknown(key, Section::History)),
        }
    }
    Ok(Some(history))
}

impl fmt::Display for HistoryConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, days, max_mib } = self;
        writeln!(out, "[history]\nusers = {users}\ndays = {days}\nmax_mib = {max_mib}")
    }
}
