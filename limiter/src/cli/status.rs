// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter status`

mod brief;
mod warnings;

use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, anyhow};
use limiter_common::{Counters, Key, Mode, Reason, Response, ServiceId, ServicePolicy};
use serde::Serialize;

use super::{
    NOT_IN_FORCE, enter_protected, loaded, nothing_loaded,
    output::{self, Column, Format, Screen},
    refuse_elsewhere, steadily,
};
use crate::{
    bans, config,
    instance::{Daemon, Instance},
    kernel::{Found, Tables, environment, maintenance::Maintenance, pins},
    ledger, reconcile, shield,
};

#[derive(clap::Args)]
pub struct Args {
    /// Compare all counts with the kernel's socket table, and correct wrong counts
    #[arg(long)]
    verify: bool,

    /// Print one line for monitoring plugins, and exit with 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN
    #[arg(long, conflicts_with_all = ["json", "verify"])]
    pub brief: bool,

    #[command(flatten)]
    pub format: Format,
}

#[derive(Serialize)]
pub struct Status {
    pub(super) instance: String,
    /// Whether every program is attached.
    pub(super) in_force: bool,
    pub(super) daemon: Daemon,
    /// Where denied and banned sources are dropped before anything is spent on them.
    pub(super) shield: Vec<shield::Attachment>,
    /// Bans in force.
    pub(super) bans: usize,
    /// With `--verify`, what it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verified: Option<Verified>,
    pub(super) services: Vec<Service>,
    pub(super) warnings: Vec<String>,
}

#[derive(Serialize)]
pub struct Service {
    pub(super) name: String,
    ports: Vec<u16>,
    protocol: &'static str,
    max_connections: u32,
    /// As the configuration writes it.
    rate: Option<String>,
    burst: Option<u32>,
    network: Option<config::Network>,
    max_total: Option<u32>,
    reserve: u32,
    keepalive_seconds: Option<u32>,
    /// How long a handshake without a place waits for one; 0: its client is told at once.
    wait_seconds: u8,
    /// `enforce`, or `observe` where verdicts are only counted.
    mode: Mode,
    response: Response,
    connections: u32,
    /// Handshakes that wait for a place.
    waiting: u32,
    /// Seconds that the first of them has waited.
    waiting_first_seconds: f64,
    counters: CounterValues,
}

/// The ledger against the socket table.
#[derive(Serialize)]
pub struct Verified {
    /// Connections in the socket table.
    connections: usize,
    /// Dead connections, which are in no table, whose owner has not let go.
    dead: usize,
    /// Counts that were wrong.
    differences: Vec<Difference>,
}

#[derive(Serialize)]
pub struct Difference {
    /// Whose count, and by how much it is off, in words.
    what: String,
    corrected: bool,
}

#[derive(Serialize)]
pub struct CounterValues {
    accepted: u64,
    refused: u64,
    would_refuse: BTreeMap<&'static str, u64>,
    refused_denied: u64,
    refused_banned: u64,
    refused_total: u64,
    refused_network: u64,
    refused_concurrency: u64,
    refused_rate: u64,
    replied: u64,
    held: u64,
    let_in: u64,
    told: u64,
    gone: u64,
    lost_turn: u64,
    unrecorded: u64,
    contended: u64,
    unreserved: u64,
    uncounted: u64,
    shared: u64,
    banned: u64,
    unjudged: u64,
    dropped: u64,
    adopted: u64,
    drift: u64,
}

#[cfg(test)]
pub use brief::line as brief_line;
pub use brief::{UNKNOWN, unknown};
use warnings::of_the_host;
pub use warnings::of_the_instance;

/// Nothing is loaded.
#[derive(Serialize)]
struct Nothing {
    instance: String,
    in_force: bool,
    daemon: Daemon,
    services: [(); 0],
    warnings: [(); 0],
    error: String,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    environment::check()?;
    let Some(status) = steadily(instance, || look(instance, args.verify))? else {
        refuse_elsewhere(instance)?;
        let nothing = nothing_loaded(instance);
        if args.brief {
            output::line(&brief::nothing(instance, &nothing))?;
            return Ok(ExitCode::from(brief::CRITICAL));
        }
        if args.format.json {
            let (instance, daemon) = (instance.to_string(), instance.daemon()?);
            let (in_force, services, warnings) = (false, [], []);
            output::json(&Nothing {
                instance,
                in_force,
                daemon,
                services,
                warnings,
                error: nothing.clone(),
            })?;
        }
        eprintln!("limiter: {nothing}");
        return Ok(ExitCode::from(NOT_IN_FORCE));
    };
    if args.brief {
        let (line, code) = brief::line(&status);
        output::line(&line)?;
        return Ok(ExitCode::from(code));
    }
    if args.format.json {
        output::json(&status)?;
    } else {
        screen(&status, output::width()).show()?;
    }
    Ok(if status.in_force { ExitCode::SUCCESS } else { ExitCode::from(NOT_IN_FORCE) })
}

/// What there is to say of what is loaded, if anything is.
fn look(instance: &Instance, compares: bool) -> Result<Option<Status>> {
    if matches!(Found::inspect(instance)?, Found::Nothing) {
        return Ok(None);
    }
    let tables = loaded(instance)?;
    let verified = if compares { Some(verify(instance, &tables)?) } else { None };
    let services = services(&tables)?;
    let daemon = instance.daemon()?;
    let detached = pins::detached(instance)?;
    let mut warnings = of_the_instance(instance, &detached, &daemon, &services);
    let shield = shield::attachments(instance).unwrap_or_else(|problem| {
        warnings.push(format!(
            "cannot tell where the shield is attached until the daemon restarts; the limits are in force: {problem:#}"
        ));
        Vec::new()
    });
    warnings.extend(environment::real_time_warning().map(str::to_owned));
    warnings
        .extend(shield.iter().filter(|attachment| attachment.is_missing()).map(shield::Attachment::warning));
    warnings.extend(crowded(instance, &tables)?);
    // What is asked of another network namespace comes last.
    enter_protected(instance, &tables)?;
    let (netns, cgroup) = tables.protects()?;
    if netns == environment::netns_cookie()? {
        warnings.extend(of_the_host(instance, &services, cgroup, loaded_since(instance)));
    }
    Ok(Some(Status {
        instance: instance.to_string(),
        in_force: detached.is_empty(),
        daemon,
        shield,
        bans: bans::all(&tables)?.bans.len(),
        verified,
        services,
        warnings,
    }))
}

/// For how long it has been loaded: the first of its pins is as old.
fn loaded_since(instance: &Instance) -> Option<Duration> {
    let made = std::fs::metadata(instance.pins().join("LAYOUT")).ok()?.modified().ok()?;
    made.elapsed().ok()
}

fn verify(instance: &Instance, tables: &Tables) -> Result<Verified> {
    enter_protected(instance, tables)?;
    let mut maintenance = Maintenance::open(instance, &instance.pins())?;
    let round = reconcile::verify(&instance.pins(), &mut maintenance)?.ok_or_else(|| {
        anyhow!(
            "cannot verify the counts, because this kernel refused the census program: `limiter run` logs the reason when it starts"
        )
    })?;
    let connections = round.corrected.iter().map(|(found, corrected)| (found.to_string(), *corrected));
    let marks = round.marked.iter().map(|(found, corrected)| (found.to_string(), *corrected));
    let difference = |(what, corrected)| Difference { what, corrected };
    Ok(Verified {
        connections: round.connections,
        dead: round.dead,
        differences: connections.chain(marks).map(difference).collect(),
    })
}

fn services(tables: &Tables) -> Result<Vec<Service>> {
    let mut ports: HashMap<u8, Vec<u16>> = HashMap::new();
    for (port, id) in (0_u16..=u16::MAX).zip(tables.policy.ports()?).filter(|(_, id)| *id != 0) {
        ports.entry(id).or_default().push(port);
    }
    let (waiting, now_ns) = (ledger::waiting(tables)?, ledger::monotonic_ns()?);
    let service = |(id, policy): (ServiceId, ServicePolicy)| -> Result<Service> {
        let those = waiting.get(&Key::total(id)).copied().unwrap_or_default();
        let connections = tables.total(id)?.connections();
        let ports = ports.remove(&id.0).unwrap_or_default();
        Ok(Service::new(
            &policy,
            ports,
            connections,
            those.count,
            those.seconds(now_ns),
            tables.counters(id)?,
        ))
    };
    let mut services = tables.policy.services()?.into_iter().map(service).collect::<Result<Vec<_>>>()?;
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(services)
}

impl Service {
    /// What the kernel knows of one, in words.
    pub fn new(
        policy: &ServicePolicy,
        ports: Vec<u16>,
        connections: u32,
        waiting: u32,
        waiting_first_seconds: f64,
        counters: Counters,
    ) -> Self {
        Self {
            name: policy.name().to_owned(),
            ports,
            protocol: config::protocol_name(policy.protocol),
            max_connections: policy.max_connections,
            rate: config::RateSpec::of(&policy.rate).map(|spec| spec.to_string()),
            burst: policy.rate.is_limited().then(|| policy.rate.burst()),
            network: policy.has_network().then_some(config::Network {
                ipv4_prefix: policy.network.ipv4,
                ipv6_prefix: policy.network.ipv6,
                max_connections: policy.network_max_connections,
            }),
            max_total: (policy.max_total != 0).then_some(policy.max_total),
            reserve: policy.reserve,
            keepalive_seconds: Some(policy.keepalive.seconds()).filter(|&seconds| seconds != 0),
            wait_seconds: policy.wait_s,
            mode: Mode::from_u8(policy.mode),
            response: Response::from_u8(policy.response),
            connections,
            waiting,
            waiting_first_seconds,
            counters: CounterValues::from(counters),
        }
    }
}

impl Service {
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
            self.counters.accepted.to_string(),
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
}

impl From<Counters> for CounterValues {
    fn from(sum: Counters) -> Self {
        let Counters {
            accepted,
            refused,
            would_refuse,
            replied,
            held,
            let_in,
            told,
            gone,
            lost_turn,
            unrecorded,
            contended,
            unreserved,
            uncounted,
            shared,
            banned,
            unjudged,
            dropped,
            adopted,
            drift,
        } = sum;
        Self {
            accepted,
            refused: refused.iter().sum(),
            would_refuse: Reason::ALL
                .into_iter()
                .map(|reason| (reason.name(), would_refuse[reason as usize]))
                .collect(),
            refused_denied: refused[Reason::Denied as usize],
            refused_banned: refused[Reason::Banned as usize],
            refused_total: refused[Reason::Total as usize],
            refused_network: refused[Reason::Network as usize],
            refused_concurrency: refused[Reason::Concurrency as usize],
            refused_rate: refused[Reason::Rate as usize],
            replied,
            held,
            let_in,
            told,
            gone,
            lost_turn,
            unrecorded,
            contended,
            unreserved,
            uncounted,
            shared,
            banned,
            unjudged,
            dropped,
            adopted,
            drift,
        }
    }
}

/// Whether new sources are limited by their network, because the ledger has no room for them.
fn crowded(instance: &Instance, tables: &Tables) -> Result<Option<String>> {
    let is_full = tables.is_full(ledger::now_s()?)?;
    if tables.shared()? == 0 && !is_full {
        return Ok(None);
    }
    let (mut entries, mut connections) = (0_u32, 0_u64);
    tables.each_source(|key, entry| {
        if key.is_shared() && entry.count.connections() > 0 {
            entries += 1;
            connections += u64::from(entry.count.connections());
        }
    })?;
    if entries == 0 && !is_full {
        return Ok(None);
    }
    let (taken, most) = tables.room()?;
    Ok(Some(format!(
        "the ledger is full ({taken} of {most} sources and networks): {connections} connections of new sources \
         are counted with their network, in {entries} entries (`limiter --instance {instance} list` lists them \
         as shared); raise max_sources, stop the daemon, and start `limiter --instance {instance} run`"
    )))
}

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

/// What is shown of it.
pub fn screen(status: &Status, width: output::Width) -> Screen {
    let mut screen = Screen::new(width);
    let daemon = match status.daemon.pid {
        Some(pid) => format!("daemon running, pid {pid}"),
        None => "daemon not running".to_owned(),
    };
    let limits = if status.in_force { "limits in force" } else { "LIMITS NOT IN FORCE" };
    screen.line(&format!("instance {}: {limits}, {daemon}", status.instance));
    let rows: Vec<Vec<String>> = status.services.iter().map(Service::row).collect();
    screen.blank();
    screen.table(&COLUMNS, &rows);
    screen.paragraph(status.services.iter().filter_map(Service::further_limits));
    screen.paragraph(status.services.iter().filter_map(Service::waits));
    screen.paragraph(status.shield.iter().map(|attachment| format!("shield on {attachment}")));
    if status.bans > 0 {
        screen.paragraph([format!(
            "bans in force: {}; `limiter --instance {} bans` lists them",
            status.bans, status.instance
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
