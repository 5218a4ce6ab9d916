//! `limiter allow`, `deny`, `limit`, `forget` and `rules`: what is said of networks, live.

use std::process::ExitCode;

use anyhow::Result;
use ipnet::IpNet;
use limiter_common::{
    Action, ServiceId, ServicePolicy,
    rule::{Limit, Network},
};
use serde::Serialize;

use super::{
    WrongUsage, list, loaded, locked, output,
    save::{self, Save},
};
use crate::{
    config::{self, Change, Ruling},
    instance::Instance,
    kernel::sets::{PolicySet, RuleEntry},
    ledger, policy,
};

#[derive(clap::Args)]
pub struct Whom {
    /// An address or a network, such as 203.0.113.0/24 or `2001:db8::/48`
    #[arg(value_name = "CIDR", value_parser = network)]
    network: IpNet,

    #[command(flatten)]
    save: Save,
}

#[derive(clap::Args)]
pub struct LimitArgs {
    /// An address or a network, such as 203.0.113.0/24 or `2001:db8::/48`
    #[arg(value_name = "CIDR", value_parser = network)]
    network: IpNet,

    /// Connections each source in it may hold
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(ServicePolicy::MAX_LIMIT)))]
    connections: u32,

    /// Only to this service; to every service if left out
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    #[command(flatten)]
    save: Save,
}

#[derive(clap::Args)]
pub struct RulesArgs {
    /// For programs
    #[arg(long)]
    json: bool,
}

fn network(text: &str) -> Result<IpNet, String> {
    config::parse_network(text).map_err(|complaint| complaint.to_string())
}

/// What a rule does, in a word.
pub const fn word(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
        Action::Limit => "limit",
    }
}

/// `limiter allow CIDR` and `limiter deny CIDR`.
pub fn decide(instance: &Instance, whom: &Whom, action: Action) -> Result<ExitCode> {
    let said = RuleEntry::new(config::network(&whom.network), action);
    let (verb, network) = (word(action), whom.network);
    let ruling = if action == Action::Allow { Ruling::Allow } else { Ruling::Deny };
    change(instance, &whom.save, Change::Rule { network, ruling }, |rules, _| {
        rules.retain(|rule| rule.network != said.network);
        rules.push(said.clone());
        Ok(format!("{network}: {verb}"))
    })
}

/// `limiter limit CIDR N`.
pub fn limit(instance: &Instance, args: &LimitArgs) -> Result<ExitCode> {
    let network = config::network(&args.network);
    let ruling = Ruling::Limit(args.connections, args.service.as_deref());
    change(instance, &args.save, Change::Rule { network: args.network, ruling }, |rules, policy| {
        let service = args.service.as_deref().map(|name| number(policy, name)).transpose()?;
        let present = rules.iter().position(|rule| rule.network == network);
        let mut rule = match present.map(|index| rules.swap_remove(index)) {
            Some(rule) if rule.action == Action::Limit => rule,
            _ => RuleEntry::new(network, Action::Limit),
        };
        let limit = Limit::own(args.connections);
        match service {
            Some(service) => {
                rule.limits.retain(|(said, _)| *said != service);
                rule.limits.push((service, limit));
                rule.limits.sort_by_key(|(service, _)| *service);
            }
            None => {
                rule.max_connections = limit;
                rule.limits.clear();
            }
        }
        rules.push(rule);
        let at = args.service.as_deref().map_or_else(|| "each service".to_owned(), str::to_owned);
        Ok(format!("{}: {} connections to {at} per source", args.network, args.connections))
    })
}

/// `limiter forget CIDR`: the rule for exactly this network.
pub fn forget(instance: &Instance, whom: &Whom) -> Result<ExitCode> {
    let network = config::network(&whom.network);
    let ruling = Ruling::Forget;
    change(instance, &whom.save, Change::Rule { network: whom.network, ruling }, |rules, _| {
        let before = rules.len();
        rules.retain(|rule| rule.network != network);
        if rules.len() == before {
            if whom.save.is_asked_for() {
                // It may have been forgotten live, and be in the file still.
                return Ok(format!("{}: there is no rule", whom.network));
            }
            let missing =
                format!("there is no rule for {}: `limiter rules` shows those there are", whom.network);
            return Err(WrongUsage(missing).into());
        }
        Ok(format!("{}: forgotten", whom.network))
    })
}

/// Changes the admin's rules, and says what was done.
fn change(
    instance: &Instance,
    save: &Save,
    change: Change<'_>,
    work: impl FnOnce(&mut Vec<RuleEntry>, &PolicySet) -> Result<String>,
) -> Result<ExitCode> {
    let (mut tables, _policy) = locked(instance, Instance::lock_policy)?;
    let before = tables.policy.policy()?;
    let mut admins = policy::own_words(before.rules.clone());
    let done = work(&mut admins, &before)?;
    let rules = policy::inherit(admins, policy::built_in(&before.rules));
    let pending = save.prepare(instance, &tables, &change)?;
    let after = PolicySet { rules, ..before.clone() };
    save::carry_out(instance, &mut tables, &before, &after, pending, &[done])?;
    Ok(ExitCode::SUCCESS)
}

fn number(policy: &PolicySet, name: &str) -> Result<ServiceId> {
    let found = policy.services.iter().find(|(_, service)| service.name() == name);
    found.map(|(id, _)| *id).ok_or_else(|| list::unknown_service(&policy.services, name))
}

#[derive(Serialize)]
struct Rules {
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    network: String,
    action: &'static str,
    /// Whether it is one of the host's own addresses, allowed from the start.
    built_in: bool,
    /// Connections per source to every service that has none below.
    max_connections: Option<u32>,
    /// The same for single services.
    services: Vec<(String, u32)>,
    /// What makes a source in it; none: what each service says.
    source_prefix: Option<u8>,
}

/// `limiter rules`.
pub fn show(instance: &Instance, args: &RulesArgs) -> Result<ExitCode> {
    let policy = loaded(instance)?.policy.policy()?;
    let name = |id: ServiceId| {
        let found = policy.services.iter().find(|(service, _)| *service == id);
        found.map_or_else(|| format!("(removed {})", id.0), |(_, service)| service.name().to_owned())
    };
    let built_in = policy.rules.iter().filter(|rule| rule.built_in && rule.action == Action::Allow).cloned();
    let all = built_in.chain(policy::own_words(policy.rules.clone()));
    let mut rules: Vec<(Network, Rule)> = all
        .map(|rule| {
            let shown = Rule {
                network: ledger::prefixed(&rule.network.addr, rule.network.prefix),
                action: word(rule.action),
                built_in: rule.built_in,
                max_connections: Some(rule.max_connections.connections()).filter(|&limit| limit != 0),
                services: rule.limits.iter().map(|(id, limit)| (name(*id), limit.connections())).collect(),
                source_prefix: config::prefix_len(&rule.network, rule.source_prefix),
            };
            (rule.network, shown)
        })
        .collect();
    rules.sort_by_key(|(network, _)| (network.addr, network.prefix));
    let rules = Rules { rules: rules.into_iter().map(|(_, rule)| rule).collect() };
    if args.json {
        output::json(&rules)?;
    } else {
        let rows = rules.rules.iter().map(|rule| {
            let all = rule.max_connections.map(|limit| format!("{limit} to each service"));
            let single = rule.services.iter().map(|(name, limit)| format!("{limit} to {name}"));
            let limits: Vec<String> = single.chain(all).collect();
            let source = rule.source_prefix.map_or_else(String::new, |prefix| format!("/{prefix}"));
            let origin = if rule.built_in { "own address" } else { "" };
            vec![rule.network.clone(), rule.action.to_owned(), limits.join(", "), source, origin.to_owned()]
        });
        output::table(&["NETWORK", "ACTION", "CONNECTIONS PER SOURCE", "SOURCE", ""], 0..0, rows.collect())?;
    }
    Ok(ExitCode::SUCCESS)
}
