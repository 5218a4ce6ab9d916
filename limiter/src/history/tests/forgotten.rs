// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whoever is to be forgotten is in none of the files.

use std::{fs, path::Path};

use super::{DAY, place, row, rows, source, store};
use crate::history::{
    forget::{Forgotten, in_file},
    row::{DAY_S, Quarter},
    store::beside,
    tidy::{Retention, tidy},
};

fn with_name(n: u32, name: &str) -> Quarter {
    Quarter { users: Some(1), names: vec![name.to_owned()], ..row(DAY, 900, n, 12) }
}

/// Whether one of the files has these bytes.
fn has(path: &Path, text: &str) -> bool {
    [path.to_owned(), beside(path, "-wal")].iter().any(|file| {
        let bytes = fs::read(file).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn an_address_and_its_users_are_in_no_file_any_more_and_others_stay() {
    let (_dir, path) = place();
    let mut store = store(&path);
    let rows_of = |n: u32, name: &str| {
        (0..50).map(|i| Quarter { start_s: DAY + i * 900, ..with_name(n, name) }).collect::<Vec<_>>()
    };
    store.write(&rows_of(771, "anna@example.org"), true).unwrap();
    store.write(&rows_of(772, "ben@example.org"), true).unwrap();
    let text = source(771).addr().to_string();
    assert!(has(&path, &text) && has(&path, "anna@example.org"));
    // While the daemon has it open.
    let forgotten = in_file(&path, &source(771), false).unwrap();
    assert_eq!(forgotten, Forgotten { sources: 1, rows: 50 });
    assert!(!has(&path, &text) && !has(&path, "anna"), "it is still there");
    assert!(rows(&path).iter().all(|row| row.source == source(772) && row.names == ["ben@example.org"]));
    assert_eq!(in_file(&path, &source(771), false).unwrap(), Forgotten::default());
    store.write(&rows_of(773, "cleo"), true).unwrap();
    assert_eq!(rows(&path).len(), 100);
}

#[test]
fn a_network_is_forgotten_with_all_sources_in_it() {
    let (_dir, path) = place();
    let mut store = store(&path);
    store.write(&(0..600).map(|n| row(DAY, 900, n, 3)).collect::<Vec<_>>(), true).unwrap();
    let network = "10.0.1.0/24".parse().unwrap();
    assert_eq!(in_file(&path, &network, false).unwrap(), Forgotten { sources: 256, rows: 256 });
    assert_eq!(rows(&path).len(), 344);
    // An address that counts as a part of its network.
    let of_64 = Quarter { source: "2001:db8::/64".parse().unwrap(), ..row(DAY, 900, 1, 3) };
    store.write(&[of_64], true).unwrap();
    let address = "2001:db8::5/128".parse().unwrap();
    assert_eq!(in_file(&path, &address, false).unwrap(), Forgotten { sources: 1, rows: 1 });
}

#[test]
fn what_was_forgotten_is_in_no_count_of_a_day_either() {
    let (_dir, path) = place();
    let mut store = store(&path);
    let mut seen: Vec<_> = (1..=10).map(|n| row(DAY, 900, n, 6)).collect();
    seen.push(row(DAY, 900, 11, 60));
    seen.push(row(DAY + 900, 900, 11, 50));
    store.write(&seen, true).unwrap();
    let retention = Retention { days: 30, bytes: 1 << 30 };
    tidy(store.connection(), DAY + 2 * i64::from(DAY_S), &retention).unwrap();
    let mut peaks = || {
        let conn = store.connection();
        let mut peaks = conn.prepare("SELECT peak, sources FROM peaks ORDER BY peak").unwrap();
        let peaks = peaks.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?))).unwrap();
        peaks.collect::<Result<Vec<_>, _>>().unwrap()
    };
    assert_eq!(peaks(), [(6, 10), (60, 1)]);
    in_file(&path, &source(11), false).unwrap();
    in_file(&path, &source(3), false).unwrap();
    assert_eq!(peaks(), [(6, 9)]);
}

#[test]
fn the_daemon_is_told_what_it_may_not_write_any_more() {
    let (_dir, path) = place();
    let store = store(&path);
    in_file(&path, &source(771), true).unwrap();
    assert_eq!(store.forgotten().unwrap(), [source(771)]);
    store.end_forgetting().unwrap();
    assert_eq!(store.forgotten().unwrap(), []);
    assert!(!has(&path, &source(771).addr().to_string()));
}

#[test]
fn names_are_not_written_where_nobody_wants_them() {
    let (_dir, path) = place();
    let mut store = store(&path);
    store.write(&[with_name(1, "anna")], false).unwrap();
    let [one] = &rows(&path)[..] else { panic!("one row") };
    assert_eq!((one.users, &one.names[..]), (Some(1), &[][..]));
    assert!(!has(&path, "anna"));
}
