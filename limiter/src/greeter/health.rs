// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How the greeter's process is, for `limiter status`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// How the process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number; none while there is none that serves.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
    /// Whether Landlock confines it, too; none before one has served.
    pub landlock: Option<bool>,
    /// Why there is none, a part of a sentence.
    pub problem: Option<String>,
}

impl Process {
    /// What is to be said of it, a sentence.
    pub fn warning(&self) -> Option<String> {
        self.problem.as_ref().map(|problem| {
            format!(
                "the greeter is not running, so refused clients get a reset instead of a reason: {problem}; the \
                 daemon tries again every second"
            )
        })
    }
}

/// The same, live. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Process>>);

impl Health {
    /// As it is now.
    #[must_use]
    pub fn process(&self) -> Process {
        self.lock().clone()
    }

    /// One serves.
    pub fn serves(&self, pid: Option<u32>, landlock: bool) {
        let mut process = self.lock();
        (process.pid, process.landlock, process.problem) = (pid, Some(landlock), None);
    }

    /// There is none, because of that.
    pub fn is_down(&self, problem: String) {
        let mut process = self.lock();
        (process.pid, process.problem) = (None, Some(problem));
    }

    /// Another one is started.
    pub fn restarts(&self) {
        self.lock().restarts += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Process> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
