// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The tables of the database, and how those of older builds become them.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::Fault;

/// `PRAGMA user_version` of what this build writes.
pub const VERSION: i64 = STEPS.len() as i64;
/// `PRAGMA application_id`: "limi".
pub const APPLICATION: i64 = 0x6c69_6d69;

/// What makes each version of the one before; the first of nothing.
const STEPS: [&str; 2] = [FIRST, LAST_REFUSED];

/// Times are seconds since 1970, UTC. Of what nobody knows there is NULL.
const FIRST: &str = "
CREATE TABLE services (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
-- An address, or the network that counts as one source.
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE rows (
    -- 900: the source was refused, or reached half of its limit. 3600: it did not, or the row is older than 8 days.
    -- 86400: the row is older than 15 days.
    seconds INTEGER NOT NULL,
    start INTEGER NOT NULL,
    service INTEGER NOT NULL REFERENCES services,
    source INTEGER NOT NULL REFERENCES sources,
    -- The most connections at one time.
    peak INTEGER NOT NULL,
    -- The last limit that was in force; NULL: none.
    max_connections INTEGER,
    accepted INTEGER NOT NULL,
    -- In all, at least; and by reason, as far as that is known.
    refused INTEGER NOT NULL,
    denied INTEGER NOT NULL,
    banned INTEGER NOT NULL,
    total INTEGER NOT NULL,
    network INTEGER NOT NULL,
    concurrency INTEGER NOT NULL,
    rate INTEGER NOT NULL,
    would_refuse INTEGER NOT NULL,
    held INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    -- Connections that ended, by how long they had been there.
    under_1_min INTEGER,
    under_10_min INTEGER,
    under_1_h INTEGER,
    under_8_h INTEGER,
    longer INTEGER,
    -- How many users were seen, at least.
    users INTEGER,
    PRIMARY KEY (seconds, start, service, source)
) STRICT, WITHOUT ROWID;
-- The users that were seen on a day.
CREATE TABLE names (
    day INTEGER NOT NULL,
    source INTEGER NOT NULL REFERENCES sources,
    service INTEGER NOT NULL REFERENCES services,
    name TEXT NOT NULL,
    PRIMARY KEY (day, source, service, name)
) STRICT, WITHOUT ROWID;
-- Of days that are over: how many sources had which peak.
CREATE TABLE peaks (
    day INTEGER NOT NULL,
    service INTEGER NOT NULL REFERENCES services,
    peak INTEGER NOT NULL,
    sources INTEGER NOT NULL,
    PRIMARY KEY (day, service, peak)
) STRICT, WITHOUT ROWID;
-- Days whose peaks are counted; complete: 0 where there was no room for all sources of that day.
CREATE TABLE days (
    day INTEGER PRIMARY KEY,
    complete INTEGER NOT NULL
) STRICT;
-- What the daemon is to forget that it has not written yet: networks. Empty a minute later.
CREATE TABLE forgotten (
    network TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE VIEW history AS
    SELECT datetime(start, 'unixepoch', 'localtime') AS start, seconds, services.name AS service, sources.source AS source,
        peak, max_connections, accepted, refused, denied, banned, total, network, concurrency, rate, would_refuse, held,
        waiting, under_1_min, under_10_min, under_1_h, under_8_h, longer, users
    FROM rows JOIN services ON services.id = rows.service JOIN sources ON sources.id = rows.source;
";

/// When each row's source was refused last.
const LAST_REFUSED: &str = "
-- To within a minute; NULL: it was not, or the row is older than this column.
ALTER TABLE rows ADD COLUMN last_refused INTEGER;
DROP VIEW history;
CREATE VIEW history AS
    SELECT datetime(start, 'unixepoch', 'localtime') AS start, seconds, services.name AS service, sources.source AS source,
        peak, max_connections, accepted, refused, denied, banned, total, network, concurrency, rate, would_refuse, held,
        waiting, under_1_min, under_10_min, under_1_h, under_8_h, longer, users,
        datetime(last_refused, 'unixepoch', 'localtime') AS last_refused
    FROM rows JOIN services ON services.id = rows.service JOIN sources ON sources.id = rows.source;
";

/// The version from which on [`LAST_REFUSED`] is there.
pub const HAS_LAST_REFUSED: i64 = 2;

/// Brings a database to what this build writes, step by step, each as a whole or not at all.
pub fn migrate(conn: &mut Connection) -> Result<(), Fault> {
    let version = check(conn)?;
    if version == 0 {
        // Before there is a table: otherwise freed pages could not be given back.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    for (version, step) in (1_i64..).zip(STEPS).filter(|(to, _)| *to > version) {
        let change = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        apply(&change, version, step)?;
        change.commit()?;
    }
    Ok(())
}

fn apply(change: &Transaction<'_>, version: i64, step: &str) -> Result<(), Fault> {
    change.execute_batch(step)?;
    change.pragma_update(None, "application_id", APPLICATION)?;
    change.pragma_update(None, "user_version", version)?;
    Ok(())
}

/// The version that a database has; 0: it is empty.
///
/// # Errors
/// When it is newer than this build, or no history.
pub fn check(conn: &Connection) -> Result<i64, Fault> {
    let number = |pragma| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version) {
        (0, 0) if tables == 0 => Ok(0),
        (APPLICATION, 1..=VERSION) => Ok(version),
        (APPLICATION, found) if found > VERSION => Err(Fault::Newer { found, known: VERSION }),
        _ => Err(Fault::Foreign),
    }
}
