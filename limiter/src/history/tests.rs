// SPDX-License-Identifier: GPL-2.0-only OR MIT

mod faults;
mod forgotten;
mod killed;
mod replay;

use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::{row::Quarter, store::Store};

/// Midnight of 2026-11-28, UTC.
pub const DAY: i64 = 1_795_824_000;

/// Where a database can be, in a directory that is nobody else's.
pub fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.history.db");
    (dir, path)
}

pub fn source(n: u32) -> IpNet {
    IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n)))
}

pub fn row(start_s: i64, seconds: u32, n: u32, peak: u32) -> Quarter {
    let mut row = Quarter::new(start_s, seconds, "smtp", source(n));
    (row.peak, row.limit, row.accepted) = (peak, Some(20), 1);
    row
}

/// The database as others read it.
pub fn rows(path: &Path) -> Vec<Quarter> {
    let asked = super::read::Asked { since_s: 0, ..Default::default() };
    super::read::read(path, |conn| super::read::rows_of(conn, &asked, i64::from(i32::MAX)))
        .unwrap()
        .unwrap_or_default()
}

pub fn store(path: &Path) -> Store {
    Store::open(path).unwrap()
}
