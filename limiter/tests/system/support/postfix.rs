// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Postfix on port 25 of a lab's mail host, apart from any Postfix of the machine.

use std::process::Command;

use super::mail_daemon::{Files, MailDaemon};
use limiter_lab::{Lab, Namespace};

/// Accepts and discards mail for `mx.example.net`. Its own limits are off, so that none of them is what
/// refuses.
const MAIN: &str = "
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
multi_instance_directories =
inet_interfaces = all
inet_protocols = all
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_relay_restrictions = reject_unauth_destination
myhostname = mx.example.net
mydestination = mx.example.net
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
local_transport = discard
";

const MASTER: &str = "
smtp      inet  n       -       n       -       100     smtpd
postlog   unix-dgram n  -       n       -       1       postlogd
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
proxymap  unix  -       -       n       -       -       proxymap
anvil     unix  -       -       n       -       1       anvil
discard   unix  -       -       n       -       -       discard
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
showq     unix  n       -       n       -       -       showq
";

/// Starts it, and waits until it listens on both families.
pub fn start(lab: &Lab) -> MailDaemon {
    start_with(lab, "")
}

/// The same with these lines in main.cf, which replace others.
pub fn start_with(lab: &Lab, more: &str) -> MailDaemon {
    start_serving_with(lab, 100, more)
}

/// The same with so many processes, each of which serves a client.
pub fn start_serving(lab: &Lab, processes: u32) -> MailDaemon {
    start_serving_with(lab, processes, "")
}

fn start_serving_with(lab: &Lab, processes: u32, more: &str) -> MailDaemon {
    let master = MASTER.replace(" 100     smtpd", &format!(" {processes:<7} smtpd"));
    start_in(&lab.host, &format!("{MAIN}{more}"), &master, |files, command| {
        MailDaemon::start(lab, "Postfix", files, command, &[25])
    })
}

/// One with this main.cf and master.cf in a network namespace, by the command that `start` gets.
pub fn start_in(
    netns: &Namespace,
    main: &str,
    master: &str,
    start: impl FnOnce(Files, Command) -> MailDaemon,
) -> MailDaemon {
    let files = Files::new();
    for sub in ["etc", "queue", "data"] {
        files.dir(sub);
    }
    files.give("data", "postfix");
    files.write("etc/main.cf", main);
    files.write("etc/master.cf", master);
    let mut command = netns.command("postfix");
    command.arg("-c").arg(files.path("etc")).arg("start-fg");
    start(files, command)
}
