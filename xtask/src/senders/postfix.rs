// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Postfix. As a sender it counts a host that answers 421 as dead, and puts off what it has for it.

use std::{fs, io::Write as _, process::Stdio};

use anyhow::{Result, bail};

use super::{
    host::{Host, account},
    mailer::{FROM, Mailer, recipient},
    plan::Timers,
    setting::{DOMAIN, HOST, MESSAGES, PORT, SCALED, TLS_PORT},
};
use crate::command;

/// Postfix.
pub struct Postfix;

/// Apart from any Postfix of the machine. Names are not looked up: there are none.
const MAIN: &str = "
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
multi_instance_directories =
inet_protocols = ipv4
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_relay_restrictions = reject_unauth_destination
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
local_transport = discard
";

const MASTER: &str = "
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
pickup    unix  n       -       n       60      1       pickup
postlog   unix-dgram n  -       n       -       1       postlogd
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
proxymap  unix  -       -       n       -       -       proxymap
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
discard   unix  -       -       n       -       -       discard
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
showq     unix  n       -       n       -       -       showq
";

/// What TLS needs besides.
const TLS_MASTER: &str = "tlsmgr    unix  -       -       n       1000?   1       tlsmgr\n";

impl Postfix {
    fn configure(host: &Host, main: &str, master: &str) -> Result<()> {
        for (name, owner) in [("etc", None), ("queue", None), ("data", Some(account("postfix")?))] {
            host.directory(name, owner)?;
        }
        host.write("etc/main.cf", &format!("{MAIN}{main}"))?;
        host.write("etc/master.cf", &format!("{master}{MASTER}"))
    }

    fn start(host: &mut Host, is_up: impl Fn(&Host) -> Result<bool>) -> Result<()> {
        let mut postfix = host.command("postfix");
        postfix.arg("-c").arg(host.path("etc")).arg("start-fg");
        host.serve(postfix, is_up)
    }
}

impl Mailer for Postfix {
    fn receive(&self, host: &mut Host, limit: Option<usize>) -> Result<()> {
        // 0 is no limit.
        let limit = limit.unwrap_or(0);
        let main = format!(
            "myhostname = {DOMAIN}\nmydestination = {DOMAIN}\nsmtpd_client_connection_count_limit = {limit}\n"
        );
        Self::configure(host, &main, "smtp      inet  n       -       n       -       -       smtpd\n")?;
        Self::start(host, |host| host.listens(PORT))
    }

    fn queue(&self, host: &mut Host, port: u16, timers: Timers, message: &str) -> Result<()> {
        let mut main =
            format!("myhostname = sender.example.org\nmydestination =\nrelayhost = [{HOST}]:{port}\n");
        let is_tls = port == TLS_PORT;
        main += if is_tls { "smtp_tls_wrappermode = yes\nsmtp_tls_security_level = encrypt\n" } else { "" };
        if timers == Timers::Scaled {
            let (soon, late) = (SCALED.as_secs(), 3 * SCALED.as_secs());
            let delays =
                [("queue_run_delay", soon), ("minimal_backoff_time", soon), ("maximal_backoff_time", late)];
            main.extend(delays.map(|(key, seconds)| format!("{key} = {seconds}s\n")));
        }
        Self::configure(host, &main, if is_tls { TLS_MASTER } else { "" })?;
        // Makes the queue's directories.
        command::run(host.command("postfix").arg("-c").arg(host.path("etc")).arg("check"))?;
        // As long as it does not run, its sendmail leaves messages where it finds them when it starts.
        for number in 0..MESSAGES {
            let mut sendmail = host.command("sendmail");
            sendmail.env("MAIL_CONFIG", host.path("etc")).args(["-f", FROM, &recipient(number)]);
            let mut child = sendmail.stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(message.as_bytes())?;
            }
            child.wait()?;
        }
        // Where it is, sendmail says so however it ends.
        let queued = fs::read_dir(host.path("queue/maildrop"))?.count();
        if queued != MESSAGES {
            bail!("Postfix has queued {queued} of {MESSAGES} messages");
        }
        Ok(())
    }

    fn release(&self, host: &mut Host, _: Timers) -> Result<()> {
        Self::start(host, |_| Ok(true))
    }

    fn received(&self, host: &Host) -> usize {
        host.messages("log", |line| line.contains("postfix/discard[") && line.contains("status=sent"))
    }

    fn put_off(&self, host: &Host) -> usize {
        host.log("log").lines().filter(|line| line.contains("status=deferred")).count()
    }
}
