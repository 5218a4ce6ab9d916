// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Follows the paths of `--cgroup` and `--netns`: a service or a container that is started again has a new cgroup or
//! network namespace there.

use std::path::PathBuf;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::kernel::{
    environment::Cgroup,
    netns::{self, At},
};

/// Says that the daemon is to begin anew.
pub type Moved = watch::Sender<bool>;

/// The cgroup that is protected, by its path.
pub struct FollowedCgroup {
    path: PathBuf,
    id: u64,
    has_moved: Moved,
    is_gone: bool,
}

impl FollowedCgroup {
    /// The cgroup `id`, which was at `path` when it was attached to.
    pub const fn new(path: PathBuf, id: u64, has_moved: Moved) -> Self {
        Self { path, id, has_moved, is_gone: false }
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

/// The network namespace that is protected, by its path.
pub struct FollowedNetns {
    path: PathBuf,
    has_moved: Moved,
    seen: At,
}

impl FollowedNetns {
    /// That of this thread, which is at `path`.
    pub const fn new(path: PathBuf, has_moved: Moved) -> Self {
        Self { path, has_moved, seen: At::Ours }
    }

    /// Looks once, and says if the path leads to another namespace now.
    pub fn round(&mut self) {
        let path = self.path.display();
        let now = netns::at(&self.path);
        if now == At::Another && netns::stays(&self.path) {
            info!("another network namespace is at {path} now: it is protected from now on");
            self.has_moved.send_replace(true);
            return;
        }
        if std::mem::replace(&mut self.seen, now) == now {
            return;
        }
        match now {
            At::Ours => {}
            At::Another => warn!(
                "LIMITS NOT IN FORCE: the process at {path} is another one, and the limits stay in the network \
                 namespace that was there; unload them, and start the daemon with the path of the new container"
            ),
            At::Nothing => warn!(
                "there is no network namespace at {path} any more; the limits stay in the one that was there"
            ),
        }
    }
}
