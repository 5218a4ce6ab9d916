// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter explain ADDR`

mod remedy;

use std::{net::IpAddr, process::ExitCode, time::Duration};

use anyhow::Result;
use limiter_common::{
    Action, Addr, CountKeys, Entry, Ladder, Limits, Penalty, Reason, Response, RuleMatch, ServicePolicy,
    Usage, rule::Network as Net, verdict::Beyond,
};
use serde::Serialize;

use self::remedy::{Refused, Remedy};
use super::{
    input,
    loaded::{loaded, steadily},
    output::{self, Column, Format, Screen},
};
use crate::{
    instance::Instance,
    kernel::Tables,
    ledger::{self, Refusals},
    policy,
};

#[derive(clap::Args)]
pub struct Args {
    /// IPv4 or IPv6 address of a client
    #[arg(value_name = "ADDR", value_parser = input::address)]
    address: IpAddr,

    #[command(flatten)]
    pub format: Format,
}

#[derive(Serialize)]
pub struct Explanation {
    address: String,
    /// Whether it is the host itself, which is never refused.
    local: bool,
    /// The rule that counts for it, if there is one.
    rule: Option<Rule>,
    services: Vec<AtService>,
}

#[derive(Serialize)]
struct Rule {
    network: String,
    /// `allow`, `deny` or `limit`.
    action: Action,
}

/// Where the address stands with one service.
#[derive(Serialize)]
struct AtService {
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
    /// How often it was refused since it is known, or as far back as it is remembered: whichever is more.
    refused: u64,
    /// How often for which reason, and when last.
    #[serde(flatten)]
    refusals: Refusals,
    /// Connections of the source that got in because the service only observes.
    would_refuse: u32,
    /// Replies that it gets before it gets resets; none where nobody gets any, or replies have no budget.
    replies_left: Option<u64>,
    /// Handshakes of the source that wait for a place.
    waiting: u32,
    /// Seconds that the first of them has waited.
    waiting_seconds: f64,
    /// Whether verdicts are only counted.
    observed: bool,
    /// What its next connection would get.
    verdict: &'static str,
    /// Why it would be refused, or would be if the service did more than observe: `denied`, `banned`, `total`, `network`,
    /// `concurrency` or `rate`.
    reason: Option<Reason>,
    /// Seconds until its ban ends; 0 if there is none.
    banned_seconds: u64,
    /// Milliseconds until the rate allows its next connection; 0 if it does now.
    wait_ms: u64,
    /// What lets it in, if it would be refused: the words behind `limiter`.
    remedy: Option<String>,
    #[serde(skip)]
    remedied: Option<Remedy>,
}

/// Where the larger network of the address stands.
#[derive(Serialize)]
struct Network {
    network: String,
    connections: u32,
    /// The limit that it has for this address; none if a rule takes it away.
    limit: Option<u32>,
}

/// What the kernel knows of an address at a service.
pub struct Facts {
    /// What it says.
    pub policy: ServicePolicy,
    /// The counts it is in.
    pub count_keys: CountKeys,
    /// What the rules say of the address.
    pub rule_match: RuleMatch,
    /// What they would say without the one for exactly this address.
    pub otherwise: Option<RuleMatch>,
    /// What it has.
    pub has: Usage,
    /// Of that, what got in because refusals are only counted.
    pub beyond: Beyond,
    /// Its entry in the ledger.
    pub entry: Entry,
    /// What is remembered of its refusals.
    pub penalty: Penalty,
    /// Who waits.
    pub waiting: ledger::Waiting,
}

/// When it is, in the clocks that things are noted in.
#[derive(Clone, Copy)]
pub struct Now {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let explanation = steadily(instance, || {
        explain(&loaded(instance)?, Addr::from(args.address), instance.daemon()?.running)
    })?;
    if args.format.json {
        output::json(&explanation)?;
    } else {
        screen(instance, &explanation, output::width()).show()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(tables: &Tables, address: Addr, is_served: bool) -> Result<Explanation> {
    let rules = tables.policy.rules()?;
    let without: Vec<_> =
        rules.iter().filter(|rule| rule.built_in || rule.network != Net::of(address)).cloned().collect();
    let has_rule = without.len() < rules.len();
    // The rule for exactly this address may have taken the place of one that is built in.
    let without = policy::inherit(policy::admins_rules(without), policy::built_in(&rules));
    let now = Now { boot_ns: ledger::now_ns()?, monotonic_ns: ledger::monotonic_ns()? };
    let waiting = ledger::waiting(tables)?;
    let mut facts = Vec::new();
    for (id, policy) in tables.policy.services()? {
        let rule_match = tables.policy.rule_match(&address, id)?;
        let source = CountKeys::new(id, &policy, rule_match.scope(), &address);
        let count_keys = ledger::present(tables, source)?;
        let otherwise = policy::covering(&without, &address);
        facts.push(Facts {
            policy,
            rule_match,
            otherwise: has_rule
                .then(|| otherwise.map_or(RuleMatch::NONE, |rule| policy::rule_match(rule, id))),
            has: ledger::usage(tables, &source.source, &count_keys)?,
            beyond: ledger::beyond(tables, &count_keys)?,
            entry: tables.source(&count_keys.source)?.unwrap_or_default(),
            penalty: tables.penalty(&source.source)?.unwrap_or_default(),
            count_keys,
            waiting: waiting.get(&count_keys.source).copied().unwrap_or_default(),
        });
    }
    let rule = policy::covering(&rules, &address);
    Ok(explanation(address, rule, &tables.policy.ladder()?, &facts, now, is_served))
}

/// What is to be said of an address, of which this is known; `is_served` where a daemon runs, which is what replies.
pub fn explanation(
    address: Addr,
    rule: Option<&crate::kernel::sets::RuleEntry>,
    ladder: &Ladder,
    facts: &[Facts],
    now: Now,
    is_served: bool,
) -> Explanation {
    let text = address.to_string();
    let mut services: Vec<AtService> =
        facts.iter().map(|facts| at_service(&text, ladder, facts, now, is_served)).collect();
    services.sort_by(|a, b| a.service.cmp(&b.service));
    Explanation {
        local: rule.is_some_and(|rule| rule.built_in && rule.action == Action::Allow),
        rule: rule
            .filter(|rule| !rule.built_in)
            .map(|rule| Rule { network: rule.network.to_string(), action: rule.action }),
        address: text,
        services,
    }
}

fn at_service(text: &str, ladder: &Ladder, facts: &Facts, now: Now, is_served: bool) -> AtService {
    let Facts { policy, count_keys, rule_match, otherwise, has, beyond, entry, penalty, waiting } = facts;
    let limits = Limits::of(policy, rule_match).within(count_keys);
    // As the kernel does it: those that got in by that take nobody's place.
    let over = if policy.observes() { limits.above(beyond) } else { limits };
    let over = has.over(&over, now.boot_ns).map(|reason| reason.within(count_keys));
    let limit = |limit: u32| (limit != u32::MAX).then_some(limit);
    // Where it has no entry of its own, its count is not its own to raise.
    let is_its_own = |reason: &Reason| *reason != Reason::Network || !count_keys.source.is_shared();
    let remedied = over.filter(is_its_own).and_then(|reason| {
        Remedy::of(&Refused { policy, rule_match: *rule_match, otherwise: *otherwise, usage: has, reason })
    });
    let (replies, refusals) = (ladder.replies, Refusals::of(penalty, now.boot_ns));
    let is_told = is_served && policy.response == Response::Reply as u8 && replies.is_limited();
    let left = is_told.then(|| replies.left(has.replies_due_ns, now.boot_ns));
    AtService {
        service: policy.name().to_owned(),
        source: count_keys.source.addresses().to_string(),
        connections: has.source.connections(),
        limit: limit(if limits.denied { 0 } else { limits.source }),
        network: count_keys.has_network().then(|| Network {
            network: count_keys.network.addresses().to_string(),
            connections: has.network.connections(),
            limit: limit(Limits::of(policy, rule_match).network),
        }),
        total: has.total.connections(),
        max_total: limit(limits.total),
        shared: count_keys.source.is_shared(),
        refused: refusals.at_least(entry),
        refusals,
        would_refuse: entry.would_refuse,
        replies_left: left,
        waiting: waiting.count,
        waiting_seconds: waiting.seconds(now.monotonic_ns),
        observed: policy.observes(),
        verdict: if over.is_some() && !policy.observes() { "refuse" } else { "admit" },
        reason: over,
        banned_seconds: if over == Some(Reason::Banned) {
            (has.banned_until_ns - now.boot_ns).div_ceil(1_000_000_000)
        } else {
            0
        },
        wait_ms: limits.rate.wait_ns(has.due_ns, now.boot_ns).div_ceil(1_000_000),
        remedy: remedied.as_ref().map(|remedy| remedy.words(text, &[policy.name()])),
        remedied,
    }
}

const COLUMNS: [Column; 6] = [
    Column::words("SERVICE"),
    Column::words("COUNTED AS").goes(1),
    Column::number("CONNECTIONS").or("CONNS"),
    Column::number("LIMIT"),
    Column::number("REFUSED"),
    Column::words("NEXT CONNECTION"),
];

/// What is shown of it.
pub fn screen(instance: &Instance, explanation: &Explanation, width: output::Width) -> Screen {
    let Explanation { address, local, rule, services } = explanation;
    let mut screen = Screen::new(width);
    if let Some(Rule { network, action }) = rule {
        screen.line(&format!("the rule for {network} applies to {address}: {action}"));
    }
    if *local {
        screen.line(&format!(
            "{address} is a local address: its connections are counted, but no source limit applies."
        ));
    }
    // One word for all services, where it is one.
    let source = services.first().map(|at| at.source.as_str());
    let is_one = services.iter().all(|at| Some(at.source.as_str()) == source);
    if let Some(source) = source.filter(|_| is_one) {
        screen.line(&format!("{address} is counted as {source}"));
    }
    let rows: Vec<Vec<String>> = services
        .iter()
        .map(|at| {
            let next = match at.reason {
                None => "admitted".to_owned(),
                Some(reason) if at.observed => format!("observed: {reason}"),
                Some(reason) => format!("refused: {reason}"),
            };
            let mut row = vec![at.service.clone()];
            if !is_one {
                row.push(at.source.clone());
            }
            row.extend([
                at.connections.to_string(),
                at.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
                at.refused.to_string(),
                next,
            ]);
            row
        })
        .collect();
    let is_shown = |index: usize| !is_one || index != 1;
    let columns: Vec<Column> = COLUMNS
        .into_iter()
        .enumerate()
        .filter(|(index, _)| is_shown(*index))
        .map(|(_, column)| column)
        .collect();
    screen.blank();
    screen.table(&columns, &rows);
    for at in services.iter().filter(|at| at.waiting > 0) {
        let AtService { service, waiting, waiting_seconds, .. } = at;
        let wait = if *waiting == 1 { "1 handshake waits" } else { &format!("{waiting} handshakes wait") };
        screen.paragraph([format!("{service}: {wait} for a place, the first for {waiting_seconds} s")]);
    }
    for at in services {
        screen.paragraph(refused_so_far(at).into_iter().chain(let_through(at)));
    }
    // The same advice once, for all the services it is for.
    let refused: Vec<&AtService> = services.iter().filter(|at| at.reason.is_some()).collect();
    let mut told: Vec<(String, Option<&Remedy>, bool, Vec<&str>)> = Vec::new();
    for at in refused {
        let (why, remedy) = (why(address, at), at.remedied.as_ref());
        // What is said of a service is for that one alone.
        let is_alone = matches!(remedy, Some(Remedy::MaxTotal(_)));
        let is_same = |(other, known, observed, _): &(String, Option<&Remedy>, bool, Vec<&str>)| {
            !is_alone && (other, known, observed) == (&why, &remedy, &at.observed)
        };
        match told.iter_mut().find(|known| is_same(known)) {
            Some((.., services)) => services.push(&at.service),
            None => told.push((why, remedy, at.observed, vec![&at.service])),
        }
    }
    let known = explanation.services.len();
    for (why, remedy, observed, services) in told {
        // A service is set by its name, whatever the others are.
        let is_all = known > 1 && services.len() == known;
        let named: &[&str] = if is_all { &[] } else { &services };
        let after = remedy.map_or_else(String::new, |remedy| {
            let words = remedy.words(address, named);
            format!(", or after `limiter --instance {instance} {words}`")
        });
        let but = if observed { "admitted in observe mode; if enforced: " } else { "" };
        screen.paragraph([format!("{}: {but}{why}{after}.", services.join(", "))]);
    }
    screen
}

/// For what it was refused, as far as it is remembered, and what it gets next time.
fn refused_so_far(at: &AtService) -> Option<String> {
    let AtService { service, refusals, replies_left, .. } = at;
    let (seconds, reason) = (refusals.last_refused_seconds?, refusals.last_refused_for?);
    let times = refusals.times();
    let ago = match u32::try_from(seconds).unwrap_or(u32::MAX) {
        0 => "a moment ago".to_owned(),
        seconds => output::ago(seconds),
    };
    let remembered = if times == 1 {
        format!("once ({reason}), {ago}")
    } else if refusals.refused_for.len() == 1 {
        format!("{times} times ({reason}), the last time {ago}")
    } else {
        let each = refusals.refused_for.iter().map(|(reason, times)| format!("{reason} {times}"));
        let each = each.collect::<Vec<_>>().join(", ");
        format!("{times} times ({each}), the last time {ago} ({reason})")
    };
    // Those that were told nothing are counted, and their reason is not kept.
    let what = if at.refused > times {
        format!("refused {} times; reason recorded {remembered}", at.refused)
    } else {
        format!("refused {remembered}")
    };
    // Who is denied or banned gets no reply, whatever there is left.
    let next = match (at.reason, replies_left) {
        (Some(Reason::Denied | Reason::Banned), _) | (_, None) => String::new(),
        (_, Some(0)) => "; the next refusal is a reset, not a reply".to_owned(),
        (_, Some(1)) => "; it gets 1 more reply, then resets".to_owned(),
        (_, Some(left)) => format!("; it gets {left} more replies, then resets"),
    };
    Some(format!("{service}: {what}{next}"))
}

/// What got in that would have been refused.
fn let_through(at: &AtService) -> Option<String> {
    let AtService { service, would_refuse, .. } = at;
    let were = if *would_refuse == 1 { "1 connection" } else { &format!("{would_refuse} connections") };
    (*would_refuse > 0).then(|| format!("{service}: admitted {were} that enforce mode would refuse"))
}

/// Why `address` would be refused, and when it gets in by itself.
fn why(address: &str, at: &AtService) -> String {
    let AtService { network, wait_ms, .. } = at;
    match (at.reason, network) {
        (Some(Reason::Denied), _) => format!("a rule denies {address}; it gets in when the rule is changed"),
        (Some(Reason::Banned), _) => format!(
            "{address} is banned for another {}; it gets in after that",
            output::time(Duration::from_secs(at.banned_seconds))
        ),
        (Some(Reason::Total), _) => format!(
            "the service has reached its total limit of connections; {address} gets in again when any of them ends"
        ),
        (Some(Reason::Network), _) if at.shared => format!(
            "the ledger has no room for {address}, so it is counted with the other new sources in {}, which \
             together have reached their limit of connections; {address} gets in when one of these ends, or \
             when max_sources is raised",
            at.source
        ),
        (Some(Reason::Network), Some(Network { network, .. })) => format!(
            "the sources in {network} together have reached the network limit of connections; {address} gets \
             in again when one of these ends"
        ),
        (Some(Reason::Rate), _) => format!(
            "{address} exceeds its rate; it gets in again in {}",
            output::time(Duration::from_millis(*wait_ms))
        ),
        _ => {
            format!("{address} has reached its limit of connections; it gets in again when one of them ends")
        }
    }
}
