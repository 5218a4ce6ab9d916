// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What people see of the history.

use std::time::Duration;

use anyhow::Result;

use super::summary::{Summary, sparkline};
use crate::{
    cli::output::{self, Column, Screen, Width},
    history::{Durations, Gap, Quarter, Times},
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
    /// Until when all refusals are written, in seconds since 1970; none where nobody knows.
    pub until: Option<i64>,
    /// When nobody wrote them meanwhile.
    pub gaps: &'a [Gap],
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
    let until = shown.until.map(|until| local(vec![until])).transpose()?.and_then(|mut times| times.pop());
    screen.line(&headline(shown, until.as_deref().map(without_year)));
    if let Some(gap) = shown.gaps.last() {
        let times = local(vec![gap.since, gap.until])?;
        let mut times = times.iter().map(|at| without_year(at));
        let (from, to) = (times.next().unwrap_or_default(), times.next().unwrap_or_default());
        let before = match shown.gaps.len() - 1 {
            0 => String::new(),
            1 => ", nor at one other time".to_owned(),
            more => format!(", nor at {more} other times"),
        };
        screen
            .line(&format!("what happened from {from} to {to} is not in it, as no daemon wrote it{before}"));
    }
    if shown.sources.is_empty() {
        return Ok(screen);
    }
    screen.blank();
    let last: Vec<Option<(i64, bool)>> = shown.sources.iter().map(Summary::last_refused).collect();
    let is_rough = last.iter().flatten().any(|(_, is_known)| !is_known);
    let mut at = local(last.iter().flatten().map(|(at, _)| *at).collect())?.into_iter();
    let mut last = last.into_iter().map(|last| {
        let (_, is_known) = last?;
        Some(format!("{}{}", if is_known { "" } else { "~" }, without_year(&at.next()?)))
    });
    let rows: Vec<Vec<String>> = shown
        .sources
        .iter()
        .map(|one| {
            let last = last.next().flatten();
            let line = if shown.refused { &one.refusals } else { &one.peaks };
            vec![
                one.sum.service.clone(),
                one.sum.source.to_string(),
                peak(one.sum.peak, one.sum.limit),
                one.sum.accepted.to_string(),
                refused(one.sum.refused, one.sum.would_refuse),
                why(&one.reasons().into_iter().map(|(reason, _)| reason.name()).collect::<Vec<_>>()),
                last.unwrap_or_else(|| "-".to_owned()),
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
    if is_rough {
        screen.paragraph(["~: in the row that begins then; an older limiter has kept no time"]);
    }
    if shown.sources.iter().any(|one| one.sum.would_refuse > 0) {
        screen.paragraph(["+N: N more would have been refused, if the service did not only observe"]);
    }
    Ok(screen)
}

/// A time without its year.
fn without_year(at: &str) -> &str {
    at.get(5..).unwrap_or(at)
}

/// The answer in a sentence: until when everything is written, and what that says.
fn headline(shown: &Shown<'_>, until: Option<&str>) -> String {
    let since = output::time(shown.since);
    let since = match until {
        Some(until) => format!("{since}, until {until}"),
        None => format!("{since}, as far as it is written"),
    };
    let refused = shown.sources.iter().filter(|one| one.sum.refused > 0).count();
    let times: u64 = shown.sources.iter().map(|one| one.sum.refused).sum();
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
    if let Some(durations) = one.sum.durations.filter(|durations| durations.ended() > 0) {
        let Durations { under_1_min, under_10_min, under_1_h, under_8_h, longer } = durations;
        about.push(format!(
            "{} at {}: {} connections ended; they had lasted less than 1 min: {under_1_min}, 10 min: {under_10_min}, 1 h: \
             {under_1_h}, 8 h: {under_8_h}, longer: {longer}",
            one.sum.source,
            one.sum.service,
            durations.ended()
        ));
    }
    if let Some(users) = one.sum.users.filter(|users| *users > 0) {
        let names =
            if one.sum.names.is_empty() { String::new() } else { format!(": {}", one.sum.names.join(", ")) };
        let users = if users == 1 { "1 user".to_owned() } else { format!("{users} users") };
        about.push(format!(
            "{} at {}: {users} or more in a quarter of an hour{names}",
            one.sum.source, one.sum.service
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
