// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The screen of `limiter explain`: the answer, where the address stands, the evidence, and what helps.

use limiter_common::Response;

use super::{
    answer,
    commands::{LABEL, commands},
    view::{AtService, Explanation, NearerLimit, Rule},
};
use crate::{
    cli::output::{self, Column, Screen},
    diagnose::{Cause, Diagnosis, Remedy as Helps},
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
    let Explanation { address, local, rule, services, .. } = explanation;
    let mut screen = Screen::new(width);
    screen.line(&answer::sentence(explanation));
    screen.blank();
    if let Some(Rule { network, action }) = rule {
        screen.line(&format!("the rule for {network} applies to {address}: {action}"));
    }
    if *local {
        screen.line("connections of a local address are counted, but no source limit applies");
    }
    table(&mut screen, explanation);
    for at in services.iter().filter(|at| at.waiting > 0) {
        let AtService { service, waiting, waiting_seconds, .. } = at;
        let wait = if *waiting == 1 { "1 handshake waits" } else { &format!("{waiting} handshakes wait") };
        screen.paragraph([format!("{service}: {wait} for a place, the first for {waiting_seconds} s")]);
    }
    for at in services {
        screen.paragraph(refused_so_far(at).into_iter().chain(let_through(at)));
    }
    what_lets_in(&mut screen, instance, explanation);
    let diagnosed = || services.iter().filter_map(|at| Some((at, at.diagnosis.as_ref()?)));
    let is_one = diagnosed().count() == 1;
    for (at, diagnosis) in diagnosed() {
        if !is_one {
            screen.paragraph([format!("{}:", at.service)]);
        }
        case(&mut screen, instance, explanation, at, diagnosis);
    }
    screen
}

/// Where it stands at each service; those at which it has nothing, and nothing is in its way, in a line.
fn table(screen: &mut Screen, explanation: &Explanation) {
    let Explanation { address, services, .. } = explanation;
    // One word for all services, where it is one.
    let source = services.first().map(|at| at.source.as_str());
    let is_one = services.iter().all(|at| Some(at.source.as_str()) == source);
    if let Some(source) = source.filter(|_| is_one) {
        screen.line(&format!("{address} is counted as {source}"));
    }
    let quiet: Vec<&AtService> = services.iter().filter(|at| is_quiet(at)).collect();
    let is_folded = is_one && quiet.len() > 1 && quiet.len() < services.len();
    let rows: Vec<Vec<String>> = services
        .iter()
        .filter(|at| !is_folded || !is_quiet(at))
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
            row.extend([at.connections.to_string(), limit(at), at.refused.to_string(), next]);
            row
        })
        .collect();
    let is_shown = |index: usize| !is_one || index != 1;
    let shown = COLUMNS.into_iter().enumerate().filter(|(index, _)| is_shown(*index));
    let columns: Vec<Column> = shown.map(|(_, column)| column).collect();
    screen.blank();
    screen.table(&columns, &rows);
    if is_folded {
        // Those with the same limit together, in the order of the services.
        let mut limits: Vec<(String, Vec<&str>)> = Vec::new();
        for at in quiet {
            let limit = limit(at);
            match limits.iter_mut().find(|(known, _)| *known == limit) {
                Some((_, names)) => names.push(&at.service),
                None => limits.push((limit, vec![&at.service])),
            }
        }
        let line = |(limit, names): (String, Vec<&str>)| {
            format!("no connection to {} (limit {limit}): admitted", names.join(", "))
        };
        screen.paragraph(limits.into_iter().map(line));
    }
}

fn limit(at: &AtService) -> String {
    at.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}

/// Whether there is nothing to say of a service but its limit.
fn is_quiet(at: &AtService) -> bool {
    at.connections == 0 && at.waiting == 0 && at.refused == 0 && at.reason.is_none() && at.would_refuse == 0
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

/// When it gets in again, and by which command at once: the same advice once, for all the services it is for.
fn what_lets_in(screen: &mut Screen, instance: &Instance, explanation: &Explanation) {
    let address = &explanation.address;
    let mut told: Vec<(String, Option<&Remedy>, bool, Vec<&str>)> = Vec::new();
    for at in explanation.services.iter().filter(|at| at.reason.is_some()) {
        let (why, remedy) = (answer::why(address, at), at.change.as_ref());
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
        let after = if remedy.is_some() { ", or at once by" } else { "" };
        let but = if observed { "admitted in observe mode; if enforced: " } else { "" };
        screen.paragraph([format!(
            "{}: {but}{why}{after}{}",
            services.join(", "),
            if remedy.is_some() { ":" } else { "." }
        )]);
        if let Some(remedy) = remedy {
            screen.command(0, &format!("{} {}", instance.program(), remedy.command(address, named)));
        }
    }
}

/// What is said of a case: what is likely, by which evidence, what is not, what is not known, and what helps.
fn case(
    screen: &mut Screen,
    instance: &Instance,
    explanation: &Explanation,
    at: &AtService,
    diagnosis: &Diagnosis,
) {
    screen.blank();
    let word = if diagnosis.cannot_tell() { "perhaps" } else { "likely" };
    for (index, finding) in diagnosis.findings.iter().enumerate() {
        let label = if index == 0 { word } else { "also" };
        let what = format!("{} ({})", finding.cause.words(), finding.confidence.word());
        screen.labelled(label, LABEL, &what);
        let evidence = finding.evidence.iter().map(|fact| fact.text.as_str());
        screen.labelled("", LABEL, &evidence.collect::<Vec<_>>().join("; "));
    }
    if diagnosis.findings.is_empty() && at.connections > 0 {
        screen.labelled("likely", LABEL, "I cannot tell: nothing that is known says why");
    }
    if !diagnosis.excluded.is_empty() {
        // What is of the clients first; all are in the document.
        let mut excluded: Vec<_> = diagnosis.excluded.iter().collect();
        excluded.sort_by_key(|it| std::cmp::Reverse(it.cause));
        excluded.sort_by_key(|it| matches!(it.cause, Cause::LimitTooLow | Cause::InFront));
        let not = excluded.iter().take(MOST_NOT).map(|it| format!("{} ({})", it.cause.short(), it.why));
        screen.labelled("not", LABEL, &not.collect::<Vec<_>>().join("; "));
    }
    for unknown in &diagnosis.unknown {
        screen.labelled("unknown", LABEL, &unknown.what);
        if let Some(words) = &unknown.would_tell {
            screen.command(LABEL, &format!("{} {words}", instance.program()));
        }
    }
    for NearerLimit { daemon, setting, value, scope, file, reload } in &at.nearer_limits {
        let each = match *scope {
            "service" => "for the whole service".to_owned(),
            scope => format!("for each {scope}"),
        };
        screen.labelled(
            "nearer",
            LABEL,
            &format!("{daemon} itself allows {value} {each}: {setting} in {file}, then `{reload}`"),
        );
    }
    // What each finding offers, each once.
    let mut helps: Vec<&Helps> = Vec::new();
    for remedy in diagnosis.findings.iter().flat_map(|finding| &finding.remedies) {
        if !helps.iter().any(|known| known.command == remedy.command) {
            helps.push(remedy);
        }
    }
    let helps: Vec<Helps> = helps.into_iter().take(MOST_COMMANDS).cloned().collect();
    commands(screen, "now", &instance.program(), &helps);
    if at.reason.is_some() {
        screen.labelled("user", LABEL, "a text for the mail user (--language de: in German):");
        screen.command(LABEL, &format!("{} explain {} --for-user", instance.program(), explanation.address));
    }
}

/// More of what is not so tells nothing.
const MOST_NOT: usize = 4;
/// More commands are no advice.
const MOST_COMMANDS: usize = 4;
