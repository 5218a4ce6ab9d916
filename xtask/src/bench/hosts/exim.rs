// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Exim alone. It counts the processes it has for each client.

use std::{
    fs::{self, File},
    os::unix::fs::chown,
    process::Stdio,
};

use anyhow::Result;

use super::Host;
use crate::{
    bench::lab::{LIMIT, port},
    unpacked::{EXIM, EXIM_USER},
};

/// What all its sources may hold at a time, and one of them where it is admitted.
const PROCESSES: usize = 200;

/// A daemon for each port, since the limit is that of a daemon.
pub fn start(host: &Host) -> Result<()> {
    for (port, limit) in [(port::ADMITS, PROCESSES), (port::REPLIES, LIMIT)] {
        let dir = host.path(&port.to_string());
        for folder in ["", "spool", "log"] {
            fs::create_dir(dir.join(folder))?;
            chown(dir.join(folder), Some(EXIM_USER), Some(EXIM_USER))?;
        }
        let config = dir.join("exim.conf");
        fs::write(
            &config,
            format!(
                "primary_hostname = mx.example.net\nspool_directory = {dir}/spool\nlog_file_path = {dir}/log/%s\n\
                 pid_file_path = {dir}/pid\ndaemon_smtp_ports = {port}\nsmtp_accept_max = {PROCESSES}\n\
                 smtp_accept_max_per_host = {limit}\nsmtp_connect_backlog = 4096\nhost_lookup =\n\
                 rfc1413_query_timeout = 0s\nkeep_environment =\nbegin acl\n",
                dir = dir.display()
            ),
        )?;
        let log = File::create(dir.join("start"))?;
        let mut exim = host.cgroup.command(&host.netns, "unshare");
        EXIM.launch(&mut exim, host.files.path())?;
        exim.arg("-C").arg(&config).arg("-bdf");
        // They end with their cgroup.
        let _child = exim.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        host.wait_for(port, &dir.join("start"))?;
    }
    Ok(())
}
