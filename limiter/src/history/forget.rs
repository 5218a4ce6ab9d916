// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Forgetting somebody: nothing of it is left in the file.

use std::{path::Path, time::Duration};

use anyhow::{Result, anyhow};
use ipnet::IpNet;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{fault::Fault, read::sources_of, schema, store};
use crate::instance::Instance;

/// How long it waits for the daemon to write.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Sources.
    pub sources: usize,
    /// Their rows.
    pub rows: usize,
}

/// Removes what is kept of all sources that have an address in common with `network`. None where there is no history.
///
/// # Errors
/// When it cannot be done; then it may be done in part, and is to be done again.
pub fn forget(instance: &Instance, network: &IpNet) -> Result<Option<Forgotten>> {
    let path = instance.history_path();
    if !path.exists() {
        return Ok(None);
    }
    let daemon_runs = instance.daemon()?.running;
    in_file(&path, network, daemon_runs)
        .map(Some)
        .map_err(|fault| anyhow!("cannot forget {network}: {}", fault.sentence(&path)))
}

/// The same in the database at `path`; `is_written`: somebody may still write what it has seen.
pub(super) fn in_file(path: &Path, network: &IpNet, is_written: bool) -> Result<Forgotten, Fault> {
    store::identity(path)?;
    let mut conn = Connection::open_with_flags(path, store::flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
    conn.busy_timeout(PATIENCE)?;
    if schema::check(&conn)? == 0 {
        return Ok(Forgotten::default());
    }
    conn.pragma_update(None, "secure_delete", true)?;
    // No file beside the database has any of it.
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    let change = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sources = sources_of(&change, network)?;
    // Rows are in the order of time: each look through them is for all sources.
    change.execute_batch("CREATE TEMP TABLE gone (id INTEGER PRIMARY KEY)")?;
    {
        let mut gone = change.prepare("INSERT INTO gone VALUES (?1)")?;
        for source in &sources {
            gone.execute([source])?;
        }
    }
    // Of them nothing is left in what is counted of whole days either.
    change.execute(
        "UPDATE peaks SET sources = sources - (SELECT count(*) FROM \
         (SELECT start - start % 86400 AS day, service, max(peak) AS peak FROM rows WHERE source IN gone GROUP BY 1, 2, source) AS of \
         WHERE of.day = peaks.day AND of.service = peaks.service AND of.peak = peaks.peak)",
        [],
    )?;
    change.execute("DELETE FROM peaks WHERE sources <= 0", [])?;
    let rows = change.execute("DELETE FROM rows WHERE source IN gone", [])?;
    change.execute("DELETE FROM names WHERE source IN gone", [])?;
    change.execute("DELETE FROM sources WHERE id IN gone", [])?;
    if is_written {
        change.execute("INSERT OR IGNORE INTO forgotten VALUES (?1)", [network.to_string()])?;
    }
    change.commit()?;
    // What was deleted long ago may still be in pages that are free, and in the log.
    conn.execute_batch("VACUUM")?;
    store::empty_log(&conn)?;
    Ok(Forgotten { sources: sources.len(), rows })
}
