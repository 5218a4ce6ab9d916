// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The descriptors of the daemon: as many as it needs, and some that nobody takes.

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

use crate::greeter::Bounds;

/// What the daemon itself needs: maps and programs, sockets to the kernel, the runtime; some 175 while nothing
/// happens. A reload, bans, the census and a look at the network take some 50 more for a moment, and several may
/// come together.
const OWN: u64 = 256;

/// Raises the limit of open files to what the daemon needs, as far as it may be raised; what the greeter may take of
/// it. Below that, what the daemon itself does comes first: clients that the greeter has no descriptor for are reset.
pub fn raise() -> Result<Bounds> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    let bounds = Bounds::default();
    let needed = OWN + bounds.connections as u64;
    let files = soft.max(needed.min(hard));
    if files > soft {
        setrlimit(Resource::RLIMIT_NOFILE, files, hard)
            .with_context(|| format!("cannot raise the limit of open files from {soft} to {files}"))?;
    }
    if files < needed {
        warn!(
            "the limit of open files is {files}: the greeter serves {} clients at once, not {}, and the others \
             get a reset; raise the limit to {needed} (LimitNOFILE= of systemd, `ulimit -Hn`)",
            clients(files),
            bounds.connections
        );
    }
    Ok(bounds.with_connections(clients(files)))
}

/// How many clients the greeter may have where so many files may be open.
fn clients(files: u64) -> usize {
    let left = usize::try_from(files.saturating_sub(OWN)).unwrap_or(usize::MAX);
    left.min(Bounds::default().connections)
}

#[cfg(test)]
mod tests {
    use super::clients;

    #[test]
    fn the_daemon_comes_first() {
        assert_eq!(clients(0), 0);
        assert_eq!(clients(256), 0);
        assert_eq!(clients(300), 44);
        assert_eq!(clients(1024), 768);
        assert_eq!(clients(1280), 1024);
        assert_eq!(clients(u64::MAX), 1024);
    }
}
