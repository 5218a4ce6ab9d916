// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The database as the daemon writes it.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use super::{
    fault::Fault,
    row::{DAY_S, Quarter, floor},
    schema,
};
use crate::{staged, trust};

/// How long the daemon's thread waits for others who write.
const PATIENCE: Duration = Duration::from_secs(2);
/// So much of a log that is in the database already stays on disk.
const LOG_BYTES: i64 = 4 << 20;
/// Memory for pages, in KiB.
const CACHE_KIB: i64 = 4096;

/// An open database.
pub struct Store {
    path: PathBuf,
    conn: Connection,
    /// Device and inode of the file that is open.
    file: (u64, u64),
}

impl Store {
    /// Opens the database at `path`, or makes it.
    ///
    /// # Errors
    /// When it cannot be used as it is; then it is as it was.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        make(path)?;
        let file = identity(path)?;
        let mut conn = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
        conn.busy_timeout(PATIENCE)?;
        // Before anything is written to what may be another's.
        schema::check(&conn)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
        // What is deleted is overwritten: people may want to be forgotten.
        conn.pragma_update(None, "secure_delete", true)?;
        schema::migrate(&mut conn)?;
        conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        // Each batch is on disk when it is written.
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
        Ok(Self { path: path.to_owned(), conn, file })
    }

    /// Whether the file that is open is still the one at its path.
    pub fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|about| (about.dev(), about.ino()) == self.file)
    }

    /// Adds to what is kept, all of it or nothing.
    pub fn write(&mut self, rows: &[Quarter], keeps_names: bool) -> Result<(), Fault> {
        if rows.is_empty() {
            return Ok(());
        }
        let batch = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut adder = Adder::prepare(&batch)?;
            for row in rows {
                adder.add(row, keeps_names)?;
            }
        }
        Ok(batch.commit()?)
    }

    /// The networks that somebody wants to be forgotten, and that may be in what was not written yet.
    pub fn forgotten(&self) -> Result<Vec<IpNet>, Fault> {
        let mut found = self.conn.prepare_cached("SELECT network FROM forgotten")?;
        let networks = found.query_map([], |row| row.get::<_, String>(0))?;
        let networks: Vec<String> = networks.collect::<Result<_, _>>()?;
        Ok(networks.iter().filter_map(|network| network.parse().ok()).collect())
    }

    /// They are forgotten.
    pub fn end_forgetting(&self) -> Result<(), Fault> {
        self.conn.execute("DELETE FROM forgotten", [])?;
        empty_log(&self.conn)
    }

    /// The connection, for what tidies up.
    pub const fn connection(&mut self) -> &mut Connection {
        &mut self.conn
    }
}

/// How the database is opened: by the path itself, and by one thread.
pub fn flags(how: OpenFlags) -> OpenFlags {
    how | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_EXRESCODE
}

/// Writes the log into the database, and leaves nothing of it.
pub fn empty_log(conn: &Connection) -> Result<(), Fault> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// What is at a path, that nobody else can have made.
pub fn identity(path: &Path) -> Result<(u64, u64), Fault> {
    let about = fs::symlink_metadata(path)?;
    if !about.is_file() {
        return Err(Fault::NotAFile);
    }
    match trust::look(path)?.1 {
        Some(distrust) => Err(Fault::Distrusted(distrust)),
        None => Ok((about.dev(), about.ino())),
    }
}

/// Makes an empty file, if there is none, that only root may read.
fn make(path: &Path) -> Result<(), Fault> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    match OpenOptions::new().write(true).create_new(true).mode(staged::PRIVATE).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            identity(path)?;
            Ok(fs::set_permissions(path, Permissions::from_mode(staged::PRIVATE))?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Moves a damaged database aside, with its log, and returns where it is.
pub fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = beside(path, ".damaged");
    fs::rename(path, &aside)?;
    let _there_may_be_none = fs::rename(beside(path, "-wal"), beside(&aside, "-wal"));
    let _likewise = fs::remove_file(beside(path, "-shm"));
    Ok(aside)
}

/// The path with something appended.
pub fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The statements that add rows.
struct Adder<'a> {
    service: CachedStatement<'a>,
    new_service: CachedStatement<'a>,
    source: CachedStatement<'a>,
    new_source: CachedStatement<'a>,
    row: CachedStatement<'a>,
    name: CachedStatement<'a>,
}

/// A row that is there already is added to; the new one is the later one.
pub const MERGE: &str = "ON CONFLICT DO UPDATE SET
    peak = max(peak, excluded.peak),
    max_connections = excluded.max_connections,
    accepted = accepted + excluded.accepted,
    refused = refused + excluded.refused,
    denied = denied + excluded.denied,
    banned = banned + excluded.banned,
    total = total + excluded.total,
    network = network + excluded.network,
    concurrency = concurrency + excluded.concurrency,
    rate = rate + excluded.rate,
    would_refuse = would_refuse + excluded.would_refuse,
    held = held + excluded.held,
    waiting = max(waiting, excluded.waiting),
    under_1_min = coalesce(under_1_min + excluded.under_1_min, under_1_min, excluded.under_1_min),
    under_10_min = coalesce(under_10_min + excluded.under_10_min, under_10_min, excluded.under_10_min),
    under_1_h = coalesce(under_1_h + excluded.under_1_h, under_1_h, excluded.under_1_h),
    under_8_h = coalesce(under_8_h + excluded.under_8_h, under_8_h, excluded.under_8_h),
    longer = coalesce(longer + excluded.longer, longer, excluded.longer),
    users = coalesce(max(users, excluded.users), users, excluded.users),
    last_refused = coalesce(max(last_refused, excluded.last_refused), last_refused, excluded.last_refused)";

/// What [`Quarter::is_notable`] says of a row.
pub const NOTABLE: &str =
    "(refused > 0 OR would_refuse > 0 OR ifnull(peak > 0 AND 2 * peak >= max_connections, FALSE))";

impl<'a> Adder<'a> {
    fn prepare(conn: &'a Connection) -> Result<Self, Fault> {
        Ok(Self {
            service: conn.prepare_cached("SELECT id FROM services WHERE name = ?1")?,
            new_service: conn.prepare_cached("INSERT INTO services (name) VALUES (?1) RETURNING id")?,
            source: conn.prepare_cached("SELECT id FROM sources WHERE source = ?1")?,
            new_source: conn.prepare_cached("INSERT INTO sources (source) VALUES (?1) RETURNING id")?,
            row: conn.prepare_cached(&format!(
                "INSERT INTO rows VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, \
                 ?19, ?20, ?21, ?22, ?23, ?24) {MERGE}"
            ))?,
            name: conn.prepare_cached("INSERT OR IGNORE INTO names VALUES (?1, ?2, ?3, ?4)")?,
        })
    }

    fn add(&mut self, row: &Quarter, keeps_names: bool) -> Result<(), Fault> {
        let service = id(&mut self.service, &mut self.new_service, &row.service)?;
        let source = id(&mut self.source, &mut self.new_source, &row.source.to_string())?;
        let [denied, banned, total, network, concurrency, rate] = row.refused_for.map(number);
        let ended = row.durations;
        self.row.execute(params![
            row.seconds,
            row.start_s,
            service,
            source,
            row.peak,
            row.limit,
            number(row.accepted),
            number(row.refused),
            denied,
            banned,
            total,
            network,
            concurrency,
            rate,
            number(row.would_refuse),
            number(row.held),
            row.waiting,
            ended.map(|ended| number(ended.under_1_min)),
            ended.map(|ended| number(ended.under_10_min)),
            ended.map(|ended| number(ended.under_1_h)),
            ended.map(|ended| number(ended.under_8_h)),
            ended.map(|ended| number(ended.longer)),
            row.users,
            row.last_refused,
        ])?;
        if keeps_names {
            let day = floor(row.start_s, DAY_S);
            for name in &row.names {
                self.name.execute(params![day, source, service, name])?;
            }
        }
        Ok(())
    }
}

/// The number of a name, new or not.
fn id(find: &mut CachedStatement<'_>, make: &mut CachedStatement<'_>, name: &str) -> Result<i64, Fault> {
    let found = find.query_row([name], |row| row.get(0)).optional()?;
    match found {
        Some(id) => Ok(id),
        None => Ok(make.query_row([name], |row| row.get(0))?),
    }
}

/// As the database has numbers.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
