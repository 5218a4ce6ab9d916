// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a verb that changes something answers: what is now, what was, and whether that is a change. Done twice, it says
//! "unchanged", and is no error: what was asked for is so.

use std::fmt;

use serde::Serialize;

use super::output;
use crate::policy::Saved;

/// Whether a change is one of the configuration file, too.
#[derive(clap::Args)]
pub struct Save {
    /// Also write the change to the configuration file, and keep its comments and order
    #[arg(long)]
    save: bool,
}

impl Save {
    /// Whether it is.
    pub const fn is_asked(&self) -> bool {
        self.save
    }
}

/// What became of one thing.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Done {
    /// What it is: a network, a service, a source at a service.
    pub what: String,
    /// The key of it, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'static str>,
    /// What is said of it now.
    pub is: String,
    /// What was said of it before; none if nothing was.
    pub was: Option<String>,
    /// Whether these are two things.
    pub changed: bool,
    /// Whether it was changed live, and is again what the file says.
    pub taken_back: bool,
}

impl Done {
    /// It has become what it is.
    pub fn new(what: impl Into<String>, was: Option<String>, is: impl Into<String>) -> Self {
        let is = is.into();
        Self { what: what.into(), key: None, changed: was.as_ref() != Some(&is), is, was, taken_back: false }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, key, is, was, changed, taken_back } = self;
        let why = if *taken_back { " (live change reverted)" } else { "" };
        match (was, key) {
            (Some(was), Some(key)) if *changed => write!(out, "{what}: {key} {was} -> {is}{why}: changed"),
            (Some(was), None) if *changed => write!(out, "{what}: {is} (was: {was}){why}: changed"),
            (_, Some(key)) => write!(out, "{what}: {key} {is}: {}", word(*changed)),
            (_, None) => write!(out, "{what}: {is}: {}", word(*changed)),
        }
    }
}

/// Whether something was changed, in a word.
pub const fn word(changed: bool) -> &'static str {
    if changed { "changed" } else { "unchanged" }
}

/// So many changes are named one by one to people; a list may have thousands.
const NAMED: usize = 20;

/// All that a command did.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Answer {
    /// Whether anything is another than before, in the kernel or in the file.
    pub changed: bool,
    /// Each thing, in the order in which it was asked for.
    pub changes: Vec<Done>,
    /// The file that has it too, where that was asked for.
    pub file: Option<Saved>,
    /// The same of them all together in a line, for people.
    #[serde(skip)]
    pub summary: Option<String>,
    /// What people are told in the place of the changes, where those are many of the same.
    #[serde(skip)]
    pub instead: Option<Vec<String>>,
}

impl Answer {
    /// That of a command that did all this, and saved nothing.
    pub fn new(changes: Vec<Done>) -> Self {
        Self { changed: changes.iter().any(|done| done.changed), changes, ..Self::default() }
    }

    /// That of a command that did all this, and saved it in this file, if in any.
    pub fn saved(changes: Vec<Done>, file: Option<Saved>) -> Self {
        let answer = Self::new(changes);
        let is_new = file.as_ref().is_some_and(|file| file.changed);
        Self { changed: answer.changed || is_new, file, ..answer }
    }

    /// Prints it. It is done, whether or not it can be said.
    pub fn show(&self, format: &output::Format) {
        let lines = self.remembered();
        if format.json { output::done_json(self, &lines) } else { output::done(&lines) }
    }

    /// What people would be told, kept for the daemon's log, where it is printed as a part of a larger document.
    pub fn remembered(&self) -> Vec<String> {
        let lines = self.lines();
        output::remember(&lines);
        lines
    }

    /// What people are told.
    fn lines(&self) -> Vec<String> {
        let mut lines = self.instead.clone().unwrap_or_else(|| {
            let mut lines: Vec<String> = self.changes.iter().take(NAMED).map(Done::to_string).collect();
            if let Some(more @ 1..) = self.changes.len().checked_sub(NAMED) {
                lines.push(format!("and {more} more; --json lists all"));
            }
            lines
        });
        match (&self.summary, &self.file) {
            (Some(summary), _) => lines.push(summary.clone()),
            (None, Some(Saved { path, changed })) => {
                let said = if *changed { "saved" } else { "unchanged" };
                lines.push(format!("{}: {said}", path.display()));
            }
            (None, None) => {}
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_it_was_is_unchanged_and_what_replaces_something_says_what() {
        let said =
            |was: Option<&str>, is: &str| Done::new("192.0.2.7/32", was.map(str::to_owned), is).to_string();
        assert_eq!(said(None, "deny"), "192.0.2.7/32: deny: changed");
        assert_eq!(said(Some("allow"), "deny"), "192.0.2.7/32: deny (was: allow): changed");
        assert_eq!(said(Some("deny"), "deny"), "192.0.2.7/32: deny: unchanged");
        assert!(!Answer::new(vec![Done::new("a", Some("b".to_owned()), "b")]).changed);
    }
}
