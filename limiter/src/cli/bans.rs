// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter ban`, `unban` and `bans`.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use limiter_common::{Cause, ServiceId};

use super::{
    answer::{Answer, Done, word},
    caution::{self, Force},
    exit::WrongUsage,
    input,
    loaded::{loaded, locked, steadily},
    output::{self, Column, Format, Screen},
};
use crate::{
    bans::{self, Ban, Bans, Idle, by_hand},
    instance::Instance,
    policy::{self, Services},
};

/// Of so many sources each is named in what is printed; of more only how many they are.
const NAMED: usize = 10;

#[derive(clap::Args)]
pub struct Whom {
    /// IPv4 or IPv6 addresses; each stands for its whole source, by default an IPv6 /64. `unban` also takes networks. If
    /// one is invalid, nothing changes
    #[arg(value_name = "ADDR", value_parser = input::network, required_unless_present = "from")]
    networks: Vec<IpNet>,

    /// Also read addresses from this file, one per line; `#` and `;` start a comment; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// Only these services, separated by commas [default: every service]
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    #[command(flatten)]
    pub format: Format,
}

#[derive(clap::Args)]
pub struct BanArgs {
    #[command(flatten)]
    pub whom: Whom,

    /// Length of the ban, such as 10m, 2h or 7days, at most 30days [default: `ban` of the ladder]
    #[arg(long = "for", value_name = "TIME", value_parser = input::duration)]
    time: Option<Duration>,

    #[command(flatten)]
    force: Force,
}

#[derive(clap::Args)]
pub struct BansArgs {
    #[command(flatten)]
    pub format: Format,
}

/// What some editors begin a file of UTF-8 with.
const BOM: &[u8] = "\u{feff}".as_bytes();

const NOT_BANNED: &str = "not banned";

impl Whom {
    /// All that are meant. One mistake, and nobody is.
    fn networks(&self) -> Result<Vec<IpNet>> {
        let mut networks = self.networks.clone();
        let Some(path) = &self.from else { return Ok(networks) };
        let (name, text) = if path == Path::new("-") {
            let mut text = Vec::new();
            std::io::stdin().lock().read_to_end(&mut text).context("cannot read standard input")?;
            ("standard input".to_owned(), text)
        } else {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            (path.display().to_string(), text)
        };
        for (number, line) in
            (1..).zip(String::from_utf8_lossy(text.strip_prefix(BOM).unwrap_or(&text)).lines())
        {
            let line = line.split(['#', ';']).next().unwrap_or(line).trim();
            if !line.is_empty() {
                let parsed = input::network(line).map_err(|advice| {
                    WrongUsage(format!("{name}, line {number}: {line:?} is not an address: {advice}"))
                })?;
                networks.push(parsed);
            }
        }
        if networks.is_empty() {
            return Err(WrongUsage(format!("{name} contains no address: give one per line")).into());
        }
        Ok(networks)
    }
}

/// `limiter ban ADDR…`.
pub fn ban(instance: &Instance, args: &BanArgs) -> Result<ExitCode> {
    let BanArgs { whom, time, force } = args;
    let networks = whom.networks()?;
    let (mut tables, _bans) = locked(instance, Instance::lock_bans)?;
    let services = policy::select(&tables.policy.services()?, whom.service.as_deref())?.services;
    let keys = by_hand::bannable(instance, &tables, &services, &networks)?;
    force.allows(policy::of_ban(&keys, caution::login()))?;
    let first = Duration::from_secs(u64::from(tables.policy.ladder()?.ban_s));
    let time = time.unwrap_or(first);
    let outcome = by_hand::ban(instance, &mut tables, &keys, time)?;
    let what_then =
        "the bans are in force, but are lost when the host restarts unless the daemon can save them";
    let is = format!("banned for {}", output::time(time));
    answer(&services, outcome, &is, None, what_then).show(&whom.format);
    Ok(ExitCode::SUCCESS)
}

/// `limiter unban ADDR…`.
pub fn unban(instance: &Instance, whom: &Whom) -> Result<ExitCode> {
    let networks = whom.networks()?;
    let (mut tables, _bans) = locked(instance, Instance::lock_bans)?;
    let services = policy::select(&tables.policy.services()?, whom.service.as_deref())?.services;
    let outcome = by_hand::unban(instance, &mut tables, &services, &networks)?;
    let what_then =
        "the bans have ended, but return when the host restarts unless the daemon can save the change";
    answer(&services, outcome, NOT_BANNED, Some(NOT_BANNED), what_then).show(&whom.format);
    Ok(ExitCode::SUCCESS)
}

/// What has become of sources: of many at one service only how many they are, for people. Who was not banned before was
/// `otherwise`; if that is not written down, a warning says `what_then`.
fn answer(
    services: &Services,
    outcome: by_hand::Outcome,
    is: &str,
    otherwise: Option<&str>,
    what_then: &str,
) -> Answer {
    let by_hand::Outcome { sources, written } = outcome;
    if let Err(problem) = written {
        eprintln!("limiter: warning: {problem:#}; {what_then}");
    }
    let done = sources.iter().map(|(key, left)| {
        let what = format!("{}: {}", policy::service_name(services, ServiceId(key.service)), key.addresses());
        let was = left.map(|left| format!("banned for another {}", output::time(left)));
        Done::new(what, was.or_else(|| otherwise.map(str::to_owned)), is)
    });
    let mut answer = Answer::new(done.collect());
    let mut lines = Vec::new();
    for (id, policy) in services {
        let of_service = sources.iter().zip(&answer.changes).filter(|((key, _), _)| key.service == id.0);
        let all: Vec<&Done> = of_service.map(|(_, done)| done).collect();
        if all.len() <= NAMED {
            lines.extend(all.into_iter().map(Done::to_string));
            continue;
        }
        // Where something changed, that is what there is to tell.
        let changed = all.iter().any(|done| done.changed);
        let count = all.iter().filter(|done| done.changed == changed).count();
        lines.push(format!("{}: {count} sources: {is}: {}", policy.name(), word(changed)));
    }
    answer.instead = Some(lines);
    answer
}

/// `limiter bans`.
pub fn show(instance: &Instance, args: &BansArgs) -> Result<ExitCode> {
    let bans = steadily(instance, || bans::all(&loaded(instance)?))?;
    if args.format.json {
        output::json(&bans)?;
    } else {
        screen(&bans, output::width()).show()?;
    }
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [Column; 6] = [
    Column::words("SERVICE"),
    Column::words("SOURCE"),
    Column::number("DROPPED").goes(1),
    Column::number("LEFT"),
    Column::words("MADE BY"),
    Column::number("IN A ROW").goes(2),
];

const IDLE_COLUMNS: [Column; 5] = [
    Column::words("SERVICE"),
    Column::words("SOURCE"),
    Column::number("DROPPED").goes(1),
    Column::number("LEFT"),
    Column::words("BECAUSE").wraps(),
];

/// What is shown of them.
pub fn screen(bans: &Bans, width: output::Width) -> Screen {
    let Bans { bans, not_in_force } = bans;
    let mut screen = Screen::new(width);
    if bans.is_empty() {
        screen.line("no source is banned");
    } else {
        let rows: Vec<Vec<String>> = bans
            .iter()
            .map(|ban| {
                // Of bans by hand nobody counts how many there were.
                let in_a_row = if ban.reason == Cause::Ladder { ban.bans.to_string() } else { String::new() };
                row(ban, [ban.reason.to_string(), in_a_row])
            })
            .collect();
        screen.table(&COLUMNS, &rows);
    }
    if !not_in_force.is_empty() {
        screen.blank();
        screen.line("bans not in force:");
        let rows: Vec<Vec<String>> =
            not_in_force.iter().map(|Idle { ban, because }| row(ban, [because.clone()])).collect();
        screen.table(&IDLE_COLUMNS, &rows);
    }
    screen
}

fn row(ban: &Ban, why: impl IntoIterator<Item = String>) -> Vec<String> {
    let left = output::time(Duration::from_secs(ban.left_seconds));
    let row = [ban.service.clone(), ban.source.clone(), ban.dropped.to_string(), left];
    row.into_iter().chain(why).collect()
}
