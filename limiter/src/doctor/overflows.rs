// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the kernel dropped because a queue was full.

use std::fs;

/// What the kernel of a network namespace dropped, or did without a queue, since the namespace is there (`TcpExt` of
/// `/proc/net/netstat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflows {
    /// Handshakes that found the accept queue full.
    pub overflows: u64,
    /// SYN cookies that were sent, because the SYN queue was full.
    pub cookies: u64,
}

impl Overflows {
    /// In the network namespace of this thread; none if the kernel does not tell.
    pub fn now() -> Option<Self> {
        Self::of(&fs::read_to_string("/proc/thread-self/net/netstat").ok()?)
    }

    /// One line has the names, the next the numbers.
    fn of(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (names, numbers) = (lines.next()?, lines.next()?);
        let pairs: Vec<(&str, u64)> = names
            .split_whitespace()
            .zip(numbers.split_whitespace())
            .filter_map(|(name, number)| Some((name, number.parse().ok()?)))
            .collect();
        let of = |wanted: &str| pairs.iter().find(|(name, _)| *name == wanted).map(|(_, number)| *number);
        Some(Self { overflows: of("ListenOverflows")?, cookies: of("SyncookiesSent")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read_by_their_names() {
        let text =
            "TcpExt: SyncookiesSent Other ListenOverflows ListenDrops\nTcpExt: 3 4 5 6\nIpExt: A\nIpExt: 1\n";
        assert_eq!(Overflows::of(text), Some(Overflows { overflows: 5, cookies: 3 }));
        assert_eq!(Overflows::of("TcpExt: A\nTcpExt: 1\n"), None);
        assert_eq!(Overflows::of(""), None);
        assert!(Overflows::now().is_some(), "of the running kernel");
    }
}
