// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter connections`

use std::{cmp::Reverse, process::ExitCode, time::Duration};

use anyhow::Result;
use ipnet::IpNet;
use serde::Serialize;

use super::{
    input,
    loaded::{enter_protected, loaded, steadily},
    output::{self, Column, Format, Screen},
};
use crate::{
    evidence::{self, Connection, Process, case::Session},
    instance::Instance,
    policy,
    sock_diag::Waits,
};

#[derive(clap::Args)]
pub struct Args {
    /// Only clients with this IPv4 or IPv6 address, or in this network
    #[arg(value_name = "ADDR|NETWORK", value_parser = input::network)]
    network: Option<IpNet>,

    /// Only these services, separated by commas
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    #[command(flatten)]
    pub format: Format,
}

/// The connections that are counted.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connections {
    /// The longest idle first.
    pub connections: Vec<Line>,
    /// Why users are not known, where a mail daemon that could tell has not.
    pub users_not_known: Option<String>,
}

/// One connection.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Line {
    /// The service's name.
    pub service: String,
    /// The client's address.
    pub address: String,
    /// Its port; none of a dead connection.
    pub port: Option<u16>,
    /// The address and port it has called; none of a dead connection.
    pub local: Option<String>,
    /// What it is counted as.
    pub source: String,
    /// `open`, `client closed`, `server closed` or `dead`.
    pub state: &'static str,
    /// Seconds since it was established; none if it is older than its record.
    pub age_seconds: Option<f64>,
    /// Seconds without data either way; none if the kernel does not tell.
    pub idle_seconds: Option<f64>,
    /// Seconds in which nothing at all came from the client.
    pub silent_seconds: Option<f64>,
    /// Bytes from the client.
    pub received_bytes: Option<u64>,
    /// Bytes that the client has acknowledged.
    pub sent_bytes: Option<u64>,
    /// Bytes from the client that the mail daemon has not read.
    pub unread_bytes: Option<u32>,
    /// Bytes to the client that it has not acknowledged.
    pub unacknowledged_bytes: Option<u32>,
    /// Segments that were sent again, in all.
    pub retransmits: Option<u32>,
    /// Times that what is sent now was sent again without an answer.
    pub unanswered: Option<u32>,
    /// Whether keepalive probes are sent.
    pub keepalive: Option<bool>,
    /// The round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The process that has it; none if it was not found, or has not accepted it yet.
    pub process: Option<Process>,
    /// The user that is logged in, as the mail daemon says it; none where it does not say it of this connection.
    pub user: Option<String>,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let connections = steadily(instance, || {
        let tables = loaded(instance)?;
        enter_protected(instance, &tables)?;
        let services = tables.policy.services()?;
        let selected = policy::select(&services, args.service.as_deref())?;
        let (mut sessions, problem) = evidence::sessions(&tables, args.network, &selected)?;
        sessions.sort_by_cached_key(|one| {
            let Connection { remote, cookie, .. } = one.connection;
            (Reverse(one.connection.idle()), remote, cookie)
        });
        let line = |one: &Session| Line::of(one, policy::service_name(&services, one.connection.service));
        Ok(Connections { connections: sessions.iter().map(line).collect(), users_not_known: problem })
    })?;
    let is_part = args.network.is_some() || args.service.is_some();
    if args.format.json {
        output::json(&connections)?;
    } else {
        screen(&connections, is_part, output::width()).show()?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Line {
    fn of(session: &Session, service: String) -> Self {
        let Session { connection: one, user } = session;
        let (socket, tcp) = (one.socket, one.tcp());
        Self {
            service,
            address: one.remote.to_string(),
            port: socket.map(|socket| socket.tuple.remote.port()),
            local: socket.map(|socket| socket.tuple.local.to_string()),
            source: one.source.addresses().to_string(),
            state: one.state.name(),
            age_seconds: one.age.map(|age| age.as_secs_f64()),
            idle_seconds: one.idle().map(|idle| idle.as_secs_f64()),
            silent_seconds: one.silent().map(|silent| silent.as_secs_f64()),
            received_bytes: tcp.map(|tcp| tcp.received),
            sent_bytes: tcp.map(|tcp| tcp.sent),
            unread_bytes: socket.map(|socket| socket.unread),
            unacknowledged_bytes: socket.map(|socket| socket.unacknowledged),
            retransmits: tcp.map(|tcp| tcp.retransmits),
            unanswered: tcp.map(|tcp| {
                let sent_again = match socket.and_then(|socket| socket.timer) {
                    Some(Waits::Acknowledgement(times)) => times,
                    _ => 0,
                };
                u32::from(sent_again.max(tcp.probes))
            }),
            keepalive: socket.map(|socket| socket.timer == Some(Waits::Keepalive)),
            rtt_ms: tcp.map(|tcp| tcp.rtt.as_secs_f64() * 1000.0),
            process: one.process.clone(),
            user: user.clone(),
        }
    }
}

const COLUMNS: [Column; 10] = [
    Column::words("SERVICE"),
    Column::words("CLIENT"),
    Column::words("STATE"),
    Column::number("AGE"),
    Column::number("IDLE"),
    Column::number("RECEIVED").goes(3),
    Column::number("SENT").goes(2),
    Column::number("RESENT").goes(1),
    Column::words("PROCESS").goes(4),
    Column::words("USER"),
];

/// Which of them has nothing to say where no user is known.
const USER: usize = 9;

/// What is shown of them; `is_part` where not all were asked for.
pub fn screen(connections: &Connections, is_part: bool, width: output::Width) -> Screen {
    let Connections { connections: lines, users_not_known } = connections;
    let mut screen = Screen::new(width);
    if lines.is_empty() {
        screen.line(if is_part { "no matching connection" } else { "no connection" });
        return screen;
    }
    let seconds = |seconds: Option<f64>| {
        seconds.map_or_else(|| "?".to_owned(), |seconds| output::time(Duration::from_secs(seconds as u64)))
    };
    let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), bytes);
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let client = match (line.port, line.address.contains(':')) {
                (Some(port), true) => format!("[{}]:{port}", line.address),
                (Some(port), false) => format!("{}:{port}", line.address),
                (None, _) => line.address.clone(),
            };
            vec![
                line.service.clone(),
                client,
                line.state.to_owned(),
                seconds(line.age_seconds),
                seconds(line.idle_seconds),
                number(line.received_bytes),
                number(line.sent_bytes),
                line.retransmits.map_or_else(|| "?".to_owned(), |times| times.to_string()),
                line.process.as_ref().map_or_else(|| "?".to_owned(), |it| format!("{} {}", it.name, it.pid)),
                line.user.clone().unwrap_or_else(|| "?".to_owned()),
            ]
        })
        .collect();
    let has_no_user = lines.iter().all(|line| line.user.is_none());
    let (columns, rows) = output::without(USER, has_no_user, &COLUMNS, rows);
    screen.table(&columns, &rows);
    let has_unknown = rows.iter().flatten().any(|cell| cell == "?");
    let users = users_not_known.as_ref().map(|why| format!("users are not known: {why}"));
    screen.paragraph(has_unknown.then(|| "?: not known".to_owned()).into_iter().chain(users));
    screen
}

/// So many bytes, as people say them.
fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS.iter().find(|(unit, _)| bytes >= *unit).map_or_else(
        || format!("{bytes} B"),
        |(unit, name)| format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_said_in_the_unit_that_fits() {
        let said = [0, 1023, 1024, 1536, 10 << 20, 3 << 30].map(bytes);
        assert_eq!(said, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10.0 MiB", "3.0 GiB"]);
    }
}
