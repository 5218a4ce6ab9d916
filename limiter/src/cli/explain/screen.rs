// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The screen of `limiter explain`.

use std::time::Duration;

use limiter_common::{Reason, Response};

use super::view::{AtService, Explanation, Network, Rule};
use crate::{
    cli::output::{self, Column, Screen},
    instance::Instance,
    standing::Remedy,
};

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
        let (why, remedy) = (why(address, at), at.change.as_ref());
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
            let command = remedy.command(address, named);
            format!(", or after `limiter --instance {instance} {command}`")
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
    let next = match (at.response, replies_left) {
        (Some(Response::Drop), _) | (_, None) => String::new(),
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
