// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Follows the path of `--cgroup`: a service that is started again has a new cgroup there.

use std::path::PathBuf;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::kernel::environment::Cgroup;

/// The cgroup that is protected, by its path.
pub struct Followed {
    path: PathBuf,
    id: u64,
    has_moved: watch::Sender<bool>,
    is_gone: bool,
}

impl Followed {
    /// The cgroup `id`, which was at `path` when it was attached to.
    pub fn new(path: PathBuf, id: u64) -> (Self, watch::Receiver<bool>) {
        let (has_moved, moved) = watch::channel(false);
        (Self { path, id, has_moved, is_gone: false }, moved)
    }

    /// Looks once, and says if the path leads to another cgroup now.
    pub fn round(&mut self) {
        let path = self.path.display();
        match Cgroup::open(Some(&self.path)) {
            Ok(cgroup) if cgroup.id == self.id => self.is_gone = false,
            Ok(_) => {
                info!("a new cgroup exists at {path}: it is now protected");
                self.has_moved.send_replace(true);
            }
            Err(problem) if !std::mem::replace(&mut self.is_gone, true) => {
                warn!("LIMITS NOT IN FORCE: {problem:#}; they return when a cgroup exists at this path");
            }
            Err(_) => {}
        }
    }
}
