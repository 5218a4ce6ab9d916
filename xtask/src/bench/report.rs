// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What was measured: a table in the terminal, a page of the documents, JSON, and pictures.

mod document;
mod picture;
mod sections;
mod table;

use std::fs;

pub use self::sections::Report;
use self::sections::Section;
use crate::paths;
use anyhow::{Context as _, Result};

impl Report {
    /// Prints it.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn show(&self) -> Result<()> {
        use std::io::Write as _;

        let sections = self.sections().into_iter().map(|Section { title, rows, remark }| {
            format!("\n{title}\n{}\n{remark}\n", table::for_people(&rows))
        });
        let text = format!("{}\n{}", self.preamble(), sections.collect::<Vec<_>>().concat());
        Ok(write!(std::io::stdout().lock(), "{text}")?)
    }

    /// Writes JSON and pictures.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn save(&self) -> Result<()> {
        let folder = paths::root().join("target/bench");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let json = folder.join("report.json");
        fs::write(&json, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", json.display()))?;
        for outcome in &self.outcomes {
            picture::draw(outcome, &folder.join(format!("{}.svg", outcome.name)))?;
        }
        eprintln!("\nwritten: {} and an SVG for each workload beside it", json.display());
        Ok(())
    }

    /// Puts the tables into the page about performance.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or has no place for them.
    pub fn write(&self) -> Result<()> {
        let page = paths::root().join("docs/performance.md");
        let context = || format!("cannot read {}", page.display());
        let present = fs::read_to_string(&page).with_context(context)?;
        let new = document::replace(&present, &document::tables(self))?;
        fs::write(&page, new).with_context(|| format!("cannot write {}", page.display()))?;
        eprintln!("written: {}", page.display());
        Ok(())
    }
}
