// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Exim. As a sender it starts a process for each message that comes in, and what one cannot deliver another one may
//! take along whose connection is open.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    host::Host,
    mailer::{FROM, Mailer, recipient},
    plan::Timers,
    setting::{DOMAIN, HOST, MESSAGES, PORT, SCALED, TLS_PORT},
};
use crate::unpacked::{EXIM, EXIM_USER};

/// Exim.
pub struct Exim;

/// Where Debian's has its configuration. With another one it gives up root for good, and then it cannot hand an open
/// connection on to the process of the next message.
const CONFIG: &str = "etc/exim4/exim4.conf";

const BOTH: &str = "
spool_directory = {dir}/spool
log_file_path = {dir}/%slog
pid_file_path = {dir}/spool/pid
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
log_selector = +received_recipients
";

const RECEIVER: &str = "
acl_smtp_rcpt = accept
begin acl
begin routers
discard:
  driver = redirect
  data = :blackhole:
";

/// What Debian's has for a host without a way of its own into the network, but for names.
const SENDER: &str = "
begin routers
smarthost:
  driver = manualroute
  route_list = * {host}
  transport = remote_smtp
begin transports
remote_smtp:
  driver = smtp
  port = {port}
  protocol = {protocol}
begin retry
";

impl Exim {
    fn configure(host: &Host, text: &str) -> Result<()> {
        // Where it runs, this is `/etc`.
        host.directory("etc", None)?;
        host.directory("etc/exim4", None)?;
        // It starts itself again for each message, and is not where Debian's is installed.
        host.write(CONFIG, &format!("exim_path = {}\n{text}", EXIM.program().display()))
    }

    fn start(host: &mut Host, is_up: impl Fn(&Host) -> Result<bool>) -> Result<()> {
        host.directory("spool", Some(EXIM_USER))?;
        for log in ["mainlog", "rejectlog", "paniclog"] {
            host.write(log, "")?;
            nix::unistd::chown(&host.path(log), Some(EXIM_USER.into()), Some(EXIM_USER.into()))?;
        }
        let mut exim = host.command("unshare");
        EXIM.launch(&mut exim, host.folder())?;
        exim.arg("-bdf");
        host.serve(exim, is_up)
    }

    fn exim(host: &Host) -> Result<Command> {
        host.beside(EXIM.program())
    }
}

impl Mailer for Exim {
    fn receive(&self, host: &mut Host, limit: Option<usize>) -> Result<()> {
        // As many at a time as Postfix serves. Its backlog stays what it is by default, 20.
        let limit = limit.map(|limit| format!("smtp_accept_max_per_host = {limit}\n")).unwrap_or_default();
        let own = format!(
            "primary_hostname = {DOMAIN}\ndaemon_smtp_ports = {PORT}\nsmtp_accept_max = 100\n{limit}"
        );
        Self::configure(host, &format!("{own}{BOTH}{RECEIVER}"))?;
        Self::start(host, |host| host.listens(PORT))
    }

    fn queue(&self, host: &mut Host, port: u16, timers: Timers, message: &str) -> Result<()> {
        // The first is that of its default configuration.
        let rule = match timers {
            Timers::Default => "* * F,2h,15m; G,16h,1h,1.5; F,4d,6h\n".to_owned(),
            Timers::Scaled => format!("* * F,4d,{}s\n", SCALED.as_secs()),
        };
        let own =
            "primary_hostname = sender.example.org\ndaemon_smtp_ports = 25\nlocal_interfaces = 127.0.0.1\n";
        let protocol = if port == TLS_PORT { "smtps" } else { "smtp" };
        let sender = SENDER.replace("{host}", &HOST.to_string());
        let sender = sender.replace("{port}", &port.to_string()).replace("{protocol}", protocol);
        Self::configure(host, &format!("{own}{BOTH}{sender}{rule}"))?;
        // Without a queue runner, which would deliver what is still being queued. Debian's comes every half an hour,
        // and that is not waited for.
        Self::start(host, |host| host.listens(PORT))?;
        for number in 0..MESSAGES {
            let mut exim = Self::exim(host)?;
            exim.args(["-odq", "-f", FROM, &recipient(number)]);
            let mut child = exim.stdin(Stdio::piped()).spawn()?;
            child.stdin.take().context("it is piped")?.write_all(message.as_bytes())?;
            if !child.wait()?.success() {
                bail!("Exim does not accept a message:\n{}", host.log("paniclog"));
            }
        }
        Ok(())
    }

    fn release(&self, host: &mut Host, _: Timers) -> Result<()> {
        let queued = host.log("mainlog");
        let ids =
            queued.lines().filter(|line| line.contains(" <= ")).filter_map(|line| line.split(' ').nth(2));
        for id in ids {
            // What Exim itself starts for each message that has come in.
            let mut delivery = Self::exim(host)?;
            delivery.args(["-Mc", id]);
            host.spawn(delivery)?;
        }
        Ok(())
    }

    /// A queue runner. The daemon's own cannot be kept from coming while messages are queued.
    fn nudge(&self, host: &mut Host) -> Result<()> {
        let mut runner = Self::exim(host)?;
        runner.arg("-q");
        host.spawn(runner)
    }

    fn received(&self, host: &Host) -> usize {
        host.messages("mainlog", |line| line.contains(" <= "))
    }

    fn put_off(&self, host: &Host) -> usize {
        // A message, and that it is put off for it is too early (with another log_selector) is logged alike.
        host.log("mainlog").lines().filter(|line| line.contains(" == ")).count()
    }
}
