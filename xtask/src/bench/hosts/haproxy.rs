// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `HAProxy` in TCP mode, with a stick table that counts the connections of each source.

use std::{
    fs::{self, File},
    process::Stdio,
};

use anyhow::Result;

use super::Host;
use crate::bench::lab::{LIMIT, PLENTY, port};

/// Where the server is behind it.
pub const BEHIND: u16 = 2025;

/// "Limiting connections" in its manual: `track-sc0 src`, and `reject` on the connection itself, the
/// earliest place there is. `maxconn` so that it is never the limit.
pub fn start(host: &Host) -> Result<()> {
    // Two files for each connection, and some of its own.
    let maxconn = (limiter_lab::limits::allow_many_files()? - 500) / 2;
    let frontend = |(port, limit): (u16, usize)| {
        format!(
            "frontend port{port}\n  bind :::{port} v4v6 backlog 4096\n  stick-table type ipv6 size 1m expire 30s store \
             conn_cur\n  tcp-request connection track-sc0 src\n  tcp-request connection reject if {{ sc0_conn_cur gt \
             {limit} }}\n  default_backend mail\n"
        )
    };
    let frontends = [(port::ADMITS, PLENTY), (port::RESETS, LIMIT)].map(frontend).concat();
    let config = format!(
        "global\n  maxconn {maxconn}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5m\n  timeout \
         server 5m\n  maxconn {maxconn}\n{frontends}backend mail\n  server mail 127.0.0.1:{BEHIND}\n"
    );
    let file = host.path("haproxy.cfg");
    fs::write(&file, config)?;
    let log = File::create(host.path("log"))?;
    let mut haproxy = host.cgroup.command(&host.netns, "haproxy");
    haproxy.arg("-db").arg("-f").arg(file);
    // It ends with its cgroup.
    let _child = haproxy.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    host.wait_for(port::ADMITS, &host.path("log"))
}
