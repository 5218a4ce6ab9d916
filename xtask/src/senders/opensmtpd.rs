// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! OpenSMTPD. Its times to try again cannot be set, but it can be told to try.

use std::{
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    host::Host,
    mailer::{FROM, Mailer, recipient},
    plan::Timers,
    setting::{HOST, MESSAGES, PORT},
};
use crate::{
    command,
    unpacked::{OPENSMTPD, OPENSMTPD_QUEUE},
};

/// OpenSMTPD.
pub struct OpenSmtpd;

/// Its control program.
const CONTROL: &str = "usr/sbin/smtpctl";

/// Everything goes to one account, whose mail is thrown away.
const RECEIVER: &str = "
table everyone { \"@\" = nobody }
listen on 0.0.0.0
action \"discard\" mda \"cat >/dev/null\" virtual <everyone>
match from any for any action \"discard\"
";

const SENDER: &str = "
listen on socket
action \"relay\" relay host \"smtp://{host}\" helo sender.example.org
match from local for any action \"relay\"
";

impl OpenSmtpd {
    fn start(host: &mut Host, config: &str, is_up: impl Fn(&Host) -> Result<bool>) -> Result<()> {
        host.write("smtpd.conf", config)?;
        let mut smtpd = host.command("unshare");
        OPENSMTPD.launch(&mut smtpd, host.folder())?;
        smtpd.arg("-d").arg("-f").arg(host.path("smtpd.conf"));
        host.serve(smtpd, is_up)
    }

    /// Its control program, by one of its names, in the group as which an installation runs it.
    fn control(host: &Host, name: &Path, arguments: &[&str]) -> Result<Command> {
        let mut control = host.beside("setpriv")?;
        control.args(["--keep-groups", "--regid", &OPENSMTPD_QUEUE.to_string()]).arg(name).args(arguments);
        Ok(control)
    }

    fn order(host: &Host, arguments: &[&str]) -> Result<Command> {
        let mut order = Self::control(host, &OPENSMTPD.file(CONTROL), arguments)?;
        order.stdout(Stdio::null());
        Ok(order)
    }
}

impl Mailer for OpenSmtpd {
    fn receive(&self, host: &mut Host, limit: Option<usize>) -> Result<()> {
        if limit.is_some() {
            bail!("OpenSMTPD cannot limit the connections of a source");
        }
        Self::start(host, RECEIVER, |host| host.listens(PORT))
    }

    fn queue(&self, host: &mut Host, port: u16, _: Timers, message: &str) -> Result<()> {
        if port != PORT {
            bail!("OpenSMTPD sends to port {PORT} here, not to {port}");
        }
        let config = SENDER.replace("{host}", &HOST.to_string());
        Self::start(host, &config, |host| {
            let mut control = Self::order(host, &["pause", "mta"])?;
            Ok(control.stderr(Stdio::null()).status()?.success())
        })?;
        // By this name it is what takes messages.
        let sendmail = host.path("sendmail");
        symlink(OPENSMTPD.file(CONTROL), &sendmail)?;
        for number in 0..MESSAGES {
            let mut sendmail = Self::control(host, &sendmail, &["-f", FROM, &recipient(number)])?;
            let mut child = sendmail.stdin(Stdio::piped()).spawn()?;
            child.stdin.take().context("it is piped")?.write_all(message.as_bytes())?;
            if !child.wait()?.success() {
                bail!("OpenSMTPD does not accept a message:\n{}", host.log("output"));
            }
        }
        Ok(())
    }

    fn release(&self, host: &mut Host, _: Timers) -> Result<()> {
        command::run(&mut Self::order(host, &["resume", "mta"])?)
    }

    fn nudge(&self, host: &mut Host) -> Result<()> {
        // It fails when there is nothing left to schedule.
        let _done = Self::order(host, &["schedule", "all"])?.stderr(Stdio::null()).status()?;
        Ok(())
    }

    fn received(&self, host: &Host) -> usize {
        host.messages("output", |line| line.contains("smtp envelope"))
    }

    fn put_off(&self, host: &Host) -> usize {
        host.log("output").lines().filter(|line| line.contains("result=TempFail")).count()
    }
}
