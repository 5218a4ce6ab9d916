// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter ban`, `unban` and `bans`.

use std::{
    collections::HashSet,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use limiter_common::{Action, Addr, Cause, Key, ServiceId, ServicePolicy, rule::Network};

use super::{
    answer::{Answer, Done, word},
    caution::{self, Force},
    exit::WrongUsage,
    input,
    loaded::{loaded, locked, steadily},
    output::{self, Column, Format, Screen},
};
use crate::{
    bans::{self, Ban, Bans, Idle, state},
    config,
    instance::Instance,
    kernel::Tables,
    ledger, policy,
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
    let (mut keys, mut seen) = (Vec::new(), HashSet::new());
    for (id, policy) in &services {
        for network in &networks {
            let address = Addr::from(network.addr());
            let key = tables.policy.source(*id, policy, &address)?;
            refuse_many(instance, network, &key, policy.name())?;
            if tables.policy.rule_match(&address, *id)?.action == Action::Allow {
                return Err(allowed(instance, &tables, network.addr(), policy.name())?);
            }
            if seen.insert(key) {
                keys.push(key);
            }
        }
    }
    force.allows(policy::of_ban(&keys, caution::login()))?;
    let first = Duration::from_secs(u64::from(tables.policy.ladder()?.ban_s));
    let time = time.unwrap_or(first);
    let now_ns = ledger::now_ns()?;
    let is = format!("banned for {}", output::time(time));
    let done = keys
        .iter()
        .map(|key| Ok(Done::new(what(&services, key), left(&tables, key, now_ns)?, is.clone())))
        .collect::<Result<Vec<Done>>>()?;
    bans::ban(&mut tables, &keys, now_ns + time.as_nanos() as u64)?;
    write_down(
        instance,
        &tables,
        &keys,
        "the bans are in force, but are lost when the host restarts unless the daemon can save them",
    );
    answer(&services, &keys, done, &is).show(&whom.format);
    Ok(ExitCode::SUCCESS)
}

/// A source at a service, as people are told of it.
fn what(services: &[(ServiceId, ServicePolicy)], key: &Key) -> String {
    let service = services.iter().find(|(id, _)| id.0 == key.service);
    format!("{}: {}", service.map_or("(removed)", |(_, policy)| policy.name()), key.addresses())
}

/// For how long a source is banned yet, in words, if it is.
fn left(tables: &Tables, key: &Key, now_ns: u64) -> Result<Option<String>> {
    let penalty = tables.penalty(key)?.filter(|penalty| penalty.is_banned(now_ns));
    let left = penalty.map(|penalty| Duration::from_nanos(penalty.banned_until_ns - now_ns));
    Ok(left.map(|left| format!("banned for another {}", output::time(left))))
}

/// Refuses what is more than one source.
fn refuse_many(instance: &Instance, network: &IpNet, key: &Key, service: &str) -> Result<()> {
    let of_one = |network: &IpNet| network.addr() == Addr::from(network.addr()).to_ip();
    if network.prefix_len() < key.prefix_len() && of_one(network) {
        return Err(WrongUsage(format!(
            "{network} contains many sources, because {service} counts each /{} separately, and a ban applies \
             to one source: deny the whole network with `limiter --instance {instance} deny {network}`, until \
             `limiter --instance {instance} forget {network}`",
            key.prefix_len()
        ))
        .into());
    }
    Ok(())
}

/// What has become of sources: of many at one service only how many they are, for people.
fn answer(services: &[(ServiceId, ServicePolicy)], keys: &[Key], done: Vec<Done>, is: &str) -> Answer {
    let mut answer = Answer::new(done);
    let mut lines = Vec::new();
    for (id, policy) in services {
        let of_service = keys.iter().zip(&answer.changes).filter(|(key, _)| key.service == id.0);
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

/// Writes down what has become of `keys`. If that cannot be done, it is so all the same: that is no error, but said.
fn write_down(instance: &Instance, tables: &Tables, keys: &[Key], what_then: &str) {
    if let Err(problem) = state::note(instance, tables, keys) {
        eprintln!("limiter: warning: {problem:#}; {what_then}");
    }
}

/// Why an allowed source cannot be banned.
fn allowed(
    instance: &Instance,
    tables: &Tables,
    address: std::net::IpAddr,
    service: &str,
) -> Result<anyhow::Error> {
    let rules = tables.policy.rules()?;
    let rule = policy::covering(&rules, &Addr::from(address));
    let why = match rule {
        Some(rule) if !rule.built_in => {
            let network = rule.network;
            format!(
                "allowed by the rule for {network}; remove that rule first with `limiter --instance {instance} forget {network}`"
            )
        }
        _ => "a local address of this host; check which program connects from it".to_owned(),
    };
    Ok(WrongUsage(format!("cannot ban {address} from {service}: it is {why}")).into())
}

/// `limiter unban ADDR…`: ends every ban that covers an address, or is of a part of a network, and forgets that their
/// sources were ever refused.
pub fn unban(instance: &Instance, whom: &Whom) -> Result<ExitCode> {
    let networks = whom.networks()?;
    let (mut tables, _bans) = locked(instance, Instance::lock_bans)?;
    let services = policy::select(&tables.policy.services()?, whom.service.as_deref())?.services;
    let all = bans::banned(&tables)?;
    let (mut keys, mut seen) = (Vec::new(), HashSet::new());
    for (id, policy) in &services {
        for network in &networks {
            let (address, meant) = (Addr::from(network.addr()), config::network(network));
            let source = tables.policy.source(*id, policy, &address)?;
            let mut banned = bans::covering(&all, *id, policy, &address);
            if meant.prefix < u32::from(source.prefix) {
                let within = all.iter().filter(|key| {
                    key.service == id.0
                        && meant.covers(&Network { prefix: key.prefix.into(), addr: key.addr })
                });
                banned.extend(within);
                banned.sort_by_key(|key| (key.addr.to_ip(), key.prefix));
            }
            if banned.is_empty() {
                // Of a network it is the network that nobody of is banned.
                let prefix = source.prefix.min(meant.prefix as u8);
                banned.push(Key { prefix, addr: source.addr.cut(prefix), ..source });
            }
            keys.extend(banned.into_iter().filter(|key| seen.insert(*key)));
        }
    }
    let now_ns = ledger::now_ns()?;
    let done = keys
        .iter()
        .map(|key| {
            let was = left(&tables, key, now_ns)?.unwrap_or_else(|| NOT_BANNED.to_owned());
            Ok(Done::new(what(&services, key), Some(was), NOT_BANNED))
        })
        .collect::<Result<Vec<Done>>>()?;
    // What is remembered of the source that each is now goes as well.
    let mut forgotten = keys.clone();
    for (id, policy) in &services {
        for network in &networks {
            let source = tables.policy.source(*id, policy, &Addr::from(network.addr()))?;
            forgotten.extend(Some(source).filter(|key| seen.insert(*key)));
        }
    }
    bans::unban(&mut tables, &forgotten)?;
    let banned: Vec<Key> = keys.iter().filter(|key| all.contains(key)).copied().collect();
    if !banned.is_empty() {
        write_down(
            instance,
            &tables,
            &banned,
            "the bans have ended, but return when the host restarts unless the daemon can save the change",
        );
    }
    answer(&services, &keys, done, NOT_BANNED).show(&whom.format);
    Ok(ExitCode::SUCCESS)
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
