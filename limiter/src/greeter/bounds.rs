// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What bounds the greeter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The greeter's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Connections at once; one more is reset.
    pub connections: usize,
    /// Of these, how many one source may have where nobody else has any.
    pub per_source: usize,
    /// How long a client has to read the reply and close.
    pub time: Duration,
    /// How many bytes of what a client sends are read, and discarded.
    pub bytes: usize,
    /// TLS handshakes that go on at a time; beyond that, and all bounds that follow, a client gets an alert.
    pub handshakes: usize,
    /// Of these, how many with one source, likewise.
    pub handshakes_per_source: usize,
    /// TLS handshakes that begin in a second; one that takes longer than a millisecond of the CPU counts for as
    /// many as it has milliseconds.
    pub handshakes_per_second: u32,
    /// Of these, how many at once.
    pub handshakes_at_once: u32,
    /// How long a TLS handshake may take; the client has [`time`](Self::time) after that.
    pub handshake_time: Duration,
    /// How many bytes of what a client sends are read during a TLS handshake.
    pub handshake_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        let all = Self {
            connections: 0,
            per_source: 0,
            time: Duration::from_secs(2),
            bytes: 4096,
            handshakes: 0,
            handshakes_per_source: 0,
            handshakes_per_second: 200,
            handshakes_at_once: 50,
            handshake_time: Duration::from_secs(10),
            handshake_bytes: 16 << 10,
        };
        all.with_connections(1024)
    }
}

/// Descriptors of the greeter's process that are not its clients': three that lead nowhere, the listener, two sockets to
/// the daemon, what tells of events, the spare one, and those that come with messages.
const OWN_FILES: usize = 16;

impl Bounds {
    /// How many descriptors the process needs.
    #[must_use]
    pub const fn files(&self) -> u64 {
        (self.connections + OWN_FILES) as u64
    }

    /// These, where the process may have so many descriptors.
    #[must_use]
    pub fn within(self, files: u64) -> Self {
        let clients = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OWN_FILES);
        self.with_connections(clients.min(self.connections))
    }

    /// These, with other `connections`. One source may have an eighth of them. A quarter may be in a TLS handshake,
    /// and a sixteenth of these with one source.
    #[must_use]
    pub fn with_connections(self, connections: usize) -> Self {
        let handshakes = connections.div_ceil(4);
        Self {
            connections,
            per_source: connections.div_ceil(8),
            handshakes,
            handshakes_per_source: handshakes.div_ceil(16),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bounds;

    #[test]
    fn what_the_process_itself_needs_comes_first() {
        for (files, clients) in [(0, 0), (16, 0), (60, 44), (1039, 1023), (1040, 1024), (u64::MAX, 1024)] {
            let bounds = Bounds::default().within(files);
            assert_eq!(bounds.connections, clients);
            assert!(bounds.files() <= files.max(16), "{files}");
        }
    }
}
