//! How things are printed: tables for people, JSON for programs. A write that fails is an error like
//! any other, never a panic.

use std::{
    io::Write as _,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// What this command has said so far: of lists the beginning.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Prints a line.
pub fn line(text: &str) -> Result<()> {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() < 1000 && text.len() < 1000 {
        said.push(text.to_owned());
    }
    drop(said);
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// Says what was done. It is done, whether or not it can be said: then it is said on stderr why it was not.
pub fn done(lines: &[String]) {
    if let Err(error) = lines.iter().try_for_each(|text| line(text))
        && !is_broken_pipe(&error)
    {
        eprintln!("limiter: it is done, and could not be said on stdout ({error:#}): {}", lines.join("; "));
    }
}

/// Whether who was to read this has seen enough.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The lines that were printed so far.
pub fn said() -> Vec<String> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Prints a value as JSON.
pub fn json<T: Serialize>(value: &T) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints rows under a header; columns from `numbers` on are numbers, and stand to the right.
pub fn table(header: &[&str], numbers: std::ops::Range<usize>, rows: Vec<Vec<String>>) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((u16::from(index != 0), 1));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    line(&table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n"))
}

/// Seconds as people say them.
pub fn ago(seconds: u32) -> String {
    match seconds {
        0 => "now".to_owned(),
        s if s < 120 => format!("{s}s ago"),
        s if s < 7200 => format!("{}min ago", s / 60),
        s if s < 172_800 => format!("{}h ago", s / 3600),
        s => format!("{}d ago", s / 86400),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_said_in_the_unit_that_fits() {
        let said = [0, 1, 119, 120, 7200, 172_800].map(super::ago);
        assert_eq!(said, ["now", "1s ago", "119s ago", "2min ago", "2h ago", "2d ago"]);
    }
}
