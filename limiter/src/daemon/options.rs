// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon is started with.

use std::path::PathBuf;

use crate::config::Config;

/// What `limiter run` was asked for.
pub struct Options {
    /// The network namespace to protect; the present one if none.
    pub netns: Option<PathBuf>,
    /// The cgroup to protect; all if none.
    pub cgroup: Option<PathBuf>,
    /// The configuration's file; the built-in services if none.
    pub file: Option<PathBuf>,
    /// The configuration.
    pub config: Config,
}
