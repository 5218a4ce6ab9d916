// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What bounds the greeter.

use std::time::Duration;

/// The greeter's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once; one more is reset.
    pub connections: usize,
    /// Of these, how many one source may have.
    pub per_source: usize,
    /// How long a client has to read the reply and close.
    pub time: Duration,
    /// How many bytes of what a client sends are read, and discarded.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        let all = Self { connections: 0, per_source: 0, time: Duration::from_secs(2), bytes: 4096 };
        all.with_connections(1024)
    }
}

impl Bounds {
    /// These, with other `connections`. One source may have an eighth of them.
    #[must_use]
    pub fn with_connections(self, connections: usize) -> Self {
        Self { connections, per_source: connections.div_ceil(8), ..self }
    }
}
