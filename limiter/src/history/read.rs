// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What others ask of the history. Nothing is changed by it, and nobody is kept from writing.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    time::Duration,
};

use anyhow::{Result, anyhow};
use ipnet::IpNet;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use super::{
    clock,
    fault::Fault,
    row::{DAY_S, Durations, HOUR_S, QUARTER_S, Quarter, floor},
    schema,
    store::{self, NOTABLE},
    tidy::PEAKS,
};
use crate::instance::Instance;

/// How long a reader waits: a writer that begins anew holds others off for a moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of so many sources the rows are looked up one by one; of more all are looked through.
const FEW: usize = 64;

/// One day of one service, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// When it begins, in seconds since 1970.
    pub start_s: i64,
    /// The service's name.
    pub service: String,
    /// How many sources had which peak that day: every source that had a connection, not only those of [`Days::notable`].
    pub sources_by_peak: BTreeMap<u32, u64>,
    /// Whether these are all sources; otherwise there was no room for some of those with few connections.
    pub is_complete: bool,
}

/// What there is of some days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Days {
    /// By day and service.
    pub days: Vec<Day>,
    /// The rows of sources that were refused or reached half of their limit, by length, time, service and source.
    pub notable: Vec<Quarter>,
}

/// Which rows are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// From when on, in seconds since 1970: rows that end later.
    pub since_s: i64,
    /// Of these services only.
    pub services: Option<&'a [&'a str]>,
    /// Of sources that have something in common with this network.
    pub network: Option<&'a IpNet>,
    /// Only of those that were refused or reached half of their limit.
    pub notable: bool,
}

/// What is kept of one source at a service for so long back, by time: of those sources that the ledger counts apart and that
/// have an address in common with `source`. None where there is no history.
///
/// # Errors
/// When it cannot be read.
pub fn recent(
    instance: &Instance,
    service: &str,
    source: &IpNet,
    since: Duration,
) -> Result<Option<Vec<Quarter>>> {
    let services = [service];
    let asked = Asked {
        since_s: clock::before(since),
        services: Some(&services),
        network: Some(source),
        notable: false,
    };
    rows(instance, &asked)
}

/// What is kept for so long back, by whole days, at one service or at all; the last day is the present one. None where there
/// is no history.
///
/// # Errors
/// When it cannot be read.
pub fn days(instance: &Instance, service: Option<&str>, since: Duration) -> Result<Option<Days>> {
    let (now_s, since_s) = (clock::now_s(), first_day(since));
    let path = instance.history_path();
    read(&path, |conn| days_of(conn, service, since_s, now_s))
}

/// When the first of the days begins that are looked at so far back, in seconds since 1970.
pub fn first_day(since: Duration) -> i64 {
    floor(clock::before(since), DAY_S)
}

/// That there is none, and why.
pub fn nothing(instance: &Instance) -> String {
    format!(
        "instance {instance} has no history: `limiter --instance {instance} run` keeps one, unless the configuration says \
         history = false"
    )
}

/// The services of which there is something, by name. None where there is no history.
///
/// # Errors
/// When it cannot be read.
pub fn services(instance: &Instance) -> Result<Option<Vec<String>>> {
    read(&instance.history_path(), |conn| {
        let mut names = conn.prepare("SELECT name FROM services ORDER BY name")?;
        let names = names.query_map([], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    })
}

/// The rows that are asked for, by time. None where there is no history.
///
/// # Errors
/// When it cannot be read.
pub fn rows(instance: &Instance, asked: &Asked<'_>) -> Result<Option<Vec<Quarter>>> {
    read(&instance.history_path(), |conn| rows_of(conn, asked, clock::now_s()))
}

/// Asks the database at `path`, if there is one.
pub(super) fn read<T>(path: &Path, ask: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let answer = || -> Result<Option<T>, Fault> {
        store::identity(path)?;
        let conn = Connection::open_with_flags(path, store::flags(OpenFlags::SQLITE_OPEN_READ_ONLY))?;
        conn.busy_timeout(PATIENCE)?;
        // One look at it, whatever is written meanwhile.
        conn.execute_batch("BEGIN")?;
        if schema::check(&conn)? == 0 { Ok(None) } else { ask(&conn).map(Some) }
    };
    answer().map_err(|fault| anyhow!("cannot read the history: {}", fault.sentence(path)))
}

/// What a row is read from, in a database of this version: one that no daemon has opened since is as it was.
fn row(version: i64) -> String {
    let last_refused = if version < schema::HAS_LAST_REFUSED { "NULL" } else { "last_refused" };
    format!("{ROW}, {last_refused} {FROM}")
}

const ROW: &str = "
SELECT seconds, start, services.name, sources.source, peak, max_connections, accepted, refused, denied, banned, total,
    network, concurrency, rate, would_refuse, held, waiting, under_1_min, under_10_min, under_1_h, under_8_h, longer, users,
    rows.service, rows.source";
const FROM: &str = "
FROM rows CROSS JOIN services ON services.id = rows.service CROSS JOIN sources ON sources.id = rows.source";

pub(super) fn rows_of(conn: &Connection, asked: &Asked<'_>, now_s: i64) -> Result<Vec<Quarter>, Fault> {
    let services: HashSet<i64> = numbers(conn, asked.services)?;
    let select = row(schema::check(conn)?);
    let sources = asked.network.map(|network| sources_of(conn, network)).transpose()?;
    let mut found = Vec::new();
    let mut see = |row: &Row<'_>| -> Result<(), Fault> {
        let (service, source): (i64, i64) = (row.get(23)?, row.get(24)?);
        let is_asked =
            services.contains(&service) && sources.as_ref().is_none_or(|sources| sources.contains(&source));
        if is_asked && let Some(quarter) = quarter(row)? {
            found.push((service, source, quarter));
        }
        Ok(())
    };
    let notable = if asked.notable { NOTABLE } else { "TRUE" };
    match sources.as_ref().filter(|sources| sources.len() <= FEW) {
        Some(few) => {
            let one = format!(
                "{select} WHERE seconds = ?1 AND start = ?2 AND rows.service = ?3 AND rows.source = ?4 AND {notable}"
            );
            let mut one = conn.prepare(&one)?;
            for seconds in [DAY_S, HOUR_S, QUARTER_S] {
                for start in starts(conn, seconds, asked.since_s, now_s)? {
                    for (service, source) in
                        services.iter().flat_map(|service| few.iter().map(move |source| (service, source)))
                    {
                        let mut rows = one.query(params![seconds, start, service, source])?;
                        while let Some(row) = rows.next()? {
                            see(row)?;
                        }
                    }
                }
            }
        }
        None => {
            let all = format!("{select} WHERE seconds = ?1 AND start > ?2 AND {notable}");
            let mut all = conn.prepare(&all)?;
            for seconds in [DAY_S, HOUR_S, QUARTER_S] {
                let mut rows = all.query(params![seconds, asked.since_s - i64::from(seconds)])?;
                while let Some(row) = rows.next()? {
                    see(row)?;
                }
            }
        }
    }
    found.sort_by(|(_, _, a), (_, _, b)| {
        (a.start_s, a.seconds, &a.service, a.source).cmp(&(b.start_s, b.seconds, &b.service, b.source))
    });
    let mut names = conn.prepare("SELECT name FROM names WHERE day = ?1 AND source = ?2 AND service = ?3")?;
    let with_names = found.into_iter().map(|(service, source, quarter)| -> Result<Quarter, Fault> {
        let day = floor(quarter.start_s, DAY_S);
        let names = match quarter.users {
            Some(_) => {
                names.query_map(params![day, source, service], |row| row.get(0))?.collect::<Result<_, _>>()?
            }
            None => Vec::new(),
        };
        Ok(Quarter { names, ..quarter })
    });
    with_names.collect()
}

/// When the rows of this length begin that there may be since then.
fn starts(
    conn: &Connection,
    seconds: u32,
    since_s: i64,
    now_s: i64,
) -> Result<impl Iterator<Item = i64>, Fault> {
    let first = "SELECT min(start) FROM rows WHERE seconds = ?1 AND start > ?2";
    let first: Option<i64> =
        conn.query_row(first, params![seconds, since_s - i64::from(seconds)], |row| row.get(0))?;
    let last = "SELECT max(start) FROM rows WHERE seconds = ?1";
    let last: Option<i64> = conn.query_row(last, [seconds], |row| row.get(0))?;
    let end = last.unwrap_or(i64::MIN).min(now_s + i64::from(DAY_S));
    Ok((first.unwrap_or(i64::MAX)..=end).step_by(seconds as usize))
}

/// The numbers of these services; of all, where none are named.
fn numbers(conn: &Connection, names: Option<&[&str]>) -> Result<HashSet<i64>, Fault> {
    let mut all = conn.prepare("SELECT id, name FROM services")?;
    let mut rows = all.query([])?;
    let mut numbers = HashSet::new();
    while let Some(row) = rows.next()? {
        let (id, name): (i64, String) = (row.get(0)?, row.get(1)?);
        if names.is_none_or(|names| names.contains(&name.as_str())) {
            numbers.insert(id);
        }
    }
    Ok(numbers)
}

/// The sources that have an address in common with `network`.
pub(super) fn sources_of(conn: &Connection, network: &IpNet) -> Result<HashSet<i64>, Fault> {
    let mut found = HashSet::new();
    let mut one = conn.prepare("SELECT id FROM sources WHERE source = ?1")?;
    for prefix in 0..=network.prefix_len() {
        let Ok(around) = IpNet::new(network.addr(), prefix) else { continue };
        found.extend(one.query_row([around.trunc().to_string()], |row| row.get::<_, i64>(0)).optional()?);
    }
    if network.prefix_len() < network.max_prefix_len() {
        let mut all = conn.prepare("SELECT id, source FROM sources")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let source = row.get_ref(1)?.as_str().ok().and_then(|source| source.parse::<IpNet>().ok());
            if source.is_some_and(|source| network.contains(&source)) {
                found.insert(row.get(0)?);
            }
        }
    }
    Ok(found)
}

/// A row; none of what is no source.
fn quarter(row: &Row<'_>) -> Result<Option<Quarter>, Fault> {
    let number = |index: usize| row.get::<_, i64>(index).map(|number| u64::try_from(number).unwrap_or(0));
    let source: String = row.get(3)?;
    let Ok(source) = source.parse() else { return Ok(None) };
    let ended = |index: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(|number| u64::try_from(number).unwrap_or(0)))
    };
    let ended = [ended(17)?, ended(18)?, ended(19)?, ended(20)?, ended(21)?];
    let durations = ended.iter().any(Option::is_some).then(|| {
        let [first, second, third, fourth, longer] = ended.map(Option::unwrap_or_default);
        Durations { under_1_min: first, under_10_min: second, under_1_h: third, under_8_h: fourth, longer }
    });
    Ok(Some(Quarter {
        seconds: row.get(0)?,
        start_s: row.get(1)?,
        service: row.get(2)?,
        source,
        peak: row.get(4)?,
        limit: row.get(5)?,
        accepted: number(6)?,
        refused: number(7)?,
        refused_for: [number(8)?, number(9)?, number(10)?, number(11)?, number(12)?, number(13)?],
        would_refuse: number(14)?,
        held: number(15)?,
        waiting: row.get(16)?,
        durations,
        users: row.get(22)?,
        last_refused: row.get(25)?,
        names: Vec::new(),
    }))
}

pub(super) fn days_of(
    conn: &Connection,
    service: Option<&str>,
    since_s: i64,
    now_s: i64,
) -> Result<Days, Fault> {
    let services = service.map(|service| [service]);
    let services = services.as_ref().map(|services| &services[..]);
    let numbers = numbers(conn, services)?;
    let mut days: BTreeMap<(i64, String), Day> = BTreeMap::new();
    let mut see = |row: &Row<'_>, is_complete: bool| -> Result<(), Fault> {
        let (id, start_s, service): (i64, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if numbers.contains(&id) {
            let day = Day { start_s, service, sources_by_peak: BTreeMap::new(), is_complete };
            let day = days.entry((start_s, day.service.clone())).or_insert(day);
            let sources: i64 = row.get(4)?;
            *day.sources_by_peak.entry(row.get(3)?).or_default() += u64::try_from(sources).unwrap_or(0);
        }
        Ok(())
    };
    let counted = "SELECT service, day, name, peak, sources FROM peaks JOIN services ON services.id = service WHERE day = ?1";
    let uncounted = format!(
        "SELECT service, ?1, name, peak, count(*) FROM ({PEAKS}) JOIN services ON services.id = service \
         GROUP BY service, peak"
    );
    let mut complete = conn.prepare("SELECT complete FROM days WHERE day = ?1")?;
    let (mut counted, mut uncounted) = (conn.prepare(counted)?, conn.prepare(&uncounted)?);
    for day in (since_s..=now_s).step_by(DAY_S as usize) {
        let is_complete = complete.query_row([day], |row| row.get(0)).optional()?.unwrap_or(true);
        let mut is_counted = false;
        let mut rows = counted.query([day])?;
        while let Some(row) = rows.next()? {
            is_counted = true;
            see(row, is_complete)?;
        }
        if !is_counted {
            let mut rows = uncounted.query([day])?;
            while let Some(row) = rows.next()? {
                see(row, is_complete)?;
            }
        }
    }
    let notable = rows_of(conn, &Asked { since_s, services, network: None, notable: true }, now_s)?;
    Ok(Days { days: days.into_values().collect(), notable })
}
