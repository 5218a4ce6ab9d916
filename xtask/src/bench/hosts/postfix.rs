// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Postfix alone. Its anvil counts the connections of each client.

use std::{
    fs::{self, File},
    process::Stdio,
};

use anyhow::{Context as _, Result};
use nix::unistd::{User, chown};

use super::Host;
use crate::bench::lab::{LIMIT, port};

/// Its process limit: what can be under way at a time, and no more can be held.
const PROCESSES: usize = 100;

/// As Debian configures it, apart from any Postfix of the machine. Names are not looked up: there are none.
pub fn start(host: &Host) -> Result<()> {
    for folder in ["etc", "queue", "data"] {
        fs::create_dir(host.path(folder))?;
    }
    let user = User::from_name("postfix")?.context("the user postfix does not exist")?;
    chown(&host.path("data"), Some(user.uid), Some(user.gid))?;
    let dir = host.files.path().display();
    fs::write(
        host.path("etc/main.cf"),
        format!(
            "compatibility_level = 3.6\nqueue_directory = {dir}/queue\ndata_directory = {dir}/data\n\
             maillog_file = {dir}/log\nmaillog_file_prefixes = {dir}\nmulti_instance_directories =\n\
             inet_interfaces = all\ninet_protocols = all\ndisable_dns_lookups = yes\nsmtpd_peername_lookup = no\n\
             smtpd_client_connection_count_limit = {PROCESSES}\nsmtpd_relay_restrictions = \
             reject_unauth_destination\nmyhostname = mx.example.net\nmydestination =\nmynetworks = 127.0.0.0/8\n\
             alias_maps =\nalias_database =\nlocal_recipient_maps =\ndefault_process_limit = {PROCESSES}\n"
        ),
    )?;
    fs::write(
        host.path("etc/master.cf"),
        format!(
            "{} inet n - n - - smtpd\n{} inet n - n - - smtpd\n  -o smtpd_client_connection_count_limit={LIMIT}\n\
             postlog unix-dgram n - n - 1 postlogd\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
             rewrite unix - - n - - trivial-rewrite\nproxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\n\
             error unix - - n - - error\nbounce unix - - n - 0 bounce\n",
            port::ADMITS,
            port::REPLIES
        ),
    )?;
    let log = File::create(host.path("start"))?;
    let mut postfix = host.cgroup.command(&host.netns, "postfix");
    postfix.arg("-c").arg(host.path("etc")).arg("start-fg");
    // It ends with its cgroup.
    let _child = postfix.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    host.wait_for(port::REPLIES, &host.path("log"))
}
