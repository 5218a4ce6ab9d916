// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The files of the project.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::paths;

/// All files, but for what is built, and hidden ones other than those of `.ci`; sorted. Not by git, which need not be
/// there.
///
/// # Errors
///
/// When a folder cannot be read.
pub fn all() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![paths::root().to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "target" || (name.starts_with('.') && name != ".ci") {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
