// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What people see of the history.

use std::time::Duration;

use anyhow::Result;

use super::summary::{Summary, sparkline};
use crate::{
    cli::output::{self, Column, Screen, Width},
    history::{Durations, Quarter, Times},
};

/// What is shown.
pub struct Shown<'a> {
    pub sources: &'a [Summary],
    /// How far back.
    pub since: Duration,
    /// Only who was refused.
    pub refused: bool,
    /// Of an address or a network: its rows, too.
    pub is_of_one: bool,
}

const COLUMNS: [Column; 8] = [
    Column::words("SERVICE"),
    Column::words("SOURCE"),
    Column::number("PEAK"),
    Column::number("ACCEPTED").goes(1),
    Column::number("REFUSED"),
    Column::words("WHY").goes(4),
    Column::words("LAST").goes(3),
    Column::words("PEAKS").goes(2),
];

/// The same where the line is of refusals.
const REFUSALS: Column = Column::words("REFUSALS").goes(2);

/// Which is the line.
const LINE: usize = 7;

const ROWS: [Column; 7] = [
    Column::words("FROM"),
    Column::words("SERVICE"),
    Column::words("SOURCE").goes(1),
    Column::number("PEAK"),
    Column::number("ACCEPTED").goes(2),
    Column::number("REFUSED"),
    Column::words("WHY").goes(3),
];

/// The screen; `local` says times where this host is.
pub fn screen(
    shown: &Shown<'_>,
    local: impl Fn(Vec<i64>) -> rusqlite::Result<Times>,
    width: Width,
) -> Result<Screen> {
    let mut screen = Screen::new(width);
    screen.line(&headline(shown));
    if shown.sources.is_empty() {
        return Ok(screen);
    }
    screen.blank();
    let last = local(shown.sources.iter().filter_map(|one| one.last_refused).collect())?;
    let mut last = last.into_iter();
    let rows: Vec<Vec<String>> = shown
        .sources
        .iter()
        .map(|one| {
            let last = one.last_refused.and_then(|_| last.next());
            let line = if shown.refused { &one.refusals } else { &one.peaks };
            vec![
                one.service.clone(),
                one.source.to_string(),
                peak(one.peak, one.limit),
                one.accepted.to_string(),
                refused(one.refused, one.would_refuse),
                why(&one.reasons().into_iter().map(|(reason, _)| reason.name()).collect::<Vec<_>>()),
                // Without the year.
                last.map_or_else(|| "-".to_owned(), |at| at.get(5..).unwrap_or(&at).to_owned()),
                sparkline(line),
            ]
        })
        .collect();
    let mut columns = COLUMNS;
    if shown.refused {
        columns[LINE] = REFUSALS;
    }
    screen.table(&columns, &rows);
    if shown.is_of_one {
        for one in shown.sources {
            screen.paragraph(about(one));
        }
        screen.blank();
        stretches(&mut screen, shown, local)?;
    }
    if shown.sources.iter().any(|one| one.would_refuse > 0) {
        screen.paragraph(["+N: N more would have been refused, if the service did not only observe"]);
    }
    Ok(screen)
}

/// The answer in a sentence.
fn headline(shown: &Shown<'_>) -> String {
    let since = output::time(shown.since);
    let refused = shown.sources.iter().filter(|one| one.refused > 0).count();
    let times: u64 = shown.sources.iter().map(|one| one.refused).sum();
    let near = shown.sources.len() - refused;
    let sources = |n: usize| if n == 1 { "1 source".to_owned() } else { format!("{n} sources") };
    let were = if refused == 1 { "was" } else { "were" };
    match (refused, shown.is_of_one) {
        (0, true) if shown.sources.is_empty() => format!("in the last {since}: nothing is kept of it"),
        (0, _) if shown.sources.is_empty() && shown.refused => {
            format!("in the last {since}: nobody was refused")
        }
        (0, false) if shown.sources.is_empty() => {
            format!("in the last {since}: nobody was refused, or reached half of the limit")
        }
        (0, false) => format!(
            "in the last {since}: nobody was refused; {} reached half of the limit or would have been refused",
            sources(near)
        ),
        (0, true) => format!("in the last {since}: {}, not refused", sources(near)),
        (_, true) => format!("in the last {since}: {} {were} refused {}", sources(refused), often(times)),
        (_, false) if near == 0 => {
            format!("in the last {since}: {} {were} refused {}", sources(refused), often(times))
        }
        (_, false) => format!(
            "in the last {since}: {} {were} refused {}; {} more reached half of the limit",
            sources(refused),
            often(times),
            near
        ),
    }
}

fn often(times: u64) -> String {
    match times {
        1 => "once".to_owned(),
        times => format!("{times} times"),
    }
}

/// What there is to say of one source besides its numbers.
fn about(one: &Summary) -> Vec<String> {
    let mut about = Vec::new();
    if let Some(durations) = one.durations.filter(|durations| durations.ended() > 0) {
        let Durations { under_1_min, under_10_min, under_1_h, under_8_h, longer } = durations;
        about.push(format!(
            "{} at {}: {} connections ended; they had lasted less than 1 min: {under_1_min}, 10 min: {under_10_min}, 1 h: \
             {under_1_h}, 8 h: {under_8_h}, longer: {longer}",
            one.source,
            one.service,
            durations.ended()
        ));
    }
    if let Some(users) = one.users.filter(|users| *users > 0) {
        let names = if one.names.is_empty() { String::new() } else { format!(": {}", one.names.join(", ")) };
        let users = if users == 1 { "1 user".to_owned() } else { format!("{users} users") };
        about.push(format!(
            "{} at {}: {users} or more in a quarter of an hour{names}",
            one.source, one.service
        ));
    }
    about
}

/// The rows, the last first.
fn stretches(
    screen: &mut Screen,
    shown: &Shown<'_>,
    local: impl Fn(Vec<i64>) -> rusqlite::Result<Times>,
) -> Result<()> {
    let mut rows: Vec<&Quarter> = shown.sources.iter().flat_map(|one| &one.rows).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.start_s));
    let starts = local(rows.iter().map(|row| row.start_s).collect())?;
    let rows: Vec<Vec<String>> = rows
        .iter()
        .zip(starts)
        .map(|(row, start)| {
            let length = match row.seconds {
                900 => "",
                3600 => " (1 h)",
                _ => " (1 d)",
            };
            let reasons = limiter_common::Reason::ALL.iter().zip(row.refused_for);
            let reasons: Vec<&str> =
                reasons.filter(|(_, times)| *times > 0).map(|(reason, _)| reason.name()).collect();
            vec![
                format!("{start}{length}"),
                row.service.clone(),
                row.source.to_string(),
                peak(row.peak, row.limit),
                row.accepted.to_string(),
                refused(row.refused, row.would_refuse),
                why(&reasons),
            ]
        })
        .collect();
    screen.table(&ROWS, &rows);
    Ok(())
}

/// The most connections, and the limit if there was one.
fn peak(peak: u32, limit: Option<u32>) -> String {
    limit.map_or_else(|| peak.to_string(), |limit| format!("{peak} of {limit}"))
}

fn refused(refused: u64, would_refuse: u64) -> String {
    if would_refuse == 0 { refused.to_string() } else { format!("{refused}+{would_refuse}") }
}

/// The first reason, and how many others there are.
fn why(reasons: &[&str]) -> String {
    match reasons {
        [] => "-".to_owned(),
        [one] => (*one).to_owned(),
        [first, others @ ..] => format!("{first}, +{}", others.len()),
    }
}
