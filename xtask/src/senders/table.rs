// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What was measured, as a table of Markdown.

use std::time::Duration;

use super::{cell::Outcome, plan::Cell, setting::MESSAGES};

const HEAD: &str = "\
| sender → receiver | way | retries | limit | arrived | the last after | put off | tried | 220 | 421 | reset | hung > 10 s | longest silence |
|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
";

/// The table. A turn that could not be taken has its reason behind it.
pub fn table(turns: &[(Cell, Result<Outcome, String>)]) -> String {
    let rows = turns.iter().map(|(cell, outcome)| match outcome {
        Ok(outcome) => row(*cell, outcome),
        Err(_) => format!("{} – |||||||||\n", head(*cell)),
    });
    let failures = turns.iter().filter_map(|(cell, outcome)| Some((*cell, outcome.as_ref().err()?)));
    let failures = failures.map(|(cell, error)| format!("\n{}: {error}\n", title(cell)));
    [HEAD.to_owned()].into_iter().chain(rows).chain(failures).collect()
}

/// A turn as a person calls it.
pub fn title(cell: Cell) -> String {
    let Cell { sender, receiver, way, timers, limit } = cell;
    format!("{sender} → {receiver}, {way}, retries {timers}, limit {limit}")
}

fn head(cell: Cell) -> String {
    let Cell { sender, receiver, way, timers, limit } = cell;
    format!("| {sender} → {receiver} | {way} | {timers} | {limit} |")
}

/// One row.
pub fn row(cell: Cell, outcome: &Outcome) -> String {
    let Outcome { arrived, last, put_off, seen, .. } = outcome;
    let arrived = if *arrived == MESSAGES { arrived.to_string() } else { format!("**{arrived}**") };
    format!(
        "{} {arrived} | {} | {put_off} | {} | {} | {} | {} | {} | {} |\n",
        head(cell),
        seconds(*last),
        seen.tried,
        seen.served,
        seen.told,
        seen.reset,
        seen.hung,
        seconds(seen.longest)
    )
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
