// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What cargo says it has built.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command;

/// Something that cargo built and that can be run.
pub struct Executable {
    /// As cargo calls it: `bin`, `test`.
    pub kind: String,
    /// As cargo knows it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Runs a cargo that prints messages for programs, and returns what it built.
///
/// # Errors
///
/// When it does not compile, or cargo says something that is not understood.
pub fn executables(cargo: &mut Command) -> Result<Vec<Executable>> {
    let messages = command::output(cargo)?;
    let messages = messages.lines().map(serde_json::from_str).collect::<serde_json::Result<Vec<Value>>>();
    let messages = messages.context("cargo's messages are not as documented")?;
    Ok(messages.iter().filter_map(executable).collect())
}

/// What a message of cargo says was built, if it can be run.
fn executable(message: &Value) -> Option<Executable> {
    let path = Path::new(message["executable"].as_str()?).to_owned();
    let target = &message["target"];
    Some(Executable {
        kind: target["kind"][0].as_str()?.to_owned(),
        name: target["name"].as_str()?.to_owned(),
        path,
    })
}
