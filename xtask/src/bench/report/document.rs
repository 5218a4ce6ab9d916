// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The page about performance: its tables are ours, its words are not.

use anyhow::{Context as _, Result};

use super::{
    sections::{Report, Section},
    table,
};

const BEGIN: &str = "<!-- written by `cargo xtask bench --write`: -->\n";
const END: &str = "<!-- until here -->\n";

/// The tables of a report.
pub fn tables(report: &Report) -> String {
    let sections = report.sections().into_iter().map(|Section { title, rows, remark }| {
        let remark = if remark.is_empty() { String::new() } else { format!("\n{remark}\n") };
        format!("\n### {title}\n\n{}{remark}", table::for_markdown(&rows))
    });
    format!("\n```\n{}\n```\n{}\n", report.preamble(), sections.collect::<Vec<_>>().concat())
}

/// The page with these tables in the place of those that are there.
///
/// # Errors
///
/// When it has no place for them.
pub fn replace(page: &str, tables: &str) -> Result<String> {
    let no_place = || format!("the page has no lines {} and {}", BEGIN.trim(), END.trim());
    let (before, rest) = page.split_once(BEGIN).with_context(no_place)?;
    let (_, after) = rest.split_once(END).with_context(no_place)?;
    Ok(format!("{before}{BEGIN}{tables}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_and_tables_go() {
        let page = format!("words\n{BEGIN}old\n{END}more words\n");
        let new = replace(&page, "new\n").unwrap();
        assert_eq!(new, format!("words\n{BEGIN}new\n{END}more words\n"));
        assert!(replace("words\n", "new\n").is_err());
    }
}
