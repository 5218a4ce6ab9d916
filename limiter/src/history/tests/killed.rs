// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A writer that is killed at any moment: the database opens again, with all that was written, and no half of a batch.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rusqlite::Connection;

use super::{DAY, place, row, rows, store};

/// Where the child writes.
const PATH: &str = "LIMITER_TEST_KILLED";
/// Rows of a batch, always the same, to which each batch adds one connection.
const ROWS: u32 = 200;
const KILLS: u32 = 200;

/// The child: it writes, says each batch that is written, and never ends.
#[test]
#[ignore = "a part of the next test"]
fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(PATH).map(PathBuf::from) else { return };
    let mut store = store(&path);
    let batch: Vec<_> = (0..ROWS).map(|n| row(DAY, 900, n, 3)).collect();
    loop {
        store.write(&batch, true).unwrap();
        println!("written");
    }
}

fn child(path: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "history::tests::killed::writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// How many batches there are, which is as many as each row has connections.
fn batches(path: &Path) -> u64 {
    let rows = rows(path);
    let Some(first) = rows.first() else { return 0 };
    assert_eq!(rows.len(), ROWS as usize);
    assert!(rows.iter().all(|row| row.accepted == first.accepted), "a batch is half in it");
    first.accepted
}

#[test]
fn killed_two_hundred_times_while_it_writes_it_loses_nothing_that_was_written() {
    let (_dir, path) = place();
    let mut known = 0;
    for kill in 0..KILLS {
        let mut writer = child(&path);
        let mut said = BufReader::new(writer.stdout.take().unwrap()).lines();
        // Now during the first batch, now later, at whatever point of it.
        let mut written = 0;
        for _ in 0..kill % 4 {
            while !said.next().unwrap().unwrap().contains("written") {}
            written += 1;
        }
        limiter_lab::let_time_pass(Duration::from_micros(u64::from(kill % 23) * 431), "it writes meanwhile");
        writer.kill().unwrap();
        writer.wait().unwrap();
        written += said.map_while(Result::ok).filter(|line| line.contains("written")).count() as u64;
        let now = batches(&path);
        // The last one may be there although nobody was told.
        assert!((known + written..=known + written + 1).contains(&now), "{known} and {written} make {now}");
        known = now;
    }
    assert!(known > u64::from(KILLS), "it has hardly written: {known}");
    let conn = Connection::open(&path).unwrap();
    let checked: String = conn.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(checked, "ok");
}
