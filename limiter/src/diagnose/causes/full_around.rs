// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The network around the source, or the service as a whole, is full, and this source can do nothing about it.
//!
//! That is no guess: the limiter refuses for one of the two. Against it speaks that the source itself holds at least half
//! of what fills it.

use ipnet::IpNet;
use limiter_common::{Reason, ServicePolicy};

use super::super::{
    figures::Figures,
    finding::{Cause, Confidence, Fact, Finding, Judgement, Paragraph, Remedy},
};
use crate::evidence::case::{DaemonLimit, LimitScope};

/// Of what the mail daemon can serve, in hundredths, the limiter may let in: the rest is for those that are allowed.
const OF_THE_DAEMONS: u64 = 96;

/// What the figures say of it.
pub fn judge(figures: &Figures<'_>) -> Judgement {
    let whole = &figures.case.whole;
    match (figures.case.reason, whole.network) {
        (Some(Reason::Total), _) => of_service(figures),
        (Some(Reason::Network), Some((network, connections, limit))) => {
            of_network(figures, network, connections, limit)
        }
        _ => whole.max_total.map_or(Judgement::Nothing, |max| {
            Judgement::Not(format!("the service has room, {} of {max}", whole.connections))
        }),
    }
}

fn of_network(figures: &Figures<'_>, network: IpNet, connections: u32, limit: Option<u32>) -> Judgement {
    if is_half(figures, connections) {
        let own = figures.connections;
        return Judgement::Not(format!("it holds {own} of the {connections} in {network} itself"));
    }
    let of = limit.map_or_else(|| connections.to_string(), |limit| format!("{connections} of {limit}"));
    let evidence =
        vec![Fact::new("network_connections", connections, format!("{network} holds {of}")), own(figures)];
    let summary = format!("the sources in {network} together hold {of} connections");
    let more = limit.unwrap_or(connections).max(connections).saturating_mul(3).div_ceil(2);
    let source = super::source(figures);
    let words = format!("limit {source} --network-max-connections {more} --service {}", figures.case.service);
    let lets_in =
        Remedy::limiter(words, format!("lets it in while {network} holds less than {more} connections"));
    let remedies = if more <= ServicePolicy::MAX_LIMIT { vec![lets_in] } else { Vec::new() };
    found(figures, summary, evidence, remedies)
}

fn of_service(figures: &Figures<'_>) -> Judgement {
    let whole = &figures.case.whole;
    let connections = whole.connections;
    if is_half(figures, connections) {
        return Judgement::Not(format!(
            "it holds {} of the service's {connections} itself",
            figures.connections
        ));
    }
    let of = whole.max_total.map_or_else(|| connections.to_string(), |max| format!("{connections} of {max}"));
    let mut evidence =
        vec![Fact::new("service_connections", connections, format!("the service holds {of}")), own(figures)];
    if whole.refused_lately > 0 {
        let others = if whole.refused_lately == 1 { "other source was" } else { "other sources were" };
        let text = format!("{} {others} refused in the last 10 min", whole.refused_lately);
        evidence.push(Fact::new("other_sources_refused", whole.refused_lately, text));
    }
    if let Some((_, most)) = whole.largest.first() {
        let named: Vec<String> =
            whole.largest.iter().take(2).map(|(source, held)| format!("{} {held}", bare(source))).collect();
        let text = format!("largest holders: {}", named.join(", "));
        evidence.push(Fact::new("largest_holder_connections", *most, text));
    }
    let list = format!("list --service {}", figures.case.service);
    let mut remedies = vec![Remedy::limiter(list, "who holds them, the largest first")];
    remedies.extend(more_room(figures));
    found(figures, format!("the service is full ({of}), through no fault of its own"), evidence, remedies)
}

/// More connections for the service, as far as the mail daemon can serve them.
fn more_room(figures: &Figures<'_>) -> Option<Remedy> {
    let case = figures.case;
    let now = u64::from(case.whole.max_total?.max(case.whole.connections));
    let limits = case.server.limits.iter().filter(|limit| limit.scope == LimitScope::Service);
    let of_daemon: Option<(u64, &DaemonLimit)> =
        limits.filter_map(|limit| Some((limit.value?, limit))).min_by_key(|(value, _)| *value);
    let (more, effect) = match of_daemon {
        Some((value, DaemonLimit { daemon, setting, file, reload, .. })) => {
            let more = value.saturating_mul(OF_THE_DAEMONS) / 100;
            if more <= now {
                let what = format!("raise {setting} in {file}, then `{reload}`");
                let effect = format!("{daemon} serves {value} itself, so max_total alone does not help");
                return Some(Remedy::by_hand(what, effect));
            }
            (more, format!("{daemon} serves up to {value} ({setting})"))
        }
        None => ((now + now.div_ceil(4)).next_multiple_of(5), "if the mail daemon can serve them".to_owned()),
    };
    let is_limit = more <= u64::from(ServicePolicy::MAX_LIMIT);
    is_limit.then(|| Remedy::limiter(format!("set {} max_total={more}", case.service), effect))
}

fn found(figures: &Figures<'_>, summary: String, evidence: Vec<Fact>, remedies: Vec<Remedy>) -> Judgement {
    Judgement::Found(Finding {
        cause: Cause::FullAround,
        confidence: Confidence::High,
        explains: figures.connections,
        summary,
        evidence,
        remedies,
        for_user: vec![Paragraph::NotYou, Paragraph::TellProvider],
    })
}

/// Whether the source itself holds at least half of so many.
fn is_half(figures: &Figures<'_>, all: u32) -> bool {
    u64::from(figures.connections) * 2 >= u64::from(all)
}

fn own(figures: &Figures<'_>) -> Fact {
    let own = figures.connections;
    let are = if own == 1 { "is" } else { "are" };
    Fact::new("source_connections", own, format!("{own} of them {are} its own"))
}

/// A network, or an address alone.
fn bare(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}
