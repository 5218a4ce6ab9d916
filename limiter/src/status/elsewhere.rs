// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Limits in a network namespace that is no longer at the path by which it was named.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    instance::{Daemon, Instance},
    kernel::{Tables, netns},
};

/// That the limits are elsewhere.
pub struct Elsewhere {
    path: PathBuf,
    /// Whether another namespace is at the path now, in which nothing is limited.
    pub is_another: bool,
}

impl Elsewhere {
    /// Compares what is protected with what is at the path that the daemon was started with, if it was.
    pub fn look(instance: &Instance, tables: &Tables, daemon: &Daemon) -> Result<Option<Self>> {
        let (protected, _) = tables.protects()?;
        let Some(path) = instance.netns_path() else { return Ok(None) };
        // As the daemon sees it, which may be in another mount namespace.
        let seen = match daemon.pid {
            Some(pid) => {
                Path::new(&format!("/proc/{pid}/root")).join(path.strip_prefix("/").unwrap_or(&path))
            }
            None => path.clone(),
        };
        Ok(match netns::cookie_at(&seen) {
            Ok(cookie) if cookie == protected => None,
            there => Some(Self { path, is_another: there.is_ok() }),
        })
    }

    /// In words, and what to do.
    pub fn warning(&self, instance: &Instance, daemon: &Daemon) -> String {
        let (path, limiter) = (self.path.display(), instance.program());
        match (self.is_another, netns::stays(&self.path)) {
            (true, true) if daemon.answers => format!(
                "another network namespace is at {path} now, and the limits are in the one that was there before: the \
                 daemon follows within seconds; if it does not, its log says why"
            ),
            (true, true) => format!(
                "another network namespace is at {path} now, and the limits are in the one that was there before: \
                 start `{limiter} run --netns {path}`, which protects the new one"
            ),
            (true, false) => format!(
                "the process at {path} is another one now, in another network namespace, and the limits are in the one \
                 that was there before: run `{limiter} unload`, then `{limiter} run --netns \
                 /proc/PID/ns/net`, where PID is a process of the new container"
            ),
            (false, true) => format!(
                "there is no network namespace at {path} any more, and the limits are in the one that was there before: \
                 when there is one again, a running daemon protects it"
            ),
            (false, false) => format!(
                "the process of {path} has ended, so limiter cannot tell whether its network namespace still exists: if \
                 the container was started again, run `{limiter} unload`, then `{limiter} run --netns \
                 /proc/PID/ns/net`, where PID is a process of the new container"
            ),
        }
    }
}
