//! `limiter ban`, `unban` and `bans`.

use std::{net::IpAddr, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use limiter_common::{Action, Addr, Key, Ladder, ServiceId, ServicePolicy};
use serde::Serialize;

use super::{WrongUsage, list, loaded, output};
use crate::{
    bans::{self, Ban, state},
    instance::Instance,
    kernel::Tables,
    ledger, policy,
};

#[derive(clap::Args)]
pub struct Whom {
    /// IPv4 or IPv6 address: what is meant is the source it counts as, an IPv6 /64 for one
    #[arg(value_name = "ADDR")]
    address: IpAddr,

    /// Only from this service; from every service if left out
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

#[derive(clap::Args)]
pub struct BanArgs {
    #[command(flatten)]
    whom: Whom,

    /// For how long, such as 10m, 2h or 7days, up to 30days; as long as a first ban of the ladder if left out
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
}

#[derive(clap::Args)]
pub struct BansArgs {
    /// For programs
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let longest = Duration::from_secs(u64::from(Ladder::MAX_BAN_S));
    if time < Duration::from_secs(1) || time > longest {
        return Err("give a time from 1s to 30days".to_owned());
    }
    Ok(time)
}

/// `limiter ban ADDR`.
pub fn ban(instance: &Instance, args: &BanArgs) -> Result<ExitCode> {
    let BanArgs { whom, time } = args;
    let mut tables = loaded(instance)?;
    let address = Addr::from(whom.address);
    let services = asked(&tables, whom.service.as_deref())?;
    let _bans = instance.lock_bans()?;
    for (id, policy) in &services {
        if tables.policy.say(&address, *id)?.action == Action::Allow {
            return Err(allowed(instance, &tables, whom.address, policy.name())?);
        }
    }
    let first = Duration::from_secs(u64::from(tables.policy.ladder()?.ban_s));
    let time = time.unwrap_or(first);
    let until_ns = ledger::now_ns()? + time.as_nanos() as u64;
    let keys: Vec<_> = services.iter().map(|(id, policy)| Key::narrow(*id, policy, &address)).collect();
    bans::ban(&mut tables, &keys, until_ns)?;
    state::save(instance, &tables)?;
    for ((_, policy), key) in services.iter().zip(&keys) {
        let (source, time) = (ledger::network(key), humantime::format_duration(time));
        output::line(&format!("{}: {source} is banned for {time}", policy.name()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Why an allowed source cannot be banned.
fn allowed(instance: &Instance, tables: &Tables, address: IpAddr, service: &str) -> Result<anyhow::Error> {
    let rules = tables.policy.rules()?;
    let rule = policy::covering(&rules, &Addr::from(address));
    let why = match rule {
        Some(rule) if !rule.built_in => {
            let network = ledger::prefixed(&rule.network.addr, rule.network.prefix);
            format!(
                "allowed by the rule for {network}: take that back first, with `limiter --instance {instance} forget {network}`"
            )
        }
        _ => "one of this host's own addresses: what it connects for is what to look at".to_owned(),
    };
    Ok(WrongUsage(format!("a ban of {address} from {service} would not hold, because it is {why}")).into())
}

/// `limiter unban ADDR`: forgets that the source was ever refused.
pub fn unban(instance: &Instance, whom: &Whom) -> Result<ExitCode> {
    let mut tables = loaded(instance)?;
    let address = Addr::from(whom.address);
    let services = asked(&tables, whom.service.as_deref())?;
    let _bans = instance.lock_bans()?;
    let now_ns = ledger::now_ns()?;
    let (mut keys, mut lines) = (Vec::new(), Vec::new());
    for (id, policy) in &services {
        let key = Key::narrow(*id, policy, &address);
        if tables.rung(&key)?.is_some_and(|rung| rung.is_banned(now_ns)) {
            lines.push(format!("{}: {} is no longer banned", policy.name(), ledger::network(&key)));
        }
        keys.push(key);
    }
    bans::unban(&mut tables, &keys)?;
    if lines.is_empty() {
        bail!("{} is not banned: `limiter --instance {instance} bans` shows who is", whom.address);
    }
    state::save(instance, &tables)?;
    lines.iter().try_for_each(|line| output::line(line))?;
    Ok(ExitCode::SUCCESS)
}

/// The services that are meant.
fn asked(tables: &Tables, service: Option<&str>) -> Result<Vec<(ServiceId, ServicePolicy)>> {
    if let Some(name) = service {
        list::known(tables, name)?;
    }
    let mut services = tables.policy.services()?;
    services.retain(|(_, policy)| service.is_none_or(|name| policy.name() == name));
    services.sort_by(|(_, a), (_, b)| a.name().cmp(b.name()));
    Ok(services)
}

#[derive(Serialize)]
struct Bans {
    bans: Vec<Ban>,
}

/// `limiter bans`.
pub fn show(instance: &Instance, args: &BansArgs) -> Result<ExitCode> {
    let bans = Bans { bans: bans::in_force(&loaded(instance)?)? };
    if args.json {
        output::json(&bans)?;
    } else if bans.bans.is_empty() {
        output::line("nobody is banned")?;
    } else {
        let time = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
        let rows = bans.bans.iter().map(|ban| {
            let reason = match ban.reason {
                "ladder" => format!("went on for too long (ban {} in a row)", ban.bans),
                _ => "banned by the admin".to_owned(),
            };
            let (left, dropped) = (time(ban.left_seconds), ban.dropped.to_string());
            vec![ban.service.clone(), ban.source.clone(), dropped, left, reason]
        });
        output::table(&["SERVICE", "SOURCE", "DROPPED", "LEFT", "REASON"], 2..4, rows.collect())?;
    }
    Ok(ExitCode::SUCCESS)
}
