// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Maps as all that reads them needs them.

use std::{io, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, MapError};

/// A map pinned in `dir`.
pub fn open(dir: &Path, name: &str) -> Result<MapData> {
    let path = dir.join(name);
    MapData::from_pin(&path).with_context(|| format!("cannot open the map {}", path.display()))
}

/// What was looked up or removed, if it was there.
pub fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
