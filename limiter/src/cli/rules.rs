// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter allow`, `deny`, `limit`, `forget` and `rules`: what is said of networks, live.

use std::{collections::HashSet, process::ExitCode};

use anyhow::Result;
use ipnet::IpNet;
use limiter_common::{Action, rule::RuleLimits};
use serde::Serialize;

use super::{
    answer::{Answer, Done, Save},
    caution::{self, Force},
    exit::WrongUsage,
    input,
    loaded::{loaded, locked, steadily},
    output::{self, Column, Format, Screen},
};
use crate::{
    config::{self, Change, Limiting, Ruling, Setting, SettingError},
    instance::Instance,
    kernel::sets::{PolicySet, RuleEntry},
    policy::{self, Planned},
};

#[derive(clap::Args)]
pub struct Whom {
    /// Addresses or networks, such as 203.0.113.0/24 or `2001:db8::/48`; if one is invalid, nothing changes
    #[arg(value_name = "CIDR", value_parser = input::network, required = true)]
    networks: Vec<IpNet>,

    #[command(flatten)]
    save: Save,

    #[command(flatten)]
    pub format: Format,
}

#[derive(clap::Args)]
pub struct DenyArgs {
    #[command(flatten)]
    pub whom: Whom,

    #[command(flatten)]
    force: Force,
}

#[derive(clap::Args)]
pub struct LimitArgs {
    /// Addresses or networks, such as 203.0.113.0/24 or `2001:db8::/48`, then the number of connections that each source
    /// in them may hold; if one is invalid, nothing changes
    #[arg(value_name = "CIDR... [N]", value_parser = input::limited, required = true)]
    words: Vec<input::Limited>,

    /// Rate of new connections per source, such as 60/min; `none` removes the limit
    #[arg(long, value_name = "RATE", value_parser = |text: &str| setting("rate", text))]
    rate: Option<Setting>,

    /// Number of these connections that may come at once [default: the number in the rate]
    #[arg(long, value_name = "N", value_parser = |text: &str| setting("burst", text))]
    burst: Option<Setting>,

    /// Connections that all sources in the network around a source may hold together; `none` removes the limit
    #[arg(long, value_name = "N", value_parser = |text: &str| setting("network_max_connections", text))]
    network_max_connections: Option<Setting>,

    /// Only these services, separated by commas [default: every service]
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    #[command(flatten)]
    save: Save,

    #[command(flatten)]
    pub format: Format,
}

#[derive(clap::Args)]
pub struct RulesArgs {
    #[command(flatten)]
    pub format: Format,
}

/// `limiter allow CIDR…`.
pub fn allow(instance: &Instance, whom: &Whom) -> Result<ExitCode> {
    change(instance, whom, Ruling::Allow, None, None)
}

/// `limiter deny CIDR…`.
pub fn deny(instance: &Instance, args: &DenyArgs) -> Result<ExitCode> {
    change(instance, &args.whom, Ruling::Deny, None, Some(&args.force))
}

/// `limiter forget CIDR…`: the rules for exactly these networks.
pub fn forget(instance: &Instance, whom: &Whom) -> Result<ExitCode> {
    change(instance, whom, Ruling::Forget, None, None)
}

fn setting(key: &str, value: &str) -> Result<Setting, SettingError> {
    config::parse_setting(&format!("{key}={value}"))
}

impl LimitArgs {
    /// Whom it is for, and what is said of them.
    fn meant(&self) -> Result<(Vec<IpNet>, Limiting)> {
        let mut networks = Vec::new();
        let mut connections = None;
        for word in &self.words {
            match *word {
                input::Limited::Network(network) if connections.is_none() => networks.push(network),
                input::Limited::Connections(number) if connections.is_none() => {
                    connections = Some(Setting::MaxConnections(number));
                }
                _ => {
                    let wrong = "give one number of connections, after all addresses and networks";
                    return Err(WrongUsage(wrong.to_owned()).into());
                }
            }
        }
        if networks.is_empty() {
            let wrong = "give the addresses or networks to limit, such as 203.0.113.0/24";
            return Err(WrongUsage(wrong.to_owned()).into());
        }
        let settings = [connections, self.rate, self.burst, self.network_max_connections];
        let settings: Vec<Setting> = settings.into_iter().flatten().collect();
        if settings.is_empty() {
            let wrong = "give a limit: a number of connections after the networks, --rate, --burst or \
                         --network-max-connections";
            return Err(WrongUsage(wrong.to_owned()).into());
        }
        Ok((networks, Limiting::of(&settings)))
    }
}

/// `limiter limit CIDR… [N]`.
pub fn limit(instance: &Instance, args: LimitArgs) -> Result<ExitCode> {
    let (networks, limiting) = args.meant()?;
    let LimitArgs { service, save, format, .. } = args;
    let whom = Whom { networks, save, format };
    change(instance, &whom, Ruling::Limit(limiting, None), service.as_deref(), None)
}

/// Changes the admin's rules for all of these networks, or for none, and says what was done. Limits are for all services,
/// or for those that are named.
fn change(
    instance: &Instance,
    whom: &Whom,
    ruling: Ruling<'_>,
    services: Option<&str>,
    force: Option<&Force>,
) -> Result<ExitCode> {
    let (mut tables, _policy) = locked(instance, Instance::lock_policy)?;
    let before = tables.policy.policy()?;
    let selected = policy::select(&before.services, services)?;
    let rulings: Vec<Ruling<'_>> = match ruling {
        // For all of them, those that come later are meant as well.
        Ruling::Limit(limiting, None) if !selected.is_all => {
            selected.names().into_iter().map(|name| Ruling::Limit(limiting, Some(name))).collect()
        }
        ruling => vec![ruling],
    };
    let mut seen = HashSet::new();
    let networks: Vec<IpNet> =
        whom.networks.iter().copied().filter(|network| seen.insert(*network)).collect();
    let of_each = |network: &IpNet| {
        let network = *network;
        rulings.iter().map(move |ruling| Change::Rule { network, ruling: *ruling })
    };
    let edits: Vec<Change<'_>> = networks.iter().flat_map(of_each).collect();
    let planned = policy::plan(before, &edits)?;
    if let Some(force) = force {
        let (before, after) = (&planned.before.rules, &planned.after.rules);
        force.allows(policy::of_deny(&networks, before, after, caution::login()))?;
    }
    let done = networks.iter().map(|network| done(network, &planned)).collect();
    let file = planned.carry_out(instance, &mut tables, whom.save.is_asked())?;
    Answer::saved(done, file).show(&whom.format);
    Ok(ExitCode::SUCCESS)
}

/// What becomes of the rule of a network.
pub fn done(network: &IpNet, Planned { before, after, .. }: &Planned<'_>) -> Done {
    let (what, network) = (network.to_string(), config::network(network));
    let said = |policy: &PolicySet| {
        let rule = policy::admins_rule(&policy.rules, &network);
        rule.map(|rule| policy::describe(&rule, &policy.services))
    };
    // Without a rule of the admin's, the one for a local address counts again.
    let local = policy::built_in_rule(&before.rules, &network)
        .map(|rule| format!("{} (local address)", policy::describe(&rule, &before.services)));
    let none = || local.clone().unwrap_or_else(|| "no rule".to_owned());
    let was = said(before);
    match said(after) {
        Some(is) => Done::new(what, was.or(local), is),
        None => Done::new(what, Some(was.unwrap_or_else(none)), none()),
    }
}

#[derive(Serialize)]
pub struct Rules {
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    network: String,
    action: Action,
    /// Whether it is one of the host's local addresses, allowed from the start.
    built_in: bool,
    /// Connections per source to every service that has none below.
    max_connections: Option<u32>,
    /// The same for single services.
    services: Vec<(String, u32)>,
    /// All limits for every service that has none below.
    limits: Limits,
    /// The same for single services.
    service_limits: Vec<(String, Limits)>,
    /// What it says of limits, in words.
    #[serde(skip)]
    words: Vec<String>,
    /// What makes a source in it; none: what each service says.
    source_prefix: Option<u8>,
}

/// Limits of a rule, by the words of `limiter limit`; none: it says nothing of that.
#[derive(Serialize)]
struct Limits {
    max_connections: Option<u32>,
    /// `none`: there is no limit.
    rate: Option<String>,
    burst: Option<u32>,
    /// `none`: there is no limit.
    network_max_connections: Option<String>,
}

impl Limits {
    fn new(limits: &RuleLimits) -> Self {
        let (rate, network) = (limits.rate.get(), limits.network.connections());
        Self {
            max_connections: Some(limits.max_connections.connections()).filter(|&limit| limit != 0),
            rate: rate.map(|rate| Setting::Rate(config::RateSpec::of(&rate)).to_string()),
            burst: rate.map(|rate| rate.burst()).filter(|&burst| burst != 0),
            network_max_connections: limits.network.is_set().then(|| {
                Setting::NetworkMaxConnections(Some(network).filter(|&limit| limit != u32::MAX)).to_string()
            }),
        }
    }
}

/// `limiter rules`.
pub fn show(instance: &Instance, args: &RulesArgs) -> Result<ExitCode> {
    let rules = rules(&steadily(instance, || loaded(instance)?.policy.policy())?);
    if args.format.json {
        output::json(&rules)?;
    } else {
        screen(&rules, output::width()).show()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The rules of a policy, by address.
pub fn rules(policy: &PolicySet) -> Rules {
    let built_in = policy.rules.iter().filter(|rule| rule.built_in && rule.action == Action::Allow).cloned();
    let mut all: Vec<RuleEntry> = built_in.chain(policy::admins_rules(policy.rules.clone())).collect();
    all.sort_by_key(|rule| (rule.network.addr.to_ip(), rule.network.prefix));
    let shown = |rule: &RuleEntry| Rule {
        network: rule.network.to_string(),
        action: rule.action,
        built_in: rule.built_in,
        max_connections: Some(rule.all.max_connections.connections()).filter(|&limit| limit != 0),
        services: rule
            .limits
            .iter()
            .filter(|(_, limits)| limits.max_connections.is_set())
            .map(|(id, limits)| {
                (policy::service_name(&policy.services, *id), limits.max_connections.connections())
            })
            .collect(),
        limits: Limits::new(&rule.all),
        service_limits: rule
            .limits
            .iter()
            .map(|(id, limits)| (policy::service_name(&policy.services, *id), Limits::new(limits)))
            .collect(),
        words: policy::describe_limits(rule, &policy.services),
        source_prefix: config::prefix_len(&rule.network, rule.source_prefix),
    };
    Rules { rules: all.iter().map(shown).collect() }
}

/// What is shown of them.
pub fn screen(rules: &Rules, width: output::Width) -> Screen {
    let mut screen = Screen::new(width);
    if rules.rules.is_empty() {
        screen.line("no rules");
        return screen;
    }
    let rows: Vec<Vec<String>> = rules
        .rules
        .iter()
        .map(|rule| {
            let source = rule.source_prefix.map(|prefix| format!("each /{prefix} is a source"));
            let limits: Vec<String> = rule.words.iter().cloned().chain(source).collect();
            let says = if rule.built_in { "local address".to_owned() } else { limits.join(", ") };
            vec![rule.network.clone(), rule.action.to_string(), says]
        })
        .collect();
    screen.table(&COLUMNS, &rows);
    screen
}

const COLUMNS: [Column; 3] = [
    Column::words("NETWORK"),
    Column::words("ACTION"),
    Column::words("LIMITS PER SOURCE").or("PER SOURCE").wraps(),
];
