// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The answer of `limiter status` for people.

use std::time::Duration;

use crate::{
    cli::output::{self, Column, Screen},
    config,
    greeter::{Process, Snapshot},
    instance::{Daemon, Instance},
    status::{CounterValues, Difference, Service, Status, Verified},
};

const COLUMNS: [Column; 9] = [
    Column::words("SERVICE"),
    Column::words("PORTS").goes(5),
    Column::words("RESPONSE").goes(3),
    Column::number("LIMIT"),
    Column::number("CONNECTIONS").or("CONNS"),
    Column::number("ACCEPTED").goes(4),
    Column::number("REFUSED"),
    Column::number("REPLIED").goes(2),
    Column::number("HELD").goes(1),
];

/// What became of clients where TLS starts at once, in words; `None` if none came.
fn inside_tls(greeter: &Snapshot) -> Option<String> {
    let &Snapshot { greeted_by_tls, alerts, over_budget, failed_handshakes, .. } = greeter;
    (greeted_by_tls + alerts + over_budget + failed_handshakes > 0).then(|| {
        format!(
            "TLS: since the daemon started {greeted_by_tls} refused clients got a reason, {alerts} an alert \
             because there is no certificate, {over_budget} an alert because of too many handshakes; \
             {failed_handshakes} handshakes failed"
        )
    })
}

/// Whom the greeter could not tell why, in words; `None` if there was nobody.
fn not_told(greeter: &Snapshot) -> Option<String> {
    let &Snapshot { reset, unexplained, dropped_full, accept_errors, .. } = greeter;
    let causes = [
        (dropped_full, "too many came at once"),
        (unexplained, "their reason was lost"),
        // Those whose reason was lost are among them.
        (reset.saturating_sub(unexplained), "nothing could be said to them"),
    ];
    let resets: Vec<String> = causes
        .iter()
        .filter(|(n, _)| *n > 0)
        .enumerate()
        .map(|(at, (n, cause))| match at {
            0 => format!("{n} refused clients got a reset because {cause}"),
            _ => format!("{n} because {cause}"),
        })
        .collect();
    let mut said: Vec<String> = (!resets.is_empty()).then(|| resets.join(", ")).into_iter().collect();
    if accept_errors > 0 {
        said.push(format!("accepting failed {accept_errors} times for want of files or memory"));
    }
    (!said.is_empty()).then(|| format!("greeter: since the daemon started {}", said.join("; ")))
}

/// How often its process has ended by itself, in words; `None` if it has not.
fn restarts(process: &Process) -> Option<String> {
    match process.restarts {
        0 => None,
        1 => Some("greeter: since the daemon started it was started again once".to_owned()),
        times => Some(format!("greeter: since the daemon started it was started again {times} times")),
    }
}

/// What is shown of it.
pub fn screen(status: &Status, width: output::Width) -> Screen {
    let mut screen = Screen::new(width);
    let greeter = status.greeter.as_ref().map(|greeter| &greeter.process);
    let daemon = match (&status.daemon, greeter.and_then(|process| process.pid)) {
        (Daemon { pid: Some(pid), answers: true, .. }, Some(greeter)) => {
            format!("daemon running, pid {pid}, greeter pid {greeter}")
        }
        (Daemon { pid: Some(pid), answers: true, .. }, None) => format!("daemon running, pid {pid}"),
        (Daemon { pid: Some(pid), .. }, _) => format!("daemon not answering, pid {pid}"),
        _ => "daemon not running".to_owned(),
    };
    let limits = if status.in_force { "limits in force" } else { "LIMITS NOT IN FORCE" };
    screen.line(&format!("instance {}: {limits}, {daemon}", status.instance));
    let rows: Vec<Vec<String>> = status.services.iter().map(Service::row).collect();
    screen.blank();
    screen.table(&COLUMNS, &rows);
    screen.paragraph(status.services.iter().filter_map(Service::further_limits));
    screen.paragraph(status.services.iter().filter_map(Service::waits));
    let totals = || status.greeter.iter().map(|greeter| &greeter.totals);
    screen.paragraph(totals().filter_map(inside_tls));
    screen.paragraph(totals().filter_map(not_told));
    screen.paragraph(greeter.and_then(restarts));
    screen.paragraph(status.certificates.iter().map(ToString::to_string));
    screen.paragraph(status.shield.iter().map(|attachment| format!("shield on {attachment}")));
    if status.bans > 0 {
        screen.paragraph([format!(
            "bans in force: {}; `{} bans` lists them",
            status.bans,
            Instance::program_of(&status.instance)
        )]);
    }
    if let Some(Verified { connections, dead, differences }) = &status.verified {
        let agree = if differences.is_empty() { "all counts match" } else { "some counts did not match" };
        screen.paragraph([format!(
            "{connections} connections in the kernel's socket table, {dead} dead but not closed: {agree}"
        )]);
        for Difference { what, corrected } in differences {
            let now = if *corrected { "corrected" } else { "it has changed since" };
            screen.line(&format!("  {what}: {now}"));
        }
    }
    for warning in &status.warnings {
        screen.paragraph([format!("warning: {warning}")]);
    }
    screen
}

impl Service {
    fn row(&self) -> Vec<String> {
        let ports = self.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        vec![
            self.name.clone(),
            if ports.is_empty() { "(none)".to_owned() } else { ports },
            self.response.to_string(),
            self.max_connections.to_string(),
            match self.max_total {
                Some(max) => format!("{} of {max}", self.connections),
                None => self.connections.to_string(),
            },
            // As `list` has it of each source: with those that are older than the limiter.
            (self.counters.accepted + self.counters.adopted).to_string(),
            self.counters.refused.to_string(),
            self.counters.replied.to_string(),
            self.counters.held.to_string(),
        ]
    }

    /// What became of those that waited, in words; `None` if nobody ever did.
    fn waits(&self) -> Option<String> {
        let CounterValues { let_in, told, gone, lost_turn, .. } = self.counters;
        if u64::from(self.waiting) + let_in + told + gone + lost_turn == 0 {
            return None;
        }
        let now = match self.waiting {
            0 => "no client waits for a place".to_owned(),
            n => format!("{n} wait for a place, the first for {} s", self.waiting_first_seconds),
        };
        Some(format!(
            "{}: {now}; since loading {let_in} got in after waiting, {told} were refused, {gone} gave up, \
             {lost_turn} missed their turn",
            self.name
        ))
    }

    /// What holds besides the limit of a source, in words; `None` if nothing does. A `wait` is in it only
    /// where it is another than the default, or every service would have a line.
    fn further_limits(&self) -> Option<String> {
        let mut limits = Vec::new();
        if let (Some(rate), Some(burst)) = (&self.rate, self.burst) {
            limits.push(format!("{rate} per source, {burst} at once"));
        }
        if let Some(config::Network { ipv4_prefix, ipv6_prefix, max_connections }) = self.network {
            limits.push(format!("{max_connections} per network (/{ipv4_prefix}, /{ipv6_prefix})"));
        }
        match (self.max_total, self.reserve) {
            (Some(total), 0) => limits.push(format!("{total} in total")),
            (Some(total), reserve) => {
                limits.push(format!("{total} in total, {reserve} more for allowed sources"));
            }
            (None, _) => {}
        }
        if let Some(seconds) = self.keepalive_seconds {
            let time = output::time(Duration::from_secs(seconds.into()));
            limits.push(format!("connections of vanished clients end within {time}"));
        }
        match self.wait_seconds {
            config::WAIT_SECONDS => {}
            0 => limits.push("no client waits for a place".to_owned()),
            seconds => {
                let time = output::time(Duration::from_secs(seconds.into()));
                limits.push(format!("clients wait {time} for a place"));
            }
        }
        (!limits.is_empty()).then(|| format!("{}: {}", self.name, limits.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_could_not_be_told_why_is_in_one_line_and_nobody_in_none() {
        let none = Snapshot { greeted: 7, greeted_by_tls: 2, alerts: 1, ..Snapshot::default() };
        assert_eq!(not_told(&none), None);
        let said = |snapshot| not_told(&snapshot).unwrap();
        assert_eq!(
            said(Snapshot { dropped_full: 172, ..none }),
            "greeter: since the daemon started 172 refused clients got a reset because too many came at once"
        );
        assert_eq!(
            said(Snapshot { reset: 2, unexplained: 2, ..none }),
            "greeter: since the daemon started 2 refused clients got a reset because their reason was lost"
        );
        assert_eq!(
            said(Snapshot { reset: 9, unexplained: 2, accept_errors: 1, ..none }),
            "greeter: since the daemon started 2 refused clients got a reset because their reason was lost, 7 because \
             nothing could be said to them; accepting failed 1 times for want of files or memory"
        );
        assert_eq!(
            said(Snapshot { accept_errors: 3, ..none }),
            "greeter: since the daemon started accepting failed 3 times for want of files or memory"
        );
    }
}
