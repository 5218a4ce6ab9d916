//! `limiter explain ADDR`

mod raise;

use std::{net::IpAddr, process::ExitCode, time::Duration};

use anyhow::Result;
use limiter_common::{Action, Addr, Claim, Limits, Reason};
use serde::Serialize;

use super::{loaded, output, rules};
use crate::{instance::Instance, ledger, policy};

#[derive(clap::Args)]
pub struct Args {
    /// IPv4 or IPv6 address of a client
    #[arg(value_name = "ADDR")]
    address: IpAddr,

    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Explanation {
    address: String,
    /// Whether it is the host itself, which is never refused.
    own: bool,
    /// The rule that counts for it, if there is one.
    rule: Option<Rule>,
    services: Vec<Standing>,
}

#[derive(Serialize)]
struct Rule {
    network: String,
    /// `allow`, `deny` or `limit`.
    action: &'static str,
}

/// Where the address stands with one service.
#[derive(Serialize)]
struct Standing {
    service: String,
    /// The network it is counted as.
    source: String,
    /// Whether it shares that with others, because there is no room in the ledger for an entry of its own.
    shared: bool,
    connections: u32,
    limit: Option<u32>,
    /// The larger network it is in, where those have a limit.
    network: Option<Network>,
    /// Connections of the whole service.
    total: u32,
    max_total: Option<u32>,
    refused: u64,
    /// Handshakes of the source that wait for a place.
    waiting: u32,
    /// Seconds that the first of them has waited.
    waiting_seconds: f64,
    /// What its next connection would get.
    verdict: &'static str,
    /// Why it would be refused: `denied`, `banned`, `total`, `network`, `concurrency` or `rate`.
    reason: Option<&'static str>,
    /// Seconds until its ban ends; 0 if there is none.
    banned_seconds: u64,
    /// Milliseconds until the rate allows its next connection; 0 if it does now.
    wait_ms: u64,
    /// What lets it in, if it would be refused: the words behind `limiter`.
    remedy: Option<String>,
}

/// Where the larger network of the address stands.
#[derive(Serialize)]
struct Network {
    network: String,
    connections: u32,
    limit: u32,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let tables = loaded(instance)?;
    let address = Addr::from(args.address);
    let text = address.to_ip().to_string();
    let rules = tables.policy.rules()?;
    let rule = policy::covering(&rules, &address);
    let own = rule.is_some_and(|rule| rule.built_in && rule.action == Action::Allow);
    let (now_ns, monotonic_ns) = (ledger::now_ns()?, ledger::monotonic_ns()?);
    let waiting = ledger::waiting(&tables)?;
    let mut services = Vec::new();
    for (id, policy) in tables.policy.services()? {
        let say = tables.policy.say(&address, id)?;
        let source = Claim::new(id, &policy, say.source_prefix, &address);
        let claim = ledger::present(&tables, source)?;
        let standing = ledger::standing(&tables, &source.narrow, &claim)?;
        let limits = Limits::of(&policy, &say).within(&claim);
        let over = standing.over(&limits, now_ns).map(|reason| reason.within(&claim));
        let those = waiting.get(&claim.narrow).copied().unwrap_or_default();
        let limit = |limit: u32| (limit != u32::MAX).then_some(limit);
        services.push(Standing {
            service: policy.name().to_owned(),
            source: ledger::network(&claim.narrow),
            connections: standing.narrow.connections(),
            limit: limit(limits.narrow),
            network: claim.has_wide().then(|| Network {
                network: ledger::network(&claim.wide),
                connections: standing.wide.connections(),
                limit: policy.network_max_connections,
            }),
            total: standing.total.connections(),
            max_total: limit(limits.total),
            shared: claim.narrow.is_shared(),
            refused: tables.source(&claim.narrow)?.unwrap_or_default().refused.into(),
            waiting: those.count,
            waiting_seconds: those.seconds(monotonic_ns),
            verdict: if over.is_some() { "refuse" } else { "admit" },
            reason: over.map(Reason::word),
            banned_seconds: if over == Some(Reason::Banned) {
                (standing.banned_until_ns - now_ns).div_ceil(1_000_000_000)
            } else {
                0
            },
            remedy: over
                .filter(|reason| *reason != Reason::Network || !claim.narrow.is_shared())
                .and_then(|reason| raise::raise(&text, &policy, say, &standing, reason)),
            wait_ms: limits.rate.wait_ns(standing.due_ns, now_ns).div_ceil(1_000_000),
        });
    }
    services.sort_by(|a, b| a.service.cmp(&b.service));
    let rule = rule.filter(|rule| !rule.built_in).map(|rule| Rule {
        network: ledger::prefixed(&rule.network.addr, rule.network.prefix),
        action: rules::word(rule.action),
    });
    let explanation = Explanation { address: text, own, rule, services };
    if args.json {
        output::json(&explanation)?;
    } else {
        print(instance, &explanation)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(instance: &Instance, explanation: &Explanation) -> Result<()> {
    let Explanation { address, own, rule, services } = explanation;
    if let Some(Rule { network, action }) = rule {
        output::line(&format!("the rule for {network} counts for {address}: {action}\n"))?;
    }
    if *own {
        output::line(&format!(
            "{address} is this host itself: it is counted, and no limit of a source applies to it.\n"
        ))?;
    }
    let header = ["SERVICE", "COUNTED AS", "CONNECTIONS", "LIMIT", "REFUSED", "NEXT CONNECTION"];
    let rows = services.iter().map(|standing| {
        vec![
            standing.service.clone(),
            standing.source.clone(),
            standing.connections.to_string(),
            standing.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
            standing.refused.to_string(),
            standing.reason.map_or_else(|| "admitted".to_owned(), |reason| format!("refused: {reason}")),
        ]
    });
    output::table(&header, 2..5, rows.collect())?;
    for standing in services.iter().filter(|standing| standing.waiting > 0) {
        let Standing { service, waiting, waiting_seconds, .. } = standing;
        let wait = if *waiting == 1 { "1 handshake waits" } else { &format!("{waiting} handshakes wait") };
        output::line(&format!("\n{service}: {wait} for a place, the first for {waiting_seconds} s"))?;
    }
    // The same advice once, for all the services it is for.
    let mut advices: Vec<(String, Vec<&str>)> = Vec::new();
    for standing in services.iter().filter(|standing| standing.reason.is_some()) {
        let advice = advice(instance, address, standing);
        match advices.iter_mut().find(|(given, _)| *given == advice) {
            Some((_, services)) => services.push(&standing.service),
            None => advices.push((advice, vec![&standing.service])),
        }
    }
    for (advice, services) in advices {
        output::line(&format!("\n{}: {advice}", services.join(", ")))?;
    }
    Ok(())
}

/// Why `address` would be refused, and what lets it in.
fn advice(instance: &Instance, address: &str, standing: &Standing) -> String {
    let Standing { network, wait_ms, .. } = standing;
    let after = match &standing.remedy {
        Some(remedy) => format!(", or after `limiter --instance {instance} {remedy}`"),
        None => String::new(),
    };
    match (standing.reason, network) {
        (Some("denied"), _) => {
            format!("a rule denies {address}; it gets in when the rule is changed{after}.")
        }
        (Some("banned"), _) => format!(
            "{address} is banned for another {}; it gets in after that{after}.",
            humantime::format_duration(Duration::from_secs(standing.banned_seconds))
        ),
        (Some("total"), _) => format!(
            "the whole service holds as many connections as it may; {address} gets in again when any of them \
             ends{after}."
        ),
        (Some("network"), _) if standing.shared => format!(
            "the ledger has no room for {address} by itself, and the new sources in {} hold as many connections as they \
             may together; {address} gets in when one of them ends, or when max_sources is raised.",
            standing.source
        ),
        (Some("network"), Some(Network { network, .. })) => format!(
            "the sources in {network} hold as many connections as they may together; {address} gets in again when one \
             of them ends{after}."
        ),
        (Some("rate"), _) => {
            format!("{address} connects faster than it may; it gets in again in {wait_ms} ms{after}.")
        }
        _ => format!("{address} gets in again when one of its connections ends{after}."),
    }
}
