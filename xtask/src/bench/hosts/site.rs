// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where a contestant is, and what runs there has: its network namespace, its cgroup, its files.

use std::path::PathBuf;

use limiter_lab::{Namespace, cgroup::Cgroup};
use tempfile::TempDir;

use crate::bench::{lab::Place, plan::Contestant};

/// The place of a contestant.
pub struct Site {
    /// Who it is.
    pub contestant: Contestant,
    /// Where it is.
    pub place: Place,
    /// Everything that runs for it.
    pub cgroup: Cgroup,
    /// Where it runs.
    pub(super) netns: Namespace,
    /// Its configuration and its log.
    pub(super) files: TempDir,
}

impl Site {
    /// A file of it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}
