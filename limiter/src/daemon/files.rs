// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The descriptors of the daemon: as many as it needs, and some that nobody takes.

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

use crate::greeter::Bounds;

/// What the daemon needs: maps and programs, sockets to the kernel, the runtime; some 225 while nothing happens. A
/// reload, bans, the census and a look at the network take some 50 more for a moment, and several may come together.
const OWN: u64 = 320;

/// Raises the limit of open files to what the daemon needs, as far as it may be raised; what the greeter, which is a
/// process of its own, may have. Clients that it has no descriptor for are reset.
pub fn raise() -> Result<Bounds> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    let files = soft.max(OWN.min(hard));
    if files > soft {
        setrlimit(Resource::RLIMIT_NOFILE, files, hard)
            .with_context(|| format!("cannot raise the limit of open files from {soft} to {files}"))?;
    }
    let all = Bounds::default();
    let bounds = all.within(hard);
    if bounds.connections < all.connections {
        warn!(
            "the limit of open files is {hard}: the greeter serves {} clients at once, not {}, and the others \
             get a reset; raise the limit to {} (LimitNOFILE= of systemd, `ulimit -Hn`)",
            bounds.connections,
            all.connections,
            all.files()
        );
    }
    Ok(bounds)
}
