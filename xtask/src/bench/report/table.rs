// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rows and columns, for the terminal and for the page.

use comfy_table::{CellAlignment, Table, presets};

use crate::bench::{
    outcome::Outcome,
    programs::{Memory, Program},
    statistics::Spread,
};

/// A table: a header, and rows; all columns but the first so many are numbers.
pub struct Rows {
    /// Names of the columns.
    pub header: Vec<&'static str>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// Columns of words.
    pub words: usize,
}

/// A workload's.
pub fn outcome(outcome: &Outcome) -> Rows {
    let unit = if outcome.is_bulk { "MB/s" } else { "/s" };
    let mut header = vec!["", unit, "±", "ratio", "CPU µs", "CPU ratio", "own CPU µs"];
    if !outcome.is_bulk {
        header.extend(["p50 µs", "p99 µs", "failed"]);
    }
    header.push("memory MiB");
    let is_flood = outcome.contestants.iter().any(|figures| figures.flood.median > 0.0);
    if is_flood {
        header.push("flood/s");
    }
    let rows = outcome.contestants.iter().map(|figures| {
        let mut row = vec![
            figures.contestant.to_string(),
            number(figures.rate.median),
            format!("{:.0}%", figures.rate.percent()),
            ratio(figures.rate_ratio),
            format!("{:.1}", figures.cpu_us.median),
            ratio(figures.cpu_ratio),
            format!("{:.1}", figures.own_cpu_us.median),
        ];
        if !outcome.is_bulk {
            row.extend([
                number(figures.p50_us.median),
                number(figures.p99_us.median),
                figures.failed.to_string(),
            ]);
        }
        row.push(format!("{:.1}", figures.memory_kib.median / 1024.0));
        if is_flood {
            row.push(number(figures.flood.median));
        }
        row
    });
    Rows { header, rows: rows.collect(), words: 1 }
}

/// The kernel programs'.
pub fn programs(programs: &[Program]) -> Rows {
    let rows = programs.iter().map(|program| {
        vec![
            program.name.clone(),
            program.workload.clone(),
            format!("{:.0}", program.ns_per_run),
            format!("{:.2}", program.runs_per_unit),
            format!("{:.0}", program.ns_per_run * program.runs_per_unit),
            program.verified.to_string(),
            program.jited.to_string(),
        ]
    });
    let header = vec!["program", "workload", "ns/run", "runs", "ns", "verified insns", "jited bytes"];
    Rows { header, rows: rows.collect(), words: 2 }
}

/// The maps'.
pub fn memory(memory: &[Memory]) -> Rows {
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let rows = memory.iter().map(|memory| {
        let each = (memory.ledger.saturating_sub(memory.empty_ledger)) as f64 / memory.sources.max(1) as f64;
        vec![
            memory.contestant.clone(),
            memory.sources.to_string(),
            mib(memory.maps),
            mib(memory.empty_ledger),
            format!("{each:.0}"),
        ]
    });
    let header = vec!["", "sources", "all maps MiB", "of that buckets MiB", "bytes/source"];
    Rows { header, rows: rows.collect(), words: 1 }
}

/// For the terminal.
pub fn for_people(rows: &Rows) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(&rows.header).add_rows(&rows.rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        if index >= rows.words {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// For the page.
pub fn for_markdown(rows: &Rows) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let rule = (0..rows.header.len()).map(|index| if index < rows.words { "---" } else { "---:" });
    let body = rows.rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    line(rows.header.clone()) + &line(rule.collect()) + &body.collect::<String>()
}

/// Thousands apart.
fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn ratio(ratio: Option<Spread>) -> String {
    ratio.map_or_else(|| "–".into(), |ratio| format!("{:.3} ±{:.0}%", ratio.median, ratio.percent()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0.4, 999.0, 1000.0, 1_234_567.0].map(number), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = Rows { header: vec!["", "n"], rows: vec![vec!["a".into(), "1".into()]], words: 1 };
        assert_eq!(for_markdown(&rows), "|  | n |\n| --- | ---: |\n| a | 1 |\n");
    }
}
