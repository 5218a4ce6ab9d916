//! `limiter ban`, `unban` and `bans`.

use std::{
    collections::HashSet,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use limiter_common::{Action, Addr, Key, Ladder, ServiceId, ServicePolicy};

use super::{WrongUsage, list, loaded, locked, output};
use crate::{
    bans::{self, Ban, Bans, state},
    config,
    instance::Instance,
    kernel::Tables,
    ledger, policy,
};

/// Of so many sources each is named in what is printed; of more only how many they are.
const NAMED: usize = 10;

#[derive(clap::Args)]
pub struct Whom {
    /// IPv4 or IPv6 addresses: what is meant is the source each counts as, an IPv6 /64 for one
    #[arg(value_name = "ADDR", value_parser = source, required_unless_present = "from")]
    sources: Vec<IpNet>,

    /// And those in this file, one in a line, with nothing or a comment behind it (`#`, `;`); `-` for standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

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

fn source(text: &str) -> Result<IpNet, String> {
    config::parse_network(text).map_err(|_| {
        "give an address such as 203.0.113.7 or 2001:db8::7, or one source as a network".to_owned()
    })
}

impl Whom {
    /// All that are meant. One mistake, and nobody is.
    fn sources(&self) -> Result<Vec<IpNet>> {
        let mut sources = self.sources.clone();
        let Some(path) = &self.from else { return Ok(sources) };
        let (name, text) = if path == Path::new("-") {
            let mut text = Vec::new();
            std::io::stdin().lock().read_to_end(&mut text).context("cannot read standard input")?;
            ("standard input".to_owned(), text)
        } else {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            (path.display().to_string(), text)
        };
        for (number, line) in (1..).zip(String::from_utf8_lossy(&text).lines()) {
            let line = line.split(['#', ';']).next().unwrap_or(line).trim();
            if !line.is_empty() {
                let parsed = source(line).map_err(|advice| {
                    WrongUsage(format!("{name}, line {number}: {line:?} is no address: {advice}"))
                })?;
                sources.push(parsed);
            }
        }
        if sources.is_empty() {
            return Err(WrongUsage(format!("{name} names no address: give one in a line")).into());
        }
        Ok(sources)
    }
}

/// `limiter ban ADDR…`.
pub fn ban(instance: &Instance, args: &BanArgs) -> Result<ExitCode> {
    let BanArgs { whom, time } = args;
    let sources = whom.sources()?;
    let (mut tables, _bans) = locked(instance, Instance::lock_bans)?;
    let services = asked(&tables, whom.service.as_deref())?;
    let (mut keys, mut seen) = (Vec::new(), HashSet::new());
    for source in &sources {
        let address = Addr::from(source.addr());
        for (id, policy) in &services {
            let key = tables.policy.source(*id, policy, &address)?;
            if source.prefix_len() < key.prefix_len() && source.addr() == address.to_ip() {
                return Err(WrongUsage(format!(
                    "{source} is more than one source of {}, which is a /{}: to refuse all of it use `limiter --instance \
                     {instance} deny {source}`",
                    policy.name(),
                    key.prefix_len()
                ))
                .into());
            }
            if tables.policy.say(&address, *id)?.action == Action::Allow {
                return Err(allowed(instance, &tables, source.addr(), policy.name())?);
            }
            if seen.insert(key) {
                keys.push(key);
            }
        }
    }
    let first = Duration::from_secs(u64::from(tables.policy.ladder()?.ban_s));
    let time = time.unwrap_or(first);
    let until_ns = ledger::now_ns()? + time.as_nanos() as u64;
    bans::ban(&mut tables, &keys, until_ns)?;
    write_down(
        instance,
        &tables,
        &keys,
        "what is banned is banned all the same, but not any more when the host starts anew, should the daemon not be able to \
         write it either",
    );
    let time = humantime::format_duration(time);
    output::done(&told(&services, &keys, &format!("banned for {time}")));
    Ok(ExitCode::SUCCESS)
}

/// What has become of sources, by service.
fn told(services: &[(ServiceId, ServicePolicy)], keys: &[Key], what: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (id, policy) in services {
        let of_service: Vec<_> = keys.iter().filter(|key| key.service == id.0).collect();
        if of_service.len() > NAMED {
            lines.push(format!("{}: {} sources are {what}", policy.name(), of_service.len()));
            continue;
        }
        let one = |key| format!("{}: {} is {what}", policy.name(), ledger::network(key));
        lines.extend(of_service.into_iter().map(one));
    }
    lines
}

/// Writes down what has become of `keys`. If that cannot be done, it is so all the same: that is no error, but said.
fn write_down(instance: &Instance, tables: &Tables, keys: &[Key], what_then: &str) {
    if let Err(problem) = state::note(instance, tables, keys) {
        eprintln!("limiter: warning: {problem:#}: {what_then}");
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
            let network = ledger::prefixed(&rule.network.addr, rule.network.prefix);
            format!(
                "allowed by the rule for {network}: take that back first, with `limiter --instance {instance} forget {network}`"
            )
        }
        _ => "one of this host's own addresses: what it connects for is what to look at".to_owned(),
    };
    Ok(WrongUsage(format!("a ban of {address} from {service} would not hold, because it is {why}")).into())
}

/// `limiter unban ADDR…`: ends every ban that covers an address, and forgets that its source was ever refused.
pub fn unban(instance: &Instance, whom: &Whom) -> Result<ExitCode> {
    let sources = whom.sources()?;
    let (mut tables, _bans) = locked(instance, Instance::lock_bans)?;
    let services = asked(&tables, whom.service.as_deref())?;
    let all = bans::banned(&tables)?;
    let (mut keys, mut banned) = (HashSet::new(), Vec::new());
    for source in &sources {
        let address = Addr::from(source.addr());
        for (id, policy) in &services {
            let covering = bans::covering(&all, *id, policy, &address);
            banned.extend(covering.into_iter().filter(|key| keys.insert(*key)));
            keys.insert(tables.policy.source(*id, policy, &address)?);
        }
    }
    if banned.is_empty() {
        let whom = sources.iter().take(NAMED).map(|source| source.addr().to_string()).collect::<Vec<_>>();
        bail!(
            "{} {} not banned: `limiter --instance {instance} bans` shows who is",
            whom.join(", "),
            if whom.len() == 1 { "is" } else { "are" }
        );
    }
    let keys: Vec<_> = keys.into_iter().collect();
    bans::unban(&mut tables, &keys)?;
    write_down(
        instance,
        &tables,
        &banned,
        "the ban has ended all the same, but is there again when the host starts anew, should the daemon not be able to \
         write it either",
    );
    output::done(&told(&services, &banned, "no longer banned"));
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

/// `limiter bans`.
pub fn show(instance: &Instance, args: &BansArgs) -> Result<ExitCode> {
    let bans = bans::all(&loaded(instance)?)?;
    if args.json {
        output::json(&bans)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Bans { bans, not_in_force } = bans;
    if bans.is_empty() {
        output::line("nobody is banned")?;
    } else {
        let rows = bans.iter().map(|ban| row(ban, reason(ban)));
        output::table(&["SERVICE", "SOURCE", "DROPPED", "LEFT", "REASON"], 2..4, rows.collect())?;
    }
    if !not_in_force.is_empty() {
        output::line("\nbans that are not in force:")?;
        let rows = not_in_force.iter().map(|idle| row(&idle.ban, idle.because.clone()));
        output::table(&["SERVICE", "SOURCE", "DROPPED", "LEFT", "BECAUSE"], 2..4, rows.collect())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(ban: &Ban, why: String) -> Vec<String> {
    let left = humantime::format_duration(Duration::from_secs(ban.left_seconds)).to_string();
    vec![ban.service.clone(), ban.source.clone(), ban.dropped.to_string(), left, why]
}

fn reason(ban: &Ban) -> String {
    match ban.reason {
        "ladder" => format!("went on for too long (ban {} in a row)", ban.bans),
        _ => "banned by the admin".to_owned(),
    }
}
