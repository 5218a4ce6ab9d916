// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How things are printed: screens for people, JSON for programs. A write that fails is an error like
//! any other, never a panic.
//!
//! A screen is a pure function of what it shows and of the width there is: see `screens`, the tests that
//! hold them against files.

mod wrap;

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    sync::{Mutex, PoisonError},
};

use anyhow::Result;
use serde::Serialize;

use self::wrap::split;
pub use self::wrap::wrapped;
use crate::printable;
pub use crate::spans::{ago, time};

/// Whom it is printed for.
#[derive(clap::Args)]
pub struct Format {
    /// Print JSON: one document, also on failure
    #[arg(long)]
    pub json: bool,
}

/// What this command has done so far, in the lines that people are told, for the daemon's log.
static DONE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Prints a line.
pub fn line(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{}", printable::lines(text))?)
}

/// Prints a text that has its lines.
pub fn text(text: &str) -> Result<()> {
    Ok(std::io::stdout().lock().write_all(printable::lines(text).as_bytes())?)
}

/// Says what was done. It is done, whether or not it can be said: then it is said on stderr why it was not.
pub fn done(lines: &[String]) {
    complain(lines.iter().try_for_each(|text| line(text)), lines);
}

/// The same as a document.
pub fn done_json<T: Serialize>(value: &T, lines: &[String]) {
    complain(json(value), lines);
}

fn complain(said: Result<()>, lines: &[String]) {
    if let Err(error) = said
        && !is_broken_pipe(&error)
    {
        eprintln!(
            "limiter: the change is done, but cannot be printed on stdout ({error:#}): {}",
            lines.join("; ")
        );
    }
}

/// Whether who was to read this has seen enough.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Keeps what was done for the daemon's log.
pub fn remember(lines: &[String]) {
    DONE.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(lines);
}

/// What was done so far.
pub fn remembered() -> Vec<String> {
    DONE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Prints a value as JSON.
pub fn json<T: Serialize>(value: &T) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Columns there are to print in; `None`: as many as it takes.
pub type Width = Option<usize>;

/// That of the terminal; `COLUMNS`, where the output is none; without it nothing is left out and nothing is broken.
pub fn width() -> Width {
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    let stdout = std::io::stdout();
    let width = if stdout.is_terminal() {
        rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col)).or_else(columns)
    } else {
        columns()
    };
    width.filter(|&width| width > 0)
}

/// Narrower than this no text is broken.
const NARROWEST: usize = 12;

/// One column of a table.
#[derive(Clone, Copy)]
pub struct Column {
    name: &'static str,
    /// Its name where there is little room.
    short: &'static str,
    is_number: bool,
    /// Which columns go first where there is no room for all: the ones with the smallest number; 0: this one stays.
    goes: u8,
    /// Whether its text is broken where there is no room for it: only in the last column.
    wraps: bool,
}

impl Column {
    /// A column of words.
    pub const fn words(name: &'static str) -> Self {
        Self { name, short: name, is_number: false, goes: 0, wraps: false }
    }

    /// A column of numbers, which stand to the right.
    pub const fn number(name: &'static str) -> Self {
        Self { name, short: name, is_number: true, goes: 0, wraps: false }
    }

    /// With a shorter name where there is little room.
    pub const fn or(self, short: &'static str) -> Self {
        Self { short, ..self }
    }

    /// With its text in several lines where there is no room for it in one.
    pub const fn wraps(self) -> Self {
        Self { wraps: true, ..self }
    }

    /// Left out where there is no room for it, and none of the columns with a smaller number is left.
    pub const fn goes(self, goes: u8) -> Self {
        Self { goes, ..self }
    }
}

/// Columns and rows, without one column if there is nothing in it to say.
pub fn without(
    column: usize,
    is_left_out: bool,
    columns: &[Column],
    mut rows: Vec<Vec<String>>,
) -> (Vec<Column>, Vec<Vec<String>>) {
    let mut columns = columns.to_vec();
    if is_left_out {
        columns.remove(column);
        for row in &mut rows {
            row.remove(column);
        }
    }
    (columns, rows)
}

/// What one command prints.
pub struct Screen {
    width: Width,
    text: String,
}

impl Screen {
    /// Nothing so far.
    pub const fn new(width: Width) -> Self {
        Self { width, text: String::new() }
    }

    /// A line, in as many as there is room for.
    pub fn line(&mut self, text: &str) {
        for line in wrapped(text, self.width) {
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }

    /// A line that is not broken: a bar of a plot.
    pub fn raw(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Lines with an empty one before them, if there are any.
    pub fn paragraph<T: AsRef<str>>(&mut self, lines: impl IntoIterator<Item = T>) {
        for (index, line) in lines.into_iter().enumerate() {
            if index == 0 {
                self.blank();
            }
            self.line(line.as_ref());
        }
    }

    /// A text behind a word that says what it is, which stands in a column of its own.
    pub fn labelled(&mut self, label: &str, column: usize, text: &str) {
        let room = self.width.map(|width| width.saturating_sub(column).max(NARROWEST));
        for (number, line) in wrapped(text, room).iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            self.text.push_str(format!("{label:<column$}{line}").trim_end());
            self.text.push('\n');
        }
    }

    /// A command to be pasted, in a line of its own.
    pub fn command(&mut self, column: usize, command: &str) {
        self.labelled_command("", column, command);
    }

    /// The same behind a word. One that is too wide goes on behind a backslash, as a shell takes it.
    pub fn labelled_command(&mut self, label: &str, column: usize, command: &str) {
        /// What goes on stands further in.
        const FURTHER: usize = 2;
        let fits = self.width.is_none_or(|width| column + command.chars().count() <= width);
        let room = self.width.map(|width| width.saturating_sub(column + FURTHER + 2).max(NARROWEST));
        let parts = if fits { vec![command.to_owned()] } else { split(command, room) };
        let last = parts.len().saturating_sub(1);
        for (number, part) in parts.iter().enumerate() {
            let (label, further) = if number == 0 { (label, 0) } else { ("", FURTHER) };
            let end = if number == last { "" } else { " \\" };
            let _in_memory = writeln!(self.text, "{label:<column$}{:further$}{part}{end}", "");
        }
    }

    /// An empty line, if there are any before it.
    pub fn blank(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// Rows under a header. What there is no room for is left out, and said to be.
    pub fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) {
        let cell = |row: &[String], index: usize| row.get(index).map_or(0, |cell| cell.chars().count());
        let widest = |index: usize| rows.iter().map(|row| cell(row, index)).max().unwrap_or(0);
        let widths = |is_short: bool| -> Vec<usize> {
            let name = |column: &Column| if is_short { column.short.len() } else { column.name.len() };
            columns.iter().enumerate().map(|(index, column)| name(column).max(widest(index))).collect()
        };
        let mut shown: Vec<usize> = (0..columns.len()).collect();
        let is_too_wide = |widths: &[usize], shown: &[usize]| {
            let cells: usize = shown.iter().map(|&index| widths[index]).sum();
            self.width.is_some_and(|width| cells + 2 * shown.len().saturating_sub(1) > width)
        };
        let mut is_short = false;
        let mut sizes = widths(is_short);
        if is_too_wide(&sizes, &shown) {
            is_short = true;
            sizes = widths(is_short);
        }
        let mut left_out = Vec::new();
        while is_too_wide(&sizes, &shown) {
            let goes = shown.iter().copied().filter(|&index| columns[index].goes > 0);
            let Some(next) = goes.min_by_key(|&index| columns[index].goes) else { break };
            shown.retain(|&index| index != next);
            left_out.push(next);
        }
        // What is left for the last column, where its text may be broken.
        let last = shown.last().copied().filter(|&index| columns[index].wraps);
        if let (Some(last), Some(width)) = (last, self.width) {
            let others: usize =
                shown.iter().filter(|&&index| index != last).map(|&index| sizes[index] + 2).sum();
            sizes[last] = sizes[last].min(width.saturating_sub(others).max(NARROWEST));
        }
        let names: Vec<String> = columns
            .iter()
            .map(|column| if is_short { column.short } else { column.name }.to_owned())
            .collect();
        for row in std::iter::once(&names).chain(rows) {
            let cell = |index: usize| row.get(index).map_or("", String::as_str);
            let broken = last.map(|last| wrapped(cell(last), Some(sizes[last]))).unwrap_or_default();
            for number in 0..broken.len().max(1) {
                let mut line = String::new();
                for (nth, &index) in shown.iter().enumerate() {
                    let width = sizes[index];
                    let text = match broken.get(number).filter(|_| Some(index) == last) {
                        Some(part) => part,
                        None if number == 0 => cell(index),
                        None => "",
                    };
                    if nth > 0 {
                        line.push_str("  ");
                    }
                    let padded = if columns[index].is_number {
                        format!("{text:>width$}")
                    } else {
                        format!("{text:<width$}")
                    };
                    line.push_str(&padded);
                }
                self.text.push_str(line.trim_end());
                self.text.push('\n');
            }
        }
        if !left_out.is_empty() {
            left_out.sort_unstable();
            let names: Vec<&str> = left_out.iter().map(|&index| columns[index].name).collect();
            self.paragraph([format!(
                "columns left out: {}; use a wider terminal or --json",
                names.join(", ")
            )]);
        }
    }

    /// Prints it.
    pub fn show(self) -> Result<()> {
        text(&self.text)
    }

    /// What would be printed.
    #[cfg(test)]
    pub fn text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_too_wide_goes_on_behind_a_backslash() {
        let at = |width, command: &str| {
            let mut screen = Screen::new(width);
            screen.labelled_command("now", 6, command);
            screen.text()
        };
        let command = "limiter limit 2001:db8::7 20 --service imap";
        assert_eq!(at(None, command), format!("now   {command}\n"));
        assert_eq!(at(Some(49), command), format!("now   {command}\n"));
        let two = "now   limiter limit 2001:db8::7 20 \\\n        --service imap\n";
        assert_eq!(at(Some(48), command), two);
        assert_eq!(at(Some(20), "x 'a long word'"), "now   x \\\n        'a long word'\n");
    }

    #[test]
    fn a_text_behind_a_word_stays_in_its_column() {
        let mut screen = Screen::new(Some(20));
        screen.labelled("likely", 8, "one user with many programs");
        assert_eq!(screen.text(), "likely  one user\n        with many\n        programs\n");
    }

    #[test]
    fn the_text_of_a_last_column_goes_on_below_itself() {
        let columns = [Column::words("NAME"), Column::words("SAYS").wraps()];
        let rows = [vec!["smtp".to_owned(), "forty to each source".to_owned()]];
        let mut screen = Screen::new(Some(20));
        screen.table(&columns, &rows);
        assert_eq!(screen.text(), "NAME  SAYS\nsmtp  forty to each\n      source\n");
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_and_said_to_be() {
        let columns = [
            Column::words("NAME"),
            Column::number("CONNECTIONS").or("CONNS"),
            Column::number("PEAK").goes(1),
        ];
        let rows = [vec!["smtp".to_owned(), "12".to_owned(), "3".to_owned()]];
        let at = |width| {
            let mut screen = Screen::new(width);
            screen.table(&columns, &rows);
            screen.text()
        };
        assert_eq!(at(None), "NAME  CONNECTIONS  PEAK\nsmtp           12     3\n");
        assert_eq!(at(Some(22)), "NAME  CONNS  PEAK\nsmtp     12     3\n");
        assert_eq!(
            at(Some(16)),
            "NAME  CONNS\nsmtp     12\n\ncolumns left\nout: PEAK; use a\nwider terminal\nor --json\n"
        );
    }
}
