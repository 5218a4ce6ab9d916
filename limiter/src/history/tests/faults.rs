// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whatever becomes of the file: what is wrong is said in a sentence, and nothing is lost that need not be.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    slice::from_ref,
};

use nix::mount::{MsFlags, mount, umount};
use rusqlite::Connection;

use super::{DAY, place, row, rows, source, store};
use crate::history::{
    fault::Fault,
    read,
    row::{DAY_S, Quarter},
    schema,
    store::Store,
    tidy::{self, Retention},
};

fn refused(path: &Path) -> Fault {
    let Err(fault) = Store::open(path) else { panic!("it is opened") };
    fault
}

/// The bytes of a file do not change.
fn is_left_alone(path: &Path, what: impl FnOnce()) {
    let before = fs::read(path).unwrap();
    what();
    assert!(before == fs::read(path).unwrap());
}

#[test]
fn a_new_database_is_roots_alone_and_keeps_its_log_beside_it() {
    let (_dir, path) = place();
    let mut store = store(&path);
    store.write(&[row(DAY, 900, 1, 3)], true).unwrap();
    for file in [path.clone(), super::super::store::beside(&path, "-wal")] {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600, "{}", file.display());
    }
    let conn = Connection::open(&path).unwrap();
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, schema::VERSION);
    let (service, peak): (String, u32) = conn
        .query_row("SELECT service, peak FROM history", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!((service.as_str(), peak), ("smtp", 3), "as an admin asks for it");
}

#[test]
fn a_database_of_an_older_build_is_read_as_it_is_and_becomes_this_builds_own() {
    let (_dir, path) = place();
    let refused = Quarter { refused: 3, ..row(DAY, 900, 1, 8) };
    store(&path).write(from_ref(&refused), true).unwrap();
    // As the first version had it.
    let old = "DROP VIEW history; ALTER TABLE rows DROP COLUMN last_refused;
               CREATE VIEW history AS SELECT start FROM rows; PRAGMA user_version = 1";
    Connection::open(&path).unwrap().execute_batch(old).unwrap();
    assert_eq!(&rows(&path), from_ref(&refused), "whoever reads changes nothing");
    let mut store = store(&path);
    assert_eq!(schema::check(store.connection()).unwrap(), schema::VERSION);
    assert_eq!(&rows(&path), from_ref(&refused));
    let at = |last_refused| Quarter { last_refused, ..refused.clone() };
    for last_refused in [Some(DAY + 100), None, Some(DAY + 60)] {
        store.write(&[at(last_refused)], true).unwrap();
    }
    assert_eq!(rows(&path)[0].last_refused, Some(DAY + 100));
    let later = DAY + 30 * i64::from(DAY_S);
    tidy::tidy(store.connection(), later, &Retention { days: 60, bytes: 256 << 20 }).unwrap();
    let row = &rows(&path)[0];
    assert_eq!((row.seconds, row.refused, row.last_refused), (DAY_S, 12, Some(DAY + 100)));
}

#[test]
fn a_database_of_a_newer_build_is_refused_and_left_alone() {
    let (_dir, path) = place();
    drop(store(&path));
    Connection::open(&path).unwrap().pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    let fault = refused(&path);
    is_left_alone(&path, || drop(refused(&path)));
    assert_eq!(
        fault.sentence(Path::new("FILE")),
        format!(
            "FILE: a newer limiter wrote it (schema {}, this build knows {}); use that build, or move the file away",
            schema::VERSION + 1,
            schema::VERSION
        )
    );
    assert!(!fault.is_damage() && !fault.is_passing());
    let said = read::read(&path, |_| Ok(())).unwrap_err().to_string();
    assert!(
        said.starts_with("cannot read the history: ") && said.contains("a newer limiter wrote it"),
        "{said}"
    );
}

#[test]
fn a_database_of_another_program_is_refused_and_left_alone() {
    let (_dir, path) = place();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    is_left_alone(&path, || assert!(matches!(refused(&path), Fault::Foreign)));
}

#[test]
fn a_damaged_database_is_put_aside_with_its_log_and_a_new_one_begun() {
    let (_dir, path) = place();
    let mut first = store(&path);
    first.write(&(0..2000).map(|n| row(DAY, 900, n, 3)).collect::<Vec<_>>(), true).unwrap();
    drop(first);
    for damage in ["not a database", "a page"] {
        let mut bytes = fs::read(&path).unwrap();
        let at = if damage == "a page" { 4096..bytes.len() } else { 0..200 };
        bytes[at].fill(0xa5);
        fs::write(&path, &bytes).unwrap();
        let fault = match Store::open(&path) {
            Err(fault) => fault,
            Ok(mut store) => store.write(&[row(DAY, 900, 1, 3)], true).unwrap_err(),
        };
        assert!(fault.is_damage(), "{damage}: {fault:?}");
        let aside = crate::history::store::put_aside(&path).unwrap();
        assert_eq!(fs::read(&aside).unwrap(), bytes, "somebody may mend it");
        let mut new = store(&path);
        new.write(&(0..2000).map(|n| row(DAY, 900, n, 5)).collect::<Vec<_>>(), true).unwrap();
        drop(new);
        assert_eq!(rows(&path).len(), 2000);
    }
}

#[test]
fn while_another_program_holds_the_lock_nothing_is_written_and_afterwards_all_is() {
    let (_dir, path) = place();
    let mut store = store(&path);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let fault = store.write(&[row(DAY, 900, 1, 3)], true).unwrap_err();
    assert!(
        fault.is_passing() && fault.sentence(&path).contains("another program holds a lock on it"),
        "{fault:?}"
    );
    other.execute_batch("ROLLBACK").unwrap();
    store.write(&[row(DAY, 900, 1, 3)], true).unwrap();
    assert_eq!(rows(&path).len(), 1);
}

#[test]
fn readers_see_what_was_written_while_somebody_writes() {
    let (_dir, path) = place();
    let mut store = store(&path);
    store.write(&[row(DAY, 900, 1, 3)], true).unwrap();
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; DELETE FROM rows").unwrap();
    assert_eq!(rows(&path).len(), 1);
}

#[test]
fn a_file_that_is_removed_or_replaced_is_noticed() {
    let (_dir, path) = place();
    let mut first = store(&path);
    first.write(&[row(DAY, 900, 1, 3)], true).unwrap();
    assert!(first.is_in_place());
    fs::remove_file(&path).unwrap();
    assert!(!first.is_in_place());
    drop(first);
    let mut second = store(&path);
    second.write(&[row(DAY, 900, 2, 4)], true).unwrap();
    assert_eq!(rows(&path).iter().map(|row| row.source).collect::<Vec<_>>(), [source(2)]);
}

#[test]
fn nobody_else_decides_what_the_database_says() {
    let (dir, path) = place();
    symlink("elsewhere", &path).unwrap();
    assert!(matches!(refused(&path), Fault::NotAFile));
    fs::remove_file(&path).unwrap();
    drop(store(&path));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let Fault::Distrusted(distrust) = refused(&path) else { panic!("it is trusted") };
    assert_eq!(distrust.path, dir.path());
    assert!(read::read(&path, |_| Ok(())).is_err());
}

/// A file system of its own, with so many KiB.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path, kib: u32) -> Option<Self> {
        let options = format!("size={kib}k,mode=700");
        if mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).is_err() {
            limiter_lab::skip("only root can mount a file system");
            return None;
        }
        Some(Self(at))
    }

    fn grow(&self, kib: u32) {
        let options = format!("size={kib}k");
        mount(Some("tmpfs"), self.0, None::<&str>, MsFlags::MS_REMOUNT, Some(options.as_str())).unwrap();
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        umount(self.0).unwrap();
    }
}

#[test]
fn on_a_full_disk_nothing_is_lost_that_was_there_and_it_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(dir.path(), 400) else { return };
    let path = dir.path().join("test.history.db");
    let mut first = store(&path);
    let batch = |n: u32| -> Vec<_> { (0..500).map(|i| row(DAY + i64::from(n) * 900, 900, i, 3)).collect() };
    let mut written = 0;
    let fault = loop {
        match first.write(&batch(written), true) {
            Ok(()) => written += 1,
            Err(fault) => break fault,
        }
        assert!(written < 1000, "the disk never becomes full");
    };
    assert!(fault.is_passing() && fault.sentence(&path).contains("there is no space left"), "{fault:?}");
    assert!(written > 0);
    drop(first);
    assert_eq!(rows(&path).len(), written as usize * 500);
    let mut second = store(&path);
    assert!(second.write(&batch(written), true).is_err());
    disk.grow(4000);
    second.write(&batch(written), true).unwrap();
    drop(second);
    assert_eq!(rows(&path).len(), (written as usize + 1) * 500);
}

#[test]
fn without_room_for_a_database_there_is_none_and_the_next_try_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(dir.path(), 8) else { return };
    let path = dir.path().join("test.history.db");
    let fault = refused(&path);
    assert!(!fault.is_damage(), "{fault:?}");
    disk.grow(4000);
    drop(store(&path));
    assert_eq!(rows(&path).len(), 0);
}
