// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The clock on the wall, by which rows are kept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

/// Seconds since 1970.
pub fn now_s() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}

/// So long ago.
pub fn before(since: Duration) -> i64 {
    now_s().saturating_sub(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// By less than this a clock is set that is kept right.
const STEP_S: i64 = 30;

/// By how many seconds the clock was set back that said `before_s`, so long ago, and says `now_s`; none where it was not.
pub fn set_back(before_s: i64, passed: Duration, now_s: i64) -> Option<i64> {
    let passed_s = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
    let back_s = before_s.saturating_add(passed_s).saturating_sub(now_s);
    (back_s > STEP_S).then_some(back_s)
}

/// Times as people write them, by the database's own calendar.
pub type Times = Vec<String>;

/// These times where this host is: `2026-11-27 21:15`.
///
/// # Errors
/// When there is no memory.
pub fn local(times: impl IntoIterator<Item = i64>) -> rusqlite::Result<Times> {
    said("SELECT strftime('%Y-%m-%d %H:%M', ?1, 'unixepoch', 'localtime')", times)
}

/// These times in UTC, as RFC 3339 has them: `2026-11-27T20:15:00Z`.
///
/// # Errors
/// When there is no memory.
pub fn utc(times: impl IntoIterator<Item = i64>) -> rusqlite::Result<Times> {
    said("SELECT strftime('%Y-%m-%dT%H:%M:%SZ', ?1, 'unixepoch')", times)
}

fn said(how: &str, times: impl IntoIterator<Item = i64>) -> rusqlite::Result<Times> {
    let conn = Connection::open_in_memory()?;
    let mut say = conn.prepare(how)?;
    let said = times.into_iter().map(|at_s| {
        // Years that no calendar has are shown as they are.
        let said: Option<String> = say.query_row([at_s], |row| row.get(0))?;
        Ok(said.unwrap_or_else(|| at_s.to_string()))
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_is_noticed_and_one_that_is_kept_right_is_not() {
        let minute = Duration::from_secs(60);
        assert_eq!(set_back(1000, minute, 1060), None);
        assert_eq!(set_back(1000, minute, 1031), None);
        assert_eq!(set_back(1000, minute, 1029), Some(31));
        assert_eq!(set_back(1000, minute, -3600), Some(4660));
        assert_eq!(set_back(1000, minute, 99_999), None, "forward loses nothing");
    }

    #[test]
    fn times_are_said_as_people_write_them() {
        assert_eq!(utc([0, 1_795_813_200]).unwrap(), ["1970-01-01T00:00:00Z", "2026-11-27T21:00:00Z"]);
        assert_eq!(local([0]).unwrap().len(), 1);
        assert_eq!(utc([i64::MAX]).unwrap(), [i64::MAX.to_string()]);
    }
}
