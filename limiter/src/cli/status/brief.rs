// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter status --brief`: one line and an exit code, as monitoring plugins have them (Monitoring Plugins Development
//! Guidelines: status, text, `|`, performance data as `label=value[UOM];warn;crit;min;max`).

use std::fmt::Write as _;

use crate::{
    instance::{Daemon, Instance},
    status::Status,
};

/// Everything is as it should be.
const OK: u8 = 0;
/// The limits hold, and something is to be looked at.
const WARNING: u8 = 1;
/// Nobody is limited.
pub const CRITICAL: u8 = 2;
/// It cannot be told.
pub const UNKNOWN: u8 = 3;

/// The line and the code.
pub fn line(status: &Status) -> (String, u8) {
    let code = match status {
        Status { in_force: false, .. } => CRITICAL,
        Status { warnings, .. } if !warnings.is_empty() => WARNING,
        _ => OK,
    };
    let limits = if status.in_force { "limits in force" } else { "limits not in force" };
    let daemon = match status.daemon {
        Daemon { answers: true, .. } => "daemon running",
        Daemon { running: true, .. } => "daemon not answering",
        _ => "daemon not running",
    };
    let connections: u64 = status.services.iter().map(|service| u64::from(service.connections)).sum();
    let mut line = said(&status.instance, code, &format!("{limits}, {daemon}, {connections} connections"));
    for warning in &status.warnings {
        let _to_a_string = write!(line, "; {}", plain(&warning.text));
    }
    line.push_str(" |");
    for service in &status.services {
        let (name, max) = (&service.name, service.max_total.map_or_else(String::new, |max| max.to_string()));
        // Counters are the whole of what was counted (`c`); the others are what is now.
        let _to_a_string = write!(
            line,
            " {name}_connections={};;;0;{max} {name}_waiting={};;;0; {name}_accepted={}c {name}_refused={}c",
            service.connections, service.waiting, service.counters.accepted, service.counters.refused
        );
    }
    let _to_a_string = write!(line, " bans={};;;0;", status.bans);
    (line, code)
}

/// That of an instance that is not loaded.
pub fn nothing(instance: &Instance, what: &str) -> String {
    said(&instance.to_string(), CRITICAL, &plain(what))
}

/// That of a look that failed.
pub fn unknown(why: &str) -> String {
    format!("LIMITER UNKNOWN - {}", plain(why))
}

fn said(instance: &str, code: u8, text: &str) -> String {
    let word = match code {
        OK => "OK",
        WARNING => "WARNING",
        _ => "CRITICAL",
    };
    format!("LIMITER {word} - {instance}: {text}")
}

/// On one line, and without what begins the performance data.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/")
}
