// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is old becomes shorter, and what is older still, or too much, goes: the least interesting first.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{
    fault::Fault,
    row::{DAY_S, HOUR_S, QUARTER_S, floor},
    store::{MERGE, NOTABLE},
};

/// Quarters of an hour are kept as such for so long: a week, and the day that is under way.
const QUARTERS_S: i64 = 8 * DAY_S as i64;
/// Hours likewise.
const HOURS_S: i64 = 15 * DAY_S as i64;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// For how many days.
    pub days: u32,
    /// How large the database may become, in bytes.
    pub bytes: u64,
}

/// Does all that is to be done now and then, at `now_s`, in seconds since 1970. Each step is done as a whole or not at all.
pub fn tidy(conn: &mut Connection, now_s: i64, retention: &Retention) -> Result<(), Fault> {
    let today = floor(now_s, DAY_S);
    let oldest = now_s - i64::from(retention.days) * i64::from(DAY_S);
    step(conn, |change| {
        // Rows of tomorrow were written while the clock was wrong.
        let future = today + 2 * i64::from(DAY_S);
        change.execute("DELETE FROM rows WHERE start + seconds <= ?1 OR start >= ?2", [oldest, future])?;
        change.execute("DELETE FROM names WHERE day + 86400 <= ?1 OR day >= ?2", [oldest, future])?;
        for table in ["peaks", "days"] {
            let old = format!("DELETE FROM {table} WHERE day + 86400 <= ?1 OR day >= ?2");
            change.execute(&old, [oldest, future])?;
        }
        Ok(())
    })?;
    step(conn, |change| count_peaks(change, today))?;
    step(conn, |change| shorten(change, QUARTER_S, HOUR_S, floor(now_s - QUARTERS_S, DAY_S)))?;
    step(conn, |change| shorten(change, HOUR_S, DAY_S, floor(now_s - HOURS_S, DAY_S)))?;
    step(conn, remove_unused)?;
    shrink(conn, now_s, retention)
}

/// Makes room, where the database has become too large; of the present day last.
pub fn shrink(conn: &mut Connection, now_s: i64, retention: &Retention) -> Result<(), Fault> {
    let today = floor(now_s, DAY_S);
    if used(conn)? <= retention.bytes {
        return give_back(conn);
    }
    step(conn, |change| count_peaks(change, today))?;
    // More at once than there is too much of, so that it is not done with each batch.
    let enough = retention.bytes / 10 * 9;
    for (rows, until) in [
        (format!("NOT {NOTABLE}"), today),
        (format!("NOT {NOTABLE}"), i64::MAX),
        ("refused = 0 AND would_refuse = 0".to_owned(), i64::MAX),
        ("TRUE".to_owned(), i64::MAX),
    ] {
        let first = format!("SELECT min(start) FROM rows WHERE {rows} AND start < ?1");
        let remove = format!("DELETE FROM rows WHERE {rows} AND start >= ?1 AND start < ?2");
        while let Some(start) = conn.query_row(&first, [until], |row| row.get::<_, Option<i64>>(0))? {
            // An hour at a time, so that what is not in the database yet stays small.
            let end = floor(start, DAY_S) + i64::from(DAY_S);
            let hours = (start..end).step_by(HOUR_S as usize);
            for hour in hours {
                let next = (hour + i64::from(HOUR_S)).min(end);
                step(conn, |change| {
                    if end > today {
                        change.execute("INSERT OR REPLACE INTO days VALUES (?1, 0)", [today])?;
                    }
                    change.execute(&remove, [hour, next])?;
                    Ok(())
                })?;
            }
            step(conn, remove_unused)?;
            if used(conn)? <= enough {
                return give_back(conn);
            }
        }
    }
    give_back(conn)
}

/// How large the database is, without what is free in it.
pub fn used(conn: &Connection) -> Result<u64, Fault> {
    let number = |pragma| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let pages = number("page_count")? - number("freelist_count")?;
    Ok(u64::try_from(pages * number("page_size")?).unwrap_or(0))
}

/// Gives back to the file system what is free.
fn give_back(conn: &Connection) -> Result<(), Fault> {
    let mut vacuum = conn.prepare("PRAGMA incremental_vacuum")?;
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}

fn step(
    conn: &mut Connection,
    step: impl FnOnce(&Transaction<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let change = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    step(&change)?;
    Ok(change.commit()?)
}

/// Counts the peaks of each day that is over and was not counted yet.
fn count_peaks(change: &Transaction<'_>, today: i64) -> Result<(), Fault> {
    let first = "SELECT min(start) FROM rows WHERE seconds < ?1";
    let Some(first) = change.query_row(first, [DAY_S], |row| row.get::<_, Option<i64>>(0))? else {
        return Ok(());
    };
    for day in (floor(first, DAY_S)..today).step_by(DAY_S as usize) {
        let is_counted =
            "SELECT count(*) FROM days WHERE day = ?1 AND (complete OR day IN (SELECT day FROM peaks))";
        if change.query_row(is_counted, [day], |row| row.get::<_, i64>(0))? > 0 {
            continue;
        }
        change.execute(
            &format!("INSERT OR REPLACE INTO peaks SELECT ?1, service, peak, count(*) FROM ({PEAKS}) GROUP BY service, peak"),
            params![day],
        )?;
        change.execute("INSERT OR IGNORE INTO days VALUES (?1, 1)", [day])?;
    }
    Ok(())
}

/// The peak of each source that had a connection on the day that begins at `?1`.
pub const PEAKS: &str = "
SELECT service, source, max(peak) AS peak FROM rows
WHERE seconds IN (900, 3600) AND start >= ?1 AND start < ?1 + 86400
GROUP BY service, source HAVING max(peak) > 0";

/// Makes longer rows of those that began before `until`, in the order of time.
fn shorten(change: &Transaction<'_>, from: u32, to: u32, until: i64) -> Result<(), Fault> {
    change.execute(
        &format!(
            "INSERT INTO rows SELECT ?2, start - start % ?2, service, source, peak, max_connections, accepted, refused, \
             denied, banned, total, network, concurrency, rate, would_refuse, held, waiting, under_1_min, under_10_min, \
             under_1_h, under_8_h, longer, users, last_refused FROM rows WHERE seconds = ?1 AND start < ?3 ORDER BY start {MERGE}"
        ),
        params![from, to, until],
    )?;
    change.execute("DELETE FROM rows WHERE seconds = ?1 AND start < ?2", params![from, until])?;
    Ok(())
}

/// Removes sources of which nothing is kept.
fn remove_unused(change: &Transaction<'_>) -> Result<(), Fault> {
    change.execute("DELETE FROM names WHERE source NOT IN (SELECT source FROM rows)", [])?;
    change.execute("DELETE FROM sources WHERE id NOT IN (SELECT source FROM rows)", [])?;
    Ok(())
}

#[cfg(test)]
mod tests;
