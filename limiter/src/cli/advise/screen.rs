// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The answer of `limiter advise` for people: who was there, what limits would have refused, and what to do.

use crate::{
    advice::{Advice, ByPeak, MailLimit, OwnRule, Suggestion, Undecided, Would},
    cli::output::{self, Column, Screen},
    instance::Instance,
};

/// The first peaks of each row of the plot; the last row has all that are larger.
const ROWS: [u32; 12] = [1, 2, 3, 4, 5, 7, 9, 11, 21, 51, 101, 201];
/// Columns of the longest bar, where there is room.
const BAR: usize = 40;
/// Where commands begin, behind the word that says what they do.
const COMMANDS: usize = 6;

const COLUMNS: [Column; 6] = [
    Column::number("LIMIT"),
    Column::number("SOURCE-DAYS").or("SOURCES"),
    Column::number("CONNECTIONS").or("CONNS"),
    Column::number("HONEST"),
    Column::number("DUBIOUS"),
    Column::number("UNKNOWN"),
];

/// What is shown of it; `applies` where it is put in force right after.
pub fn screen(instance: &Instance, advice: &[Advice], applies: bool, width: output::Width) -> Screen {
    let mut screen = Screen::new(width);
    if advice.is_empty() {
        screen.line("not enough history: it has no connection of these days, so there is nothing to advise");
    }
    for one in advice {
        of_service(&mut screen, instance, one, applies, width);
    }
    screen
}

fn of_service(
    screen: &mut Screen,
    instance: &Instance,
    advice: &Advice,
    applies: bool,
    width: output::Width,
) {
    screen.blank();
    screen.line(&headline(advice));
    if let Some(why) = &advice.not_suggested
        && advice.spread.is_none()
    {
        screen.line(why);
        return;
    }
    screen.blank();
    plot(screen, &advice.source_days_by_peak, width);
    if let Some(spread) = advice.spread {
        screen.line(&format!(
            "half of them held {} at most, 90 % {}, 99 % {}, all {}",
            spread.percent_50, spread.percent_90, spread.percent_99, spread.most
        ));
    }
    screen.blank();
    screen.line("what a limit would have refused, at least:");
    let rows: Vec<Vec<String>> = advice.limits.iter().map(row).collect();
    screen.table(&COLUMNS, &rows);
    screen.paragraph(advice.mail.iter().map(|mail| of_mail(mail, advice.suggestion.as_ref())));
    let Some(suggestion) = &advice.suggestion else {
        screen.paragraph(advice.not_suggested.iter());
        return;
    };
    suggested(screen, advice, suggestion);
    if !applies {
        commands(screen, instance, advice, suggestion);
    }
}

fn headline(advice: &Advice) -> String {
    let Advice { service, max_connections, observes, days, is_complete, ruled, .. } = advice;
    let source_days: u64 = advice.source_days_by_peak.values().sum();
    format!(
        "{service}: each source may hold {max_connections} connections{}; {source_days} source-days in {}{}{}",
        if *observes { ", and nobody is refused (observe)" } else { "" },
        if *days == 1 { "one day".to_owned() } else { format!("{days} days") },
        if *is_complete { "" } else { ", at least" },
        match ruled {
            0 => String::new(),
            1 => ", without one source that has a rule".to_owned(),
            ruled => format!(", without {ruled} sources that have a rule"),
        },
    )
}

fn suggested(screen: &mut Screen, advice: &Advice, suggestion: &Suggestion) {
    let verdict = if suggestion.max_connections == advice.max_connections {
        format!("suggestion: leave {}", advice.max_connections)
    } else {
        format!("suggestion: {} connections for each source", suggestion.max_connections)
    };
    screen.paragraph([verdict]);
    for reason in &suggestion.reasons {
        screen.labelled("", 2, reason);
    }
    for OwnRule { network, max_connections, why } in &suggestion.rules {
        screen.labelled(
            "",
            2,
            &format!("a rule of its own for {network}, {max_connections} connections: {why}"),
        );
    }
    for Undecided { source, peak } in &suggestion.undecided {
        let text = format!(
            "undecided: {source} held {peak}, far more than all others, and nothing says whether it is honest; give it a \
             rule, or leave it to be refused"
        );
        screen.labelled("", 2, &text);
    }
    for doubt in &suggestion.doubts {
        screen.labelled("", 2, &format!("but {doubt}"));
    }
}

/// What puts it in force, the whole first.
fn commands(screen: &mut Screen, instance: &Instance, advice: &Advice, suggestion: &Suggestion) {
    let Advice { service, max_connections, observes, .. } = advice;
    let limiter = instance.program();
    let is_new = suggestion.max_connections != *max_connections || *observes;
    let mut single = Vec::new();
    if is_new {
        let (limit, mode) = (suggestion.max_connections, if *observes { " mode=enforce" } else { "" });
        single.push(format!("{limiter} set {service} max_connections={limit}{mode} --save"));
    }
    single.extend(suggestion.rules.iter().map(|OwnRule { network, max_connections, .. }| {
        format!("{limiter} limit {network} {max_connections} --service {service} --save")
    }));
    if !single.is_empty() {
        screen.blank();
        let enforce = if *observes { " --enforce" } else { "" };
        let all = format!("{limiter} advise --service {service} --apply --save{enforce}");
        screen.labelled_command("now", COMMANDS, &all);
    }
    for (number, command) in single.iter().enumerate() {
        screen.labelled_command(if number == 0 { "or" } else { "" }, COMMANDS, command);
    }
    for (number, Undecided { source, .. }) in suggestion.undecided.iter().enumerate() {
        if number == 0 && single.is_empty() {
            screen.blank();
        }
        let look = format!("{limiter} history {source}");
        screen.labelled_command(if number == 0 { "look" } else { "" }, COMMANDS, &look);
    }
}

fn row(would: &Would) -> Vec<String> {
    let Would { limit, source_days, connections, honest, dubious, unknown } = *would;
    let numbers = [limit.into(), source_days, connections, honest, dubious, unknown];
    numbers.map(|number: u64| number.to_string()).to_vec()
}

/// A mail daemon's own limit, beside the suggested one.
fn of_mail(mail: &MailLimit, suggestion: Option<&Suggestion>) -> String {
    let MailLimit { daemon, setting, limit } = mail;
    let suggested = suggestion.map(|suggestion| u64::from(suggestion.max_connections));
    match (limit, suggested) {
        (None, _) => format!("{daemon} has no limit of its own for one source ({setting})"),
        (Some(limit), Some(suggested)) if *limit < suggested => {
            format!(
                "{daemon} itself refuses more than {limit} ({setting}), which is less than what is suggested"
            )
        }
        (Some(limit), _) => format!("{daemon} itself refuses more than {limit} ({setting})"),
    }
}

/// Source-days by peak: a bar a row.
fn plot(screen: &mut Screen, by_peak: &ByPeak, width: output::Width) {
    screen.line("source-days by the most connections at one time:");
    let rows: Vec<(String, u64)> = ROWS
        .iter()
        .enumerate()
        .map(|(index, &first)| {
            let last = ROWS.get(index + 1).map(|next| next - 1);
            let label = match last {
                Some(last) if last == first => first.to_string(),
                Some(last) => format!("{first}-{last}"),
                None => format!("{first}+"),
            };
            let count = by_peak.range(first..=last.unwrap_or(u32::MAX)).map(|(_, count)| count).sum();
            (label, count)
        })
        .collect();
    let used = rows.iter().rposition(|(_, count)| *count > 0).map_or(0, |last| last + 1);
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let digits = most.to_string().len();
    let room = width.map_or(BAR, |width| width.saturating_sub(10 + digits)).min(BAR);
    for (label, count) in rows.iter().take(used) {
        // Whoever is there is seen.
        let bar = (u128::from(*count) * room as u128).div_ceil(u128::from(most)) as usize;
        screen.raw(format!("{label:>7}  {count:>digits$} {}", "#".repeat(bar)).trim_end());
    }
}
