// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The rows as comma-separated values (RFC 4180). Nothing in them has a comma or a quote.

use std::io::{BufWriter, Write as _};

use anyhow::Result;

use crate::history::{self, Durations, Quarter};

const HEADER: &str = "start,seconds,service,source,peak,limit,accepted,refused,denied,banned,total,network,concurrency,rate,\
                      would_refuse,held,waiting,under_1_min,under_10_min,under_1_h,under_8_h,longer,users,last_refused";

/// Prints them under a header. What is not known is empty, and so is the limit of who has none.
pub fn print(rows: &[Quarter]) -> Result<()> {
    let starts = history::utc(rows.iter().map(|row| row.start_s))?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    writeln!(out, "{HEADER}\r")?;
    let mut last = history::utc(rows.iter().filter_map(|row| row.last_refused))?.into_iter();
    for (row, start) in rows.iter().zip(starts) {
        let last = row.last_refused.and_then(|_| last.next()).unwrap_or_default();
        writeln!(out, "{start},{},{last}\r", line(row))?;
    }
    Ok(out.flush()?)
}

fn line(row: &Quarter) -> String {
    let or_empty = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let ended = |of: fn(&Durations) -> u64| or_empty(row.durations.as_ref().map(of));
    let refused_for = row.refused_for.map(|times| times.to_string()).join(",");
    let Quarter { seconds, service, source, peak, accepted, refused, would_refuse, held, waiting, .. } = row;
    let limit = or_empty(row.limit.map(u64::from));
    let ended = [
        ended(|ended| ended.under_1_min),
        ended(|ended| ended.under_10_min),
        ended(|ended| ended.under_1_h),
        ended(|ended| ended.under_8_h),
        ended(|ended| ended.longer),
    ]
    .join(",");
    let users = or_empty(row.users.map(u64::from));
    format!(
        "{seconds},{service},{source},{peak},{limit},{accepted},{refused},{refused_for},{would_refuse},{held},{waiting},\
         {ended},{users}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_value_for_each_name_of_the_header() {
        let mut row = Quarter::new(0, 900, "smtp", "2001:db8::/64".parse().unwrap());
        assert_eq!(line(&row), "900,smtp,2001:db8::/64,0,,0,0,0,0,0,0,0,0,0,0,0,,,,,,");
        row.limit = Some(8);
        row.durations = Some(Durations { longer: 3, ..Durations::default() });
        row.users = Some(2);
        assert_eq!(line(&row), "900,smtp,2001:db8::/64,0,8,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,3,2");
        assert_eq!(line(&row).split(',').count() + 2, HEADER.split(',').count());
    }
}
